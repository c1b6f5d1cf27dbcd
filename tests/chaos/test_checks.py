"""Each promise can be broken: a fault planted in a sound history is found, by its rule alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.checks import check, first_starts_keep_order, ordered_pairs
from tests.chaos.drive import merge
from tests.chaos.figures import describe, noticed, served_again, taken_over
from tests.chaos.history import read
from tests.chaos.leases import caps_hold, certain_leases, one_lease_a_job
from tests.chaos.records import (
    Ack,
    AttemptRow,
    Back,
    Book,
    Cancel,
    Count,
    Cut,
    Done,
    Fell,
    JobRow,
    Kill,
    Plan,
    Report,
    Resolve,
    ResultRow,
    Sample,
    Seen,
    Start,
    Submit,
    Told,
    Welcomed,
)
from tests.chaos.stories import ALICE, BOB, Story, sound_story

Plant = Callable[[Story], None]


def test_a_sound_history_breaks_nothing() -> None:
    assert check(sound_story().history()) == []


def _job(name: str) -> Callable[[JobRow], bool]:
    return lambda row: row.job == name


def _attempt(name: str) -> Callable[[AttemptRow], bool]:
    return lambda row: row.attempt == name


def _two_results(story: Story) -> None:
    """Two workers are told that their pictures are the job's."""
    story.add(
        Report(1.75, "w1", 11, "a2", "succeeded"),
        Ack(1.8, "w1", 11, "a2", accepted=True),
    )


def _one_too_many(story: Story) -> None:
    """Alice's second job begins while her first one runs."""
    story.change(AttemptRow, _attempt("a2"), claimed_at=1.4)


def _one_too_many_unrecorded(story: Story) -> None:
    """The same, known from workers alone."""
    story.drop(AttemptRow, _attempt("a2"))
    story.change(Start, lambda one: one.attempt == "a2", at=1.4)


def _a_job_on_two(story: Story) -> None:
    """Bob may run two, but not one job twice at once."""
    story.change(AttemptRow, _attempt("a7"), claimed_at=4.15)


def _overtaken(story: Story) -> None:
    story.change(AttemptRow, _attempt("a4"), claimed_at=3.39)


def _failed_too_soon(story: Story) -> None:
    story.drop(AttemptRow, _attempt("a7"))
    story.drop(Start, lambda one: one.attempt == "a7")


