"""What must hold in every run, whatever fails: checked on each event, and by looking at everything.

The checker keeps its own books from what it is told, and believes neither the truth nor the line.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from bench.simulator.kernel import Kernel
from bench.simulator.line import Line
from bench.simulator.observer import Observer
from bench.simulator.people import Person, Row
from bench.simulator.truth import Truth
from easel_kit.ids import AttemptId, JobId, ModelKey, UserId
from scheduler.domain.job import JobState
from scheduler.domain.policy import Share

_OPEN = {
    (JobState.QUEUED, JobState.RUNNING),
    (JobState.RUNNING, JobState.RUNNING),
    (JobState.RUNNING, JobState.QUEUED),
    (JobState.QUEUED, JobState.QUEUED),
}


class Violated(AssertionError):
    """An invariant does not hold; `rule` is its name."""

    def __init__(self, rule: str, text: str, now_s: float) -> None:
        """Where it was seen."""
        super().__init__(f"{rule} at {now_s:.3f} s: {text}")
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long what may be late is allowed to be."""

    repair_s: float
    """A job may be missing from the line, or a lease outlive its job, for so long."""
    slots: int
    users: int
    weights: int
    """Sum over the tiers."""
    max_cost_ms: int
    wait_factor: float | None = 1.0
    """Times the wait bound of a fresh user; None where workers are not interchangeable."""


@dataclass(slots=True)
class _Books:
    """A user as the line should see it."""

    share: Share | None = None
    """As the line was told last."""
    waiting: set[JobId] = field(default_factory=set)
    leases: dict[AttemptId, JobId] = field(default_factory=dict)
    unstarted: dict[JobId, Row] = field(default_factory=dict)
    """Jobs that were in line and no worker ever started."""
    served: bool = False
    """Since the line began, or was lost."""
    bound: tuple[float, float] | None = None
    """Since when it is due, and at which dispatched cost at the latest."""


