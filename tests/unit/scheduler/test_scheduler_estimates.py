"""Positions and etas against the policy itself, and the other small rules of the domain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from easel_kit.ids import ModelKey, UserId, WorkerId, new_job_id
from scheduler.domain.estimate import (
    Pace,
    Spot,
    TierLine,
    eta_running_s,
    eta_waiting_s,
    position,
)
from scheduler.domain.generation import Generation
from scheduler.domain.job import Job, JobState
from scheduler.domain.line import Live, seen
from scheduler.domain.worker import Model, ModelDefaults, Worker, merged_models

AT = datetime(2026, 1, 1, tzinfo=UTC)


def spot(*, before: int = 0, own: int = 5, rank: int = 0, users: int = 1) -> Spot:
    return Spot(0, 100, before, own, rank, users)


def test_a_lone_users_jobs_stand_in_their_order() -> None:
    tiers = [TierLine(0, 1, 5, 0.0)]
    assert [position(spot(before=n), tiers) for n in range(5)] == [1, 2, 3, 4, 5]


def test_users_of_a_tier_take_turns() -> None:
    tiers = [TierLine(0, 1, 15, 0.0)]
    assert [position(spot(before=n, rank=1, users=3), tiers) for n in range(3)] == [2, 5, 8]


def test_no_more_stand_ahead_than_there_are() -> None:
    tiers = [TierLine(0, 1, 6, 0.0)]  # five of its own, one of another
    assert position(spot(before=4, rank=1, users=2), tiers) == 6


def test_a_job_outside_the_line_stands_where_the_first_tier_does() -> None:
    tiers = [TierLine(0, 1, 0, None), TierLine(10, 4, 4, 50.0)]  # it waits for a pause to end
    assert position(spot(own=0), tiers) == 1 + 1
    assert position(spot(own=0), [TierLine(0, 1, 0, None)]) == 1


def test_other_tiers_go_first_by_their_tags_and_weights() -> None:
    def stands(**tier: float) -> int:
        other = TierLine(10, 4, 100, 0.0)
        return position(spot(), [TierLine(0, 1, 5, 100.0), replace(other, **tier)])  # type: ignore[arg-type]

    assert stands(start=100.0) == 2  # a tie goes to the higher priority
    assert stands(start=100.0, priority=-10) == 1
    assert stands(start=0.0) == 1 + 5
    assert stands(start=0.0, waiting=2) == 3
    assert stands(start=500.0) == 1


def test_an_eta_needs_measured_work_and_someone_to_do_it() -> None:
    pace = Pace(mean_ms=1_000, ms_per_cost=2.0, slots=2)
    assert eta_waiting_s(3, 100, pace) == pytest.approx(1.2)
    assert eta_waiting_s(3, 100, replace(pace, slots=0)) is None
    assert eta_waiting_s(3, 100, Pace(slots=2)) is None
    assert eta_running_s(500, 5, 10, 100, Pace()) == pytest.approx(0.5)
    assert eta_running_s(150, 0, 10, 100, pace) == pytest.approx(0.05)
    assert eta_running_s(900, 0, 10, 100, pace) == 0
    assert eta_running_s(900, 0, 10, 100, Pace()) is None


def job(state: JobState) -> Job:
    picture = Generation(ModelKey("m"), "p", "", 64, 64, 10, 1.0, 1, "", 1)
    return Job(new_job_id(), UserId("u"), state, picture, 1, 1, AT, AT, attempts=1)


def test_the_queue_is_ahead_of_the_database() -> None:
    live = Live(running=True, attempts=2, claimed_at=AT, first_step_at=AT, step=4)
    shown = seen(job(JobState.QUEUED), live)
    assert (shown.state, shown.attempts, shown.steps_done) == (JobState.RUNNING, 2, 4)
    waiting = seen(job(JobState.RUNNING), Live(running=False, attempts=0, position=7, eta_s=3.0))
    assert (waiting.state, waiting.attempts, waiting.position) == (JobState.QUEUED, 1, 7)


def test_a_job_that_has_ended_or_is_not_in_line_is_shown_as_it_is() -> None:
    ended, queued = job(JobState.FAILED), job(JobState.QUEUED)
    assert seen(ended, Live(running=True, attempts=2)) is ended
    assert seen(queued, None) is queued


def model(key: str, *, name: str = "", loaded: bool = False, reason: str = "") -> Model:
    return Model(
        key=ModelKey(key),
        name=name,
        base="sd-1",
        type="main",
        description="",
        licence="",
        defaults=ModelDefaults(1, 1.0, 64, 64, ""),
        sizes_px=(),
        max_steps=1,
        max_prompt_tokens=1,
        samplers=(),
        loaded=loaded,
        unavailable_reason=reason,
    )


def test_models_of_many_workers_are_one_row_per_key() -> None:
    workers = [
        Worker(WorkerId("b"), "s", "", "", 1, (model("x", name="usable"), model("a"))),
        Worker(WorkerId("a"), "s", "", "", 1, (model("x", reason="damaged", loaded=True),)),
        Worker(WorkerId("c"), "s", "", "", 1, (model("x", name="later"),)),
    ]
    merged = merged_models(workers)
    assert [one.key for one in merged] == ["a", "x"]
    assert (merged[1].name, merged[1].loaded, merged[1].unavailable_reason) == ("usable", True, "")
    assert workers[1].usable_models == ()
    assert workers[0].usable_models == ("x", "a")
