"""The promises that every history must keep, one function each; `check` runs them all.

0 lost, 0 accepted twice, what was refused never runs, counts and orders right, failures explained,
nothing left over. The promises about leases are in `leases`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.chaos.history import ENDED, History
from tests.chaos.leases import caps_hold, one_lease_a_job
from tests.chaos.records import (
    Ack,
    AttemptRow,
    Cancel,
    Count,
    Done,
    EventRow,
    Fell,
    JobRow,
    Sample,
    Seen,
    Start,
    Submit,
    Welcomed,
)
from tests.chaos.violations import Violation

PLANTED = "planted_"
_MAY_WIN = frozenset({"succeeded", "lost", "forgotten"})
"""The first success wins, from whichever attempt: also from one that was given up before."""
_SETTLED_S = 3.0
"""After an outage of the stores or a replica the queue may still be incomplete for so long."""


def check(history: History) -> list[Violation]:
    """All broken promises of a run; none for a sound one."""
    return [violation for promise in PROMISES for violation in promise(history)]


def run_says_something(history: History) -> Iterator[Violation]:
    """A run that ended early or saw nothing proves nothing."""
    done = history.of(Done)
    if not done:
        yield Violation("vacuous", "run", "it did not get to its end")
        return
    if not done[0].calm:
        yield Violation("never calm", "run", "jobs were still open, or events unread, at the end")
    if len(history.kills) < history.run.kills:
        yield Violation("vacuous", "run", f"{len(history.kills)} of {history.run.kills} kills")
    for kill in history.kills:
        if kill.number not in history.backs:
            yield Violation("vacuous", kill.name, f"did not come back after kill {kill.number}")
    if not history.accepted:
        yield Violation("vacuous", "run", "no job was accepted")
    if not any(sample.leases and sample.running for sample in history.of(Sample)):
        yield Violation("vacuous", "run", "no sample saw a running job")
    if not any(count.open for count in history.of(Count)):
        yield Violation("vacuous", "run", "no count saw an open job")


def accepted_jobs_end(history: History) -> Iterator[Violation]:
    """Each job that was accepted, or that the database knows, has ended once, also in the feed."""
    ends: dict[str, list[str]] = defaultdict(list)
    queued: dict[str, int] = defaultdict(int)
    for event in history.of(EventRow):
        if event.type in ENDED:
            ends[event.job].append(event.type)
        else:
            queued[event.job] += 1
            if event.job in ends:
                yield Violation("event order", event.job, "queued after its end")
    for job in history.accepted.keys() - history.jobs.keys():
        yield Violation("lost", job, "accepted, and the database does not know it")
    for row in history.of(JobRow):
        if row.state not in ENDED:
            yield Violation("lost", row.job, f"never ended: {row.state}")
        elif ends[row.job] != [row.state]:
            text = f"ended {row.state}, the feed says {ends[row.job]}"
            yield Violation("end not told once", row.job, text)
        if queued[row.job] != 1:
            yield Violation("event order", row.job, f"{queued[row.job]} times queued")
    for job in ends.keys() - history.jobs.keys():
        yield Violation("end not told once", job, "an end of a job that is not there")


def success_is_accepted_once(history: History) -> Iterator[Violation]:
    """One result a job that succeeded, of an attempt that its worker reported so."""
    for job, rows in history.results.items():
        if len(rows) > 1:
            yield Violation("accepted twice", job, f"{len(rows)} results")
        if job not in history.jobs or history.jobs[job].state != "succeeded":
            yield Violation("accepted twice", job, "a result of a job that did not succeed")
        attempt = history.attempts.get(rows[0].attempt)
        if attempt is None or attempt.job != job or attempt.outcome not in _MAY_WIN:
            yield Violation("wrong result", job, f"{rows[0].attempt} is no success of it")
        told = [report.outcome for report in history.reports.get(rows[0].attempt, ())]
        if "succeeded" not in told:
            yield Violation("wrong result", job, f"{rows[0].attempt} was never reported a success")
    for row in history.of(JobRow):
        if row.state == "succeeded" and row.job not in history.results:
            yield Violation("lost", row.job, "succeeded without a result")
    for event in history.of(Seen):
        rows = history.results.get(event.job, [])
        if event.type == "succeeded" and event.attempt not in {row.attempt for row in rows}:
            text = f"{event.consumer} was told of {event.attempt}"
            yield Violation("wrong result", event.job, text)


def acknowledgements_are_true(history: History) -> Iterator[Violation]:
    """What a worker was told of its report is what the database has."""
    for attempt, acks in history.acks.items():
        reports = history.reports.get(attempt)
        if not reports:
            yield Violation("false acknowledgement", attempt, "of a report that was never sent")
            continue
        row = history.attempts.get(attempt)
        outcome = reports[0].outcome
        kept = row is not None and any(
            result.attempt == attempt for result in history.results.get(row.job, ())
        )
        for ack in acks:
            if ack.accepted and outcome == "succeeded" and not kept:
                text = f"accepted for {ack.worker}, and the job has another result, or none"
                yield Violation("accepted twice", attempt, text)
            if ack.accepted and outcome != "succeeded" and (row is None or row.outcome != outcome):
                text = f"{outcome} accepted, {row.outcome if row else 'nothing'} written"
                yield Violation("false acknowledgement", attempt, text)
            if not ack.accepted and kept:
                text = "refused, and its result is the job's"
                yield Violation("false acknowledgement", attempt, text)


def reports_are_answered(history: History) -> Iterator[Violation]:
    """A worker that lives has its reports acknowledged, unless a welcome dropped the attempt."""
    answered = {(ack.worker, ack.pid, ack.attempt) for ack in history.of(Ack)} | {
        (one.worker, one.pid, attempt)
        for one in history.of(Welcomed)
        for attempt in set(one.held) - set(one.kept)
    }
    dead = {(kill.name, kill.pid) for kill in history.kills if kill.what == "worker"}
    for attempt, reports in history.reports.items():
        for report in reports[:1]:
            process = (report.worker, report.pid)
            if process not in dead and (*process, attempt) not in answered:
                text = f"{report.worker} was never told about its {report.outcome}"
                yield Violation("report unanswered", attempt, text)


def refused_jobs_never_run(history: History) -> Iterator[Violation]:
    """What was refused or buried is in no table, on no worker, in no event."""
    run = {start.job for start in history.of(Start)}
    told = {event.job for event in history.of(EventRow)}
    for job in history.refused:
        for where, found in (
            ("a row", history.jobs.keys()),
            ("an attempt", history.tries.keys()),
            ("a worker", run),
            ("an event", told),
        ):
            if job in found:
                yield Violation("ran though refused", job, f"{where} has it")
    for submit in history.of(Submit):
        for job in submit.jobs:
            if submit.answer == "accepted" and history.buried.get(job, submit.until) < submit.at:
                yield Violation("ran though refused", job, "accepted after it was buried")


def only_known_jobs_run(history: History) -> Iterator[Violation]:
    """Workers are sent jobs that somebody submitted, as their users', and each attempt once."""
    tried = {job for submit in history.of(Submit) for job in submit.jobs}
    for attempt, starts in history.starts.items():
        if len(starts) > 1:
            where = ", ".join(start.worker for start in starts)
            yield Violation("sent twice", attempt, f"to {where}")
        row = history.jobs.get(starts[0].job)
        if starts[0].job not in tried or row is None or row.user != starts[0].user:
            yield Violation("unknown job", starts[0].job, f"{attempt} was sent to a worker")