class Checker(Observer):
    """Hears all events; raises `Violated` at the first that must not be."""

    def __init__(self, kernel: Kernel, bounds: Bounds) -> None:
        """Before anything has happened."""
        self.accepted_count = 0
        self.ended_count = 0
        self.checks = 0
        """Looks at everything."""
        self._kernel = kernel
        self._bounds = bounds
        self._states: dict[JobId, JobState] = {}
        self._won: set[JobId] = set()
        self._users: defaultdict[UserId, _Books] = defaultdict(_Books)
        self._due: set[UserId] = set()
        self._busy: defaultdict[int, set[UserId]] = defaultdict(set)
        """Users of each tier with a job in line."""
        self._dispatched_ms = 0.0
        self._missing: dict[JobId, float] = {}
        self._ghosts: dict[JobId, float] = {}

    # --- the truth -----------------------------------------------------------------------------

    def accepted(self, row: Row) -> None:
        """See `Observer`."""
        if row.job_id in self._states:
            self._fail("accepted once", row.job_id)
        self.accepted_count += 1
        self._states[row.job_id] = JobState.QUEUED

    def moved(self, row: Row, old: JobState) -> None:
        """See `Observer`."""
        known = self._states.get(row.job_id)
        if known is None:
            self._fail("ended once", f"{row.job_id} moves to {row.state} after its end")
        if known is not old or not (row.state.ended or (old, row.state) in _OPEN):
            self._fail("states", f"{row.job_id}: {known} is said to go from {old} to {row.state}")
        if not row.state.ended:
            self._states[row.job_id] = row.state
            return
        del self._states[row.job_id]
        self.ended_count += 1
        if (row.state is JobState.SUCCEEDED) != (row.job_id in self._won):
            self._fail("one result", f"{row.job_id} ended {row.state} with or without one")
        self._won.discard(row.job_id)
        self._users[row.person.id].unstarted.pop(row.job_id, None)

    def won(self, row: Row, attempt_id: AttemptId) -> None:
        """See `Observer`."""
        if row.job_id in self._won or row.job_id not in self._states:
            self._fail("one result", f"{row.job_id} has one; {attempt_id} brings another")
        self._won.add(row.job_id)

    # --- the line ------------------------------------------------------------------------------

    def admitted(self, row: Row) -> None:
        """See `Observer`."""
        books = self._users[row.person.id]
        share = row.person.plan.share
        if books.share is not None and books.share.priority != share.priority:
            self._busy[books.share.priority].discard(row.person.id)
            books.bound = None  # its waiting jobs move with it
        books.share = share
        if row.job_id in self._states and row.started_s is None:
            books.unstarted[row.job_id] = row
        self._wait(row, books)

    def lent(self, row: Row, attempt_id: AttemptId, models: frozenset[ModelKey] | None) -> None:
        """See `Observer`."""
        books = self._users[row.person.id]
        books.waiting.discard(row.job_id)
        if row.job_id in books.leases.values():
            self._fail("one lease", f"{row.job_id} is lent twice")
        books.leases[attempt_id] = row.job_id
        limit = books.share.max_running if books.share else 0
        if len(books.leases) > limit:
            self._fail("cap", f"{row.person.id} holds {len(books.leases)} leases, limit {limit}")
        if models is not None:
            self._dispatched_ms += row.waiting.cost_ms
            self._in_time(row.person, books)
            if row.started_s is None:
                self._in_order(row, books, models)
        books.served = True  # one that was adopted is charged at its end
        books.unstarted.pop(row.job_id, None)
        self._look_again(row.person, books)

    def returned(self, row: Row, attempt_id: AttemptId, *, waits: bool) -> None:
        """See `Observer`."""
        books = self._users[row.person.id]
        if books.leases.pop(attempt_id, None) is None:
            self._fail("one lease", f"{attempt_id} was returned and never lent")
        if waits:
            self._wait(row, books)
        else:
            self._look_again(row.person, books)

    def left(self, row: Row) -> None:
        """See `Observer`."""
        books = self._users[row.person.id]
        books.waiting.discard(row.job_id)
        self._look_again(row.person, books)

    def flushed(self) -> None:
        """See `Observer`."""
        for books in self._users.values():
            books.waiting.clear()
            books.leases.clear()
            books.bound = None
            books.served = False
        self._due.clear()
        self._busy.clear()

    # --- order and waits -----------------------------------------------------------------------

    def _in_order(self, row: Row, books: _Books, models: frozenset[ModelKey]) -> None:
        for other in books.unstarted.values():
            if other.waiting.model_key in models and other.place < row.place:
                self._fail("order", f"{row.job_id} starts before {other.job_id}")

    def _wait(self, row: Row, books: _Books) -> None:
        books.waiting.add(row.job_id)
        self._look_again(row.person, books)

    def _look_again(self, person: Person, books: _Books) -> None:
        """A user is due from the moment it may start a job until it is served or may not."""
        share = books.share or person.plan.share
        busy = self._busy[share.priority]
        if books.waiting:
            busy.add(person.id)
        else:
            busy.discard(person.id)
        due = bool(books.waiting) and len(books.leases) < share.max_running
        if not due:
            books.bound = None
            self._due.discard(person.id)
        elif books.bound is None and self._bounds.wait_factor is not None:
            self._due.add(person.id)
            patience_ms = self._patience_ms(share, fresh=not books.served)
            books.bound = (self._kernel.now, self._dispatched_ms + patience_ms)

    def _patience_ms(self, share: Share, *, fresh: bool) -> float:
        """How much cost may be dispatched before the user is.

        Fresh: active users of the tier x 21 (for its weight) + slots jobs of the largest cost. A
        user who was served since the line began has a tag up to one job ahead of the tier's time:
        the same twice, over all users there are, since newcomers may pass.
        """
        users = len(self._busy[share.priority]) if fresh else 2 * self._bounds.users
        rounds = users * math.ceil(self._bounds.weights / share.weight)
        dispatches = (rounds + self._bounds.slots) * (self._bounds.wait_factor or 0.0)
        return dispatches * self._bounds.max_cost_ms

    def _in_time(self, person: Person, books: _Books) -> None:
        if books.bound is not None and self._dispatched_ms > books.bound[1]:
            self._fail("wait", f"{person.id} waits since {books.bound[0]:.1f} s, beyond the bound")
        books.bound = None
        self._due.discard(person.id)

    # --- looks at everything -------------------------------------------------------------------

    def look(self, truth: Truth, line: Line) -> None:
        """Compares books, truth and line; O(open jobs)."""
        self.checks += 1
        if truth.open.keys() != self._states.keys():
            lost = truth.open.keys() ^ self._states.keys()
            self._fail("no loss", f"open in one place only: {sorted(lost)[:5]}")
        counts: defaultdict[UserId, int] = defaultdict(int)
        for row in truth.open.values():
            counts[row.person.id] += 1
            if row.state is not self._states[row.job_id]:
                self._fail("states", f"{row.job_id} is {row.state} and was never told so")
        if any(truth.open_count[user_id] != number for user_id, number in counts.items()):
            self._fail("open jobs", "a user's count differs from the jobs")
        if sum(counts.values()) != truth.open_count.total():
            self._fail("open jobs", "a user without jobs has some counted")
        for user_id in self._due:
            bound = self._users[user_id].bound
            if bound is not None and self._dispatched_ms > bound[1]:
                self._fail("wait", f"{user_id} waits since {bound[0]:.1f} s, beyond the bound")
        if not line.up or line.epoch is None or not truth.up:
            self._missing.clear()
            self._ghosts.clear()
            return
        self._linger(self._missing, truth.open.keys() - line.rows.keys(), "no loss", "not in line")
        self._linger(self._ghosts, line.rows.keys() - truth.open.keys(), "slots", "ended, in line")

    def _linger(self, since: dict[JobId, float], found: set[JobId], rule: str, what: str) -> None:
        for job_id in since.keys() - found:
            del since[job_id]
        for job_id in found:
            first_s = since.setdefault(job_id, self._kernel.now)
            if self._kernel.now - first_s > self._bounds.repair_s:
                self._fail(rule, f"{job_id} is {what} since {first_s:.1f} s")

    def finish(self, truth: Truth, line: Line) -> None:
        """After a run was drained: everything accepted has ended once, nothing is held."""
        self.look(truth, line)
        if self._states:
            self._fail("starvation", f"never ended: {sorted(self._states)[:5]}")
        if self.ended_count != self.accepted_count:
            self._fail("no loss", f"{self.accepted_count} accepted, {self.ended_count} ended")
        if line.rows or line.leases or truth.open_count.total():
            self._fail("slots", "something is held after the end of everything")

    def _fail(self, rule: str, text: str) -> None:
        raise Violated(rule, text, self._kernel.now)