FAULTS: list[tuple[str, Plant]] = [
    # nothing is lost
    ("lost", lambda story: story.change(JobRow, _job("j1"), state="running")),
    ("lost", lambda story: story.drop(ResultRow, lambda row: row.job == "j1")),
    ("lost", lambda story: story.add(Submit(8.0, 8.1, ALICE, ["j8"], "accepted"))),
    ("end not told once", lambda story: story.event(8.5, "j1", ALICE, "succeeded", "a1")),
    ("end not told once", lambda story: story.change(JobRow, _job("j3"), state="failed")),
    ("end not told once", lambda story: story.event(8.5, "j9", ALICE, "cancelled")),
    ("event order", lambda story: story.event(8.5, "j1", ALICE, "queued")),
    # nothing is accepted twice
    ("accepted twice", _two_results),
    ("accepted twice", lambda story: story.add(ResultRow(99, "j1", "a3"))),
    ("accepted twice", lambda story: story.add(ResultRow(99, "j3", "a4"))),
    ("wrong result", lambda story: story.drop(Report, lambda one: one.attempt == "a3")),
    ("wrong result", lambda story: story.change(ResultRow, lambda r: r.job == "j2", attempt="a2")),
    ("wrong result", lambda story: story.change(Seen, lambda s: s.attempt == "a1", attempt="a9")),
    (
        "false acknowledgement",
        lambda story: story.change(Ack, lambda one: one.attempt == "a1", accepted=False),
    ),
    (
        "false acknowledgement",
        lambda story: story.change(AttemptRow, _attempt("a4"), outcome="lost"),
    ),
    ("false acknowledgement", lambda story: story.add(Ack(8.0, "w1", 11, "a9", accepted=True))),
    ("report unanswered", lambda story: story.drop(Ack, lambda one: one.attempt == "a3")),
    # what was refused never runs
    ("ran though refused", lambda story: story.submit("j6", ALICE, 8.0)),
    ("ran though refused", lambda story: story.start("a9", "j6", ALICE, "w2", 8.0)),
    ("ran though refused", lambda story: story.event(8.0, "j7", ALICE, "queued")),
    (
        "ran though refused",
        lambda story: story.add(
            AttemptRow(99, "a9", "j7", "w2", 1, 8.0, 8.1, "lost", counted=True)
        ),
    ),
    ("ran though refused", lambda story: story.add(Resolve(0.1, 0.2, "j1", "buried"))),
    ("unknown job", lambda story: story.add(Start(8.0, "w2", 12, "a9", "j9", ALICE, 1))),
    ("unknown job", lambda story: story.change(Start, lambda s: s.attempt == "a4", user=ALICE)),
    ("sent twice", lambda story: story.add(Start(1.3, "w2", 12, "a1", "j1", ALICE, 1))),
    # ends have causes
    ("cancelled unasked", lambda story: story.drop(Cancel, lambda one: one.job == "j3")),
    ("end changed", lambda story: story.add(Cancel(2.5, 2.6, ALICE, "j2", "cancelled"))),
    ("failed unexplained", _failed_too_soon),
    ("failed unexplained", lambda story: story.drop(Kill, lambda kill: kill.number == 3)),
    ("failed unexplained", lambda story: story.change(AttemptRow, _attempt("a6"), counted=False)),
    (
        "failed unexplained",
        lambda story: story.change(Report, lambda one: one.outcome == "refused", code="bug"),
    ),
    # counts
    ("count wrong", lambda story: story.add(Count(7.9, {ALICE: [1, 0]}, 0), Count(8.0, {}, 0))),
    ("left over", lambda story: story.add(Count(8.1, {}, 1))),
    ("left over", lambda story: story.add(Sample(8.1, {}, {}, 0, 1))),
    ("left over", lambda story: story.add(Sample(8.1, {}, {ALICE: 1}, 0, 0))),
    # the feed
    ("feed", lambda story: story.drop(Seen, lambda one: one.job == "j3" and one.type == "queued")),
    ("feed", lambda story: story.add(Seen(8.0, "c", [1, 701, 1], "queued", "j1", ALICE, "", ""))),
    (
        "feed",
        lambda story: story.add(Seen(8.0, "c", [1, 800, 99], "queued", "j1", ALICE, "", "")),
    ),
    ("feed", lambda story: story.drop(Seen, lambda _: True)),
    # the queue
    ("order", _overtaken),
    ("cap exceeded", _one_too_many),
    ("cap exceeded", _one_too_many_unrecorded),
    ("cap exceeded", lambda s: s.add(Sample(7, {ALICE: 2}, {}, 0, 2), Sample(8, {}, {}, 0, 0))),
    ("cap exceeded", lambda s: s.add(Sample(7, {}, {ALICE: 2}, 0, 2), Sample(8, {}, {}, 0, 0))),
    ("cap exceeded", lambda s: s.add(Sample(7, {"?": 1}, {}, 0, 2), Sample(8, {}, {}, 0, 0))),
    ("two leases", _a_job_on_two),
    ("fell", lambda story: story.add(Fell(8.0, "scheduler-0", 1, ready=True))),
    # the run itself
    ("vacuous", lambda story: story.drop(Done, lambda _: True)),
    ("vacuous", lambda story: story.drop(Sample, lambda one: bool(one.leases))),
    ("vacuous", lambda story: story.drop(Count, lambda one: bool(one.open))),
    ("vacuous", lambda story: story.drop(Back, lambda one: one.name == "w1")),
    ("never calm", lambda story: story.change(Done, lambda _: True, calm=False)),
]