def cancels_are_asked_for(history: History) -> Iterator[Violation]:
    """A cancelled job was cancelled by its user; an answer of cancelled is final."""
    asked: dict[str, set[str]] = defaultdict(set)
    for cancel in history.of(Cancel):
        asked[cancel.job].add(cancel.answer)
    for row in history.of(JobRow):
        if row.state == "cancelled" and row.job not in asked:
            yield Violation("cancelled unasked", row.job, "nobody had asked for it")
        final = asked[row.job] & ENDED
        if final and final != {row.state}:
            text = f"its user was told {sorted(final)}, it ended {row.state}"
            yield Violation("end changed", row.job, text)


def failures_are_explained(history: History) -> Iterator[Violation]:
    """A job fails by its own planted error, or after as many tries that count as are allowed."""
    for row in history.of(JobRow):
        if row.state == "failed" and (text := unexplained(history, row)):
            yield Violation("failed unexplained", row.job, f"{row.code}: {text}")


def unexplained(history: History, row: JobRow) -> str:
    """Why a failed job should not have failed; empty where it should."""
    tries = history.tries.get(row.job, [])
    if any(one.outcome == "refused" and _failed_by_itself(history, one) for one in tries):
        return ""
    counted = [one for one in tries if one.counted]
    if len(counted) < history.run.max_attempts:
        return f"{len(counted)} tries count"
    wrong = [one.attempt for one in counted if not counts_rightly(history, one)]
    return f"counted without a cause: {', '.join(wrong)}" if wrong else ""


