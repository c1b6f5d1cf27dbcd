"""Leases as the history can prove them: never above a user's cap, never two at once on one job.

Samples of the queue's store show each instant as it was. Between them the history proves a lease
only from its claim to the first thing that may have ended it: the worker's report, the word to
stop, the loss of the worker's stream, its death or hang, the loss of the queue's store, the end of
the attempt in the database (written before the slot is freed). What may have gone on beyond that
counts as no lease: a replaced attempt that its worker still draws is none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.history import History
from tests.chaos.records import Cut, Sample, Told
from tests.chaos.violations import Violation

_CLOCK_S = 0.001
"""Claims are stamped in whole milliseconds, rounded down."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A span in which an attempt surely held a lease."""

    attempt: str
    job: str
    user: str
    since: float
    until: float


def caps_hold(history: History) -> Iterator[Violation]:
    """At no instant more leases of a user than its plan lets run."""
    for sample in history.of(Sample):
        for found in (sample.leases, sample.running):
            for user, count in found.items():
                most = history.plans[user].max_running if user in history.plans else 0
                if count > most:
                    text = f"{count} leases of {most} allowed, seen at {sample.at:.3f}"
                    yield Violation("cap exceeded", user, text)
    by_user = defaultdict(list)
    for lease in certain_leases(history):
        by_user[lease.user].append(lease)
    for user, leases in by_user.items():
        yield from _overlaps(user, leases, history.plans[user].max_running)


def _overlaps(user: str, leases: list[Lease], most: int) -> Iterator[Violation]:
    edges = [(lease.since, 1, lease.attempt) for lease in leases]
    edges += [(lease.until, 0, lease.attempt) for lease in leases]
    held: set[str] = set()
    for at, begins, attempt in sorted(edges):  # at one instant ends come before beginnings
        if not begins:
            held.discard(attempt)
            continue
        held.add(attempt)
        if len(held) > most:
            text = f"{len(held)} leases of {most} allowed at {at:.3f}: {', '.join(sorted(held))}"
            yield Violation("cap exceeded", user, text)


def one_lease_a_job(history: History) -> Iterator[Violation]:
    """No attempt is lent while another one of the same job surely has its lease."""
    by_job = defaultdict(list)
    for lease in certain_leases(history):
        by_job[lease.job].append(lease)
    for job, leases in by_job.items():
        leases.sort(key=lambda lease: lease.since)
        for first, second in pairwise(leases):
            if second.since < first.until:
                text = f"{second.attempt} at {second.since:.3f} beside {first.attempt}"
                yield Violation("two leases", job, text)


def certain_leases(history: History) -> Iterator[Lease]:
    """Spans of all attempts that the history knows, from the database or from a worker."""
    ends = _Ends(history)
    for attempt in history.attempts.keys() | history.starts.keys():
        row = history.attempts.get(attempt)
        starts = history.starts.get(attempt, [])
        if row is None:
            since, job = starts[0].at, starts[0].job
        else:
            since, job = row.claimed_at + _CLOCK_S, row.job
        known = history.jobs.get(job)
        user = starts[0].user if starts else known.user if known is not None else ""
        until = ends.first(attempt, since)
        if since < until and user in history.plans:
            yield Lease(attempt, job, user, since, until)


class _Ends:
    """When an attempt's lease may have ended, at the earliest."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._told: dict[str, float] = {}
        for told in history.of(Told):
            self._told.setdefault(told.attempt, told.at)
        self._cuts: dict[tuple[str, int], list[float]] = defaultdict(list)
        for cut in history.of(Cut):
            self._cuts[cut.worker, cut.pid].append(cut.at)

    def first(self, attempt: str, since: float) -> float:
        history = self._history
        row = history.attempts.get(attempt)
        starts = history.starts.get(attempt, [])
        candidates = [begin for begin, end in history.losses if end >= since]
        if row is not None and row.ended_at is not None:
            candidates.append(row.ended_at)
        if row is not None and row.outcome == "superseded" and not starts:
            return since  # nobody can say when it lost its lease
        if attempt in self._told:
            candidates.append(self._told[attempt])
        candidates += [report.at for report in history.reports.get(attempt, ())]
        for start in starts:
            candidates.append(_next(self._cuts[start.worker, start.pid], start.at))
        worker = row.worker if row is not None else starts[0].worker
        candidates += [end for end, back in history.deaths.get(worker, ()) if back > since]
        return min(candidates, default=float("inf"))


def _next(times: list[float], since: float) -> float:
    """The first of the sorted times at or after `since`."""
    place = bisect_left(times, since)
    return times[place] if place < len(times) else float("inf")