@pytest.mark.parametrize(
    ("rule", "plant"), FAULTS, ids=[f"{number}-{rule}" for number, (rule, _) in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found(rule: str, plant: Plant) -> None:
    story = sound_story()
    plant(story)
    assert rule in {violation.rule for violation in check(story.history())}


def test_fewer_kills_than_asked_for_are_told() -> None:
    story = sound_story()
    story.drop(Kill, lambda kill: kill.name == "w1")
    assert "vacuous" in {violation.rule for violation in check(story.history())}


def test_nothing_accepted_says_nothing() -> None:
    story = Story()
    story.add(*sound_story().records[:3], Done(9, calm=True))
    assert "vacuous" in {violation.rule for violation in check(story.history())}


# --- a lease that may have been taken away is no lease


def _crowded(end: Plant) -> Story:
    """Alice's first attempt goes on beside her second one, unless `end` ended its lease."""
    story = Story()
    story.add(*sound_story().records[:3])
    story.submit("j1", ALICE, 1.0)
    story.submit("j2", ALICE, 1.1)
    story.start("a1", "j1", ALICE, "w1", 1.2)
    story.start("a2", "j2", ALICE, "w2", 1.6)
    end(story)
    return story


def test_the_crowd_is_seen_where_nothing_ended_the_lease() -> None:
    assert [one.rule for one in caps_hold(_crowded(lambda _: None).history())] == ["cap exceeded"]


@pytest.mark.parametrize(
    "end",
    [
        lambda story: story.kill("redis", "redis", 1.4, 1.5),
        lambda story: story.kill("redis", "redis", 1.19, 1.21),
        lambda story: story.kill("worker", "w1", 1.4, 1.5),
        lambda story: story.kill("hang", "w1", 1.4, 9.0),
        lambda story: story.kill("hang", "w1", 1.1, 9.0),
        lambda story: story.add(Cut(1.4, "w1", 11, "UNAVAILABLE")),
        lambda story: story.add(Told(1.4, "w1", 11, "a1")),
        lambda story: story.add(Report(1.4, "w1", 11, "a1", "succeeded")),
        lambda story: story.ends("a1", "lost", 1.4, counted=True),
    ],
    ids=[
        "store lost",
        "store lost around the claim",
        "killed",
        "hung",
        "hung before",
        "cut off",
        "told",
        "reported",
        "ended",
    ],
)
def test_a_lease_that_may_have_ended_counts_no_more(end: Plant) -> None:
    assert list(caps_hold(_crowded(end).history())) == []


@pytest.mark.parametrize(
    "end",
    [
        lambda story: story.kill("scheduler", "scheduler-0", 1.4, 1.5),
        lambda story: story.kill("worker", "w3", 1.4, 1.5),
        lambda story: story.kill("redis", "redis", 0.5, 0.6),
        lambda story: story.add(Cut(1.4, "w1", 99, "of another process")),
    ],
    ids=["another part", "another worker", "before", "another process"],
)
def test_a_lease_does_not_end_by_what_hits_others(end: Plant) -> None:
    assert list(caps_hold(_crowded(end).history())) != []


def test_an_attempt_replaced_unseen_has_no_certain_lease() -> None:
    story = _crowded(lambda story: story.ends("a1", "superseded", 1.7, counted=False))
    story.drop(Start, lambda start: start.attempt == "a1")
    assert [lease.attempt for lease in certain_leases(story.history())] == ["a2"]


def test_two_attempts_of_a_job_may_follow_each_other() -> None:
    story = _crowded(lambda story: story.ends("a1", "handed_back", 1.4, counted=False))
    story.start("a3", "j1", ALICE, "w2", 1.401, n=2)
    assert list(one_lease_a_job(story.history())) == []


# --- order


def _line(first_start: float, second_start: float, second_submit: float = 1.1) -> Story:
    story = Story()
    story.add(*sound_story().records[:3])
    story.submit("j1", BOB, 1.0)
    story.submit("j2", BOB, second_submit)
    story.start("a1", "j1", BOB, "w1", first_start)
    story.start("a2", "j2", BOB, "w2", second_start)
    return story


def test_order_must_be_kept_between_calm_submits() -> None:
    assert list(first_starts_keep_order(_line(1.3, 1.2).history())) != []
    assert list(first_starts_keep_order(_line(1.2, 1.3).history())) == []


def test_order_is_open_between_submits_at_once_and_around_an_outage() -> None:
    assert list(ordered_pairs(_line(1.3, 1.2, second_submit=1.005).history())) == []
    story = _line(1.3, 1.2)
    story.kill("redis", "redis", 1.15, 1.16)
    assert list(ordered_pairs(story.history())) == []
    story = _line(1.3, 1.2)
    story.kill("worker", "w3", 1.15, 1.16)
    assert list(ordered_pairs(story.history())) == [("j1", "j2")]


# --- other ways to be right


def test_a_welcome_that_drops_an_attempt_answers_its_report() -> None:
    story = sound_story()
    story.drop(Ack, lambda one: one.attempt == "a4")
    story.add(Welcomed(3.45, "w2", 12, held=["a4"], kept=[], door="here"))
    assert check(story.history()) == []


def test_a_dead_worker_waits_for_no_answer() -> None:
    story = sound_story()
    story.add(Report(1.69, "w1", 11, "a2", "succeeded"))
    assert check(story.history()) == []


def test_a_job_whose_submit_was_never_answered_may_run_or_not() -> None:
    story = sound_story()
    story.change(Submit, lambda one: "j1" in one.jobs, answer="unknown")
    assert check(story.history()) == []


# --- figures


def test_recovery_is_measured_from_the_kill_to_the_next_start() -> None:
    history = sound_story().history()
    (taken,) = taken_over(history, "worker", alone=True).values
    assert taken == pytest.approx(0.302)
    (seen,) = noticed(history, "worker", alone=True).values
    assert seen == pytest.approx(0.2)
    assert len(noticed(history, "hang", alone=True).values) == 3
    assert len(taken_over(history, "hang", alone=False).values) == 2
    assert "1 three deaths (worker_lost)" in describe(history)


def test_what_others_kills_disturb_is_told_apart() -> None:
    story = sound_story()
    story.kill("redis", "redis", 1.65, 1.8)
    history = story.history()
    assert taken_over(history, "worker", alone=True).values == ()
    assert noticed(history, "worker", alone=True).values == ()
    assert len(noticed(history, "worker", alone=False).values) == 1
    assert len(taken_over(history, "worker", alone=False).values) == 1
    (served,) = served_again(history, "redis").values
    assert served == pytest.approx(0.67)


def test_a_history_survives_the_disk_and_a_torn_last_line(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    book = Book(tmp_path / "workers" / "w1-11.jsonl")
    book.write(*sound_story().records)
    book.close()
    with (tmp_path / "workers" / "w1-11.jsonl").open("a") as file:
        file.write('{"at":9.9,"kind":"do')
    history = read(merge(tmp_path))
    assert check(history) == []
    assert history.of(Plan) == sound_story().history().of(Plan)