def counts_rightly(history: History, attempt: AttemptRow) -> bool:
    """Its own error, or the death or hang of its worker, ended the attempt."""
    if attempt.outcome in {"failed", "unfit"}:
        return _failed_by_itself(history, attempt)
    ended_at = attempt.ended_at if attempt.ended_at is not None else float("inf")
    return any(
        begin <= ended_at and end >= attempt.claimed_at
        for begin, end in history.deaths.get(attempt.worker, ())
    )


def _failed_by_itself(history: History, attempt: AttemptRow) -> bool:
    return any(
        report.outcome == attempt.outcome and report.code.startswith(PLANTED)
        for report in history.reports.get(attempt.attempt, ())
    )


def open_counts_are_true(history: History) -> Iterator[Violation]:
    """At each instant looked at, the users' counts are the numbers of their open jobs."""
    for count in history.of(Count):
        for user, (said, found) in count.wrong.items():
            text = f"the row says {said}, {found} are open, at {count.at:.3f}"
            yield Violation("count wrong", user, text)


def nothing_is_left(history: History) -> Iterator[Violation]:
    """At the end the queue is empty and no count stands."""
    samples, counts = history.of(Sample), history.of(Count)
    for last in samples[-1:]:
        if last.known or last.leases or last.running:
            text = f"{last.known} jobs known, leases {last.leases}, running {last.running}"
            yield Violation("left over", "queue", text)
    if counts and counts[-1].open:
        yield Violation("left over", "database", f"{counts[-1].open} jobs are open")


def feed_has_no_gaps(history: History) -> Iterator[Violation]:
    """Each consumer, over all its reconnections, reads every event once and in order."""
    events = [tuple(event.cursor) for event in history.of(EventRow)]
    known = set(events)
    read: dict[str, list[Seen]] = defaultdict(list)
    for event in history.of(Seen):
        read[event.consumer].append(event)
    if events and not read:
        yield Violation("feed", "consumers", "nobody has read an event")
    for consumer, seen in read.items():
        cursors = [tuple(event.cursor) for event in seen]
        for before, after in pairwise(cursors):
            if after <= before:
                yield Violation("feed", consumer, f"{after} after {before}")
        for cursor in known - set(cursors):
            yield Violation("feed", consumer, f"never saw {cursor}")
        for cursor in set(cursors) - known:
            yield Violation("feed", consumer, f"saw {cursor}, which is not there")


def first_starts_keep_order(history: History) -> Iterator[Violation]:
    """A user's jobs of one model start in the order in which they were submitted, fronts apart.

    It must be so where the first was accepted before the second was sent, and no store or replica
    was away from then to its start: a job admitted late, by the reconciler, may be overtaken.
    """
    for earlier, later in ordered_pairs(history):
        first, second = _first_start(history, earlier), _first_start(history, later)
        if first is not None and second is not None and second < first:
            text = f"started {first - second:.3f} s after {later}, which was submitted later"
            yield Violation("order", earlier, text)


def ordered_pairs(history: History) -> Iterator[tuple[str, str]]:
    """Pairs of jobs of which the first must start first."""
    troubles = [
        (kill.at, history.back_at(kill) + _SETTLED_S)
        for kill in history.kills
        if kill.what not in {"worker", "hang"}
    ]
    lines: dict[tuple[str, str], list[JobRow]] = defaultdict(list)
    for row in sorted(history.of(JobRow), key=lambda row: row.place):
        if row.job in history.accepted and not row.front:
            lines[row.user, row.model].append(row)
    for line in lines.values():
        for earlier, later in pairwise(line):
            first, second = history.accepted[earlier.job], history.accepted[later.job]
            started = _first_start(history, later.job)
            if started is None or _first_start(history, earlier.job) is None:
                continue
            calm = not any(begin <= started and first.at <= end for begin, end in troubles)
            if calm and first.until < second.at:
                yield earlier.job, later.job


def _first_start(history: History, job: str) -> float | None:
    return min((one.claimed_at for one in history.tries.get(job, ()) if one.number == 1),
               default=None)  # fmt: skip


def nobody_falls(history: History) -> Iterator[Violation]:
    """A process that served ends only when it is killed."""
    for fall in history.of(Fell):
        if fall.ready:
            yield Violation("fell", fall.name, f"ended with {fall.status} by itself")


PROMISES: tuple[Callable[[History], Iterator[Violation]], ...] = (
    run_says_something,
    accepted_jobs_end,
    success_is_accepted_once,
    acknowledgements_are_true,
    reports_are_answered,
    refused_jobs_never_run,
    only_known_jobs_run,
    cancels_are_asked_for,
    failures_are_explained,
    open_counts_are_true,
    nothing_is_left,
    feed_has_no_gaps,
    first_starts_keep_order,
    caps_hold,
    one_lease_a_job,
    nobody_falls,
)
