"""What keeps a line right by itself: leases that ran out, waits too long, repairs, rebuilds.

Follows `scheduler.service.{settle,upkeep}`: each store call is one atomic step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from bench.simulator.kernel import Kernel, Life, Process
from bench.simulator.line import Line
from bench.simulator.network import Network
from bench.simulator.truth import Truth
from easel_kit.errors import DependencyDown
from scheduler.domain.job import JobState
from scheduler.domain.lease import Claim, Outcome, Report


@dataclass(frozen=True, slots=True)
class Terms:
    """Times of the protocol, in seconds; the scheduler's own settings by default."""

    lease_ttl_s: float = 15.0
    heartbeat_s: float = 5.0
    grace_s: float = 1.0
    expire_every_s: float = 1.0
    reconcile_every_s: float = 5.0
    page: int = 1_000
    """Rows that one step reads."""


class Settler:
    """The end of an attempt: durable first, then the line follows."""

    def __init__(self, truth: Truth, line: Line, network: Network) -> None:
        """Decides in `truth`, frees slots in `line`."""
        self._truth = truth
        self._line = line
        self._network = network

    def follow(
        self,
        claim: Claim,
        decided: tuple[JobState | None, float],
        *,
        by_worker: bool,
        took_ms: int | None = None,
    ) -> None:
        """Brings the line to what the truth has decided."""
        state, not_before_s = decided
        if state is None or state.ended:
            by = claim.attempt_id if by_worker else None
            self._line.remove([claim.job_id], by=by, took_ms=took_ms)
        else:
            self._line.requeue(claim, stop=not by_worker, not_before_s=not_before_s)

    def lose(self, claims: Iterable[Claim], outcome: Outcome = Outcome.LOST) -> Process:
        """Attempts whose workers will not report them."""
        for claim in claims:
            yield self._network.hop()
            decided = self._truth.settle(Report(claim, outcome))
            yield self._network.hop()
            self.follow(claim, decided, by_worker=False)


class Caretaker:
    """The loops of one replica."""

    def __init__(
        self,
        *,
        kernel: Kernel,
        truth: Truth,
        line: Line,
        network: Network,
        terms: Terms,
        life: Life,
    ) -> None:
        """Not started. For one lease after this moment, and after each outage, nothing expires."""
        self._kernel = kernel
        self._truth = truth
        self._line = line
        self._network = network
        self._terms = terms
        self._life = life
        self._settler = Settler(truth, line, network)
        self._calm_until_s = kernel.now + terms.lease_ttl_s

    def start(self, random: Random) -> None:
        """Begins the loops, each at its own moment."""
        for work in (self._expire, self._fail_overdue, self._rebuild):
            self._every(self._terms.expire_every_s, work, random.random())
        self._every(self._terms.reconcile_every_s, self._reconcile, random.random())

    def _every(self, seconds: float, work: Callable[[], Process], phase: float) -> None:
        def loop() -> Process:
            yield seconds * phase
            while True:
                try:
                    yield from work()
                except DependencyDown:
                    self._calm_until_s = self._kernel.now + self._terms.lease_ttl_s
                yield seconds

        self._kernel.spawn(loop(), self._life)

    def _expire(self) -> Process:
        self._line.release()
        found = self._line.expired()
        if self._kernel.now >= self._calm_until_s:
            for claim, restored in found:
                outcome = Outcome.FORGOTTEN if restored else Outcome.LOST
                yield from self._settler.lose([claim], outcome)

    def _fail_overdue(self) -> Process:
        overdue = self._line.overdue()
        if overdue:
            yield self._network.hop()
            late = self._truth.expire_waiting(overdue)
            yield self._network.hop()
            self._line.remove(late)

    def _reconcile(self) -> Process:
        known = self._line.known()
        yield self._network.hop()
        for state in (JobState.RUNNING, JobState.QUEUED):  # slots first, then who waits for them
            after = 0
            while page := self._truth.page(state, after=after, limit=self._terms.page):
                after = page[-1].row.place
                yield self._network.hop()
                missing = [one for one in page if one.row.job_id not in known]
                known.difference_update(one.row.job_id for one in page)
                self._line.admit(missing)
        gone = sorted(known.difference(self._truth.still_open(known)))
        yield self._network.hop()
        self._line.remove(gone)
        for job_id in self._truth.stop_requests():
            self._line.stop(job_id)

    def _rebuild(self) -> Process:
        """Makes a line that was flushed anew: one replica at a time, from the truth."""
        line = self._line
        if not line.up or line.epoch is not None or not self._truth.lock(self._life):
            return
        try:
            epoch = line.begin()
            for state in (JobState.RUNNING, JobState.QUEUED):
                after = 0
                while page := self._truth.page(state, after=after, limit=self._terms.page):
                    after = page[-1].row.place
                    yield self._network.hop()
                    line.admit(page, building=epoch)
            line.open(epoch)
        finally:
            self._truth.unlock(self._life)
        self._calm_until_s = self._kernel.now + self._terms.lease_ttl_s
