"""The line: what Redis holds. Each method is one script, atomic, and gone with a flush.

Who is next is the policy's (`scheduler.domain.policy` itself, or another one); the leases around it
follow `scheduler.storage.lua`. A line that was flushed answers nobody until one replica has
rebuilt it from the truth and given it a new epoch: every method may raise `DependencyDown`, and has
then done nothing.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from bench.simulator.disciplines import Discipline
from bench.simulator.kernel import Kernel
from bench.simulator.observer import Observer
from bench.simulator.people import Admission, Row
from easel_kit.errors import Conflict, DependencyDown, NotFound
from easel_kit.ids import AttemptId, JobId, ModelKey, WorkerId
from scheduler.domain.lease import Claim

_DAWN = datetime(2026, 1, 1, tzinfo=UTC)
_GONE_S = 60.0
"""How long an ended job is remembered, so that a late admission of it is ignored."""


@dataclass(slots=True)
class Lease:
    """A claim that runs; `restored` where it was made up after a loss."""

    claim: Claim
    row: Row
    deadline_s: float
    restored: bool = False


class Line:
    """The line of one lane, with its leases."""

    def __init__(
        self,
        kernel: Kernel,
        observer: Observer,
        policy: Callable[[], Discipline],
        *,
        lease_ttl_s: float,
    ) -> None:
        """Empty, and valid from the start."""
        self.up = True
        self.epoch: int | None = 1
        self.calm_until_s = 0.0
        """No lease runs out before: set by each outage."""
        self.on_wake: Callable[[Collection[ModelKey]], None] = lambda _: None
        """Jobs of these models may be claimed."""
        self.on_stop: Callable[[WorkerId, AttemptId], None] = lambda *_: None
        self._kernel = kernel
        self._observer = observer
        self._policy = policy
        self._ttl_s = lease_ttl_s
        self._attempts = count(1)
        self._epochs = count(2)
        self._building = 0
        self._clear()

    def _clear(self) -> None:
        self.queue = self._policy()
        self.rows: dict[JobId, Row] = {}
        self.leases: dict[AttemptId, Lease] = {}
        self.holder: dict[JobId, AttemptId] = {}
        self.seats: dict[WorkerId, int] = {}
        self.held: defaultdict[WorkerId, set[AttemptId]] = defaultdict(set)
        self._numbers: dict[JobId, int] = {}
        self._models: dict[ModelKey, None] = {}
        """All that jobs have asked for: any of them may wait for a slot that its user gets back."""
        self._delayed: dict[JobId, tuple[float, bool]] = {}
        """Jobs whose next try waits: until when, and whether the policy knows the job."""
        self._gone: dict[JobId, float] = {}
        self._start_by: list[tuple[float, JobId]] = []

    def flush(self) -> None:
        """Everything is forgotten, the epoch too."""
        self.epoch = None
        self._building = 0
        self._clear()
        self._observer.flushed()

    def go(self, *, up: bool) -> None:
        """Stops answering, or answers again; what it held is kept."""
        self.up = up
        self.calm_until_s = self._kernel.now + self._ttl_s

    def begin(self) -> int:
        """A rebuild starts from nothing; answers the epoch that it will have."""
        self.epoch = None
        self._building = next(self._epochs)
        self._ask(self._building)
        self._clear()
        self._observer.flushed()
        return self._building

    def open(self, epoch: int) -> None:
        """A rebuild is complete: the line answers everyone again."""
        self._ask(epoch)
        self.epoch = epoch
        self.calm_until_s = self._kernel.now + self._ttl_s

    def _ask(self, building: int = 0) -> None:
        lost = self._building != building if building else self.epoch is None
        if lost or not self.up:
            raise DependencyDown("the line is away or lost")

    def admit(self, admissions: Iterable[Admission], *, building: int = 0) -> int:
        """Puts jobs in line, those that run under the lease they had; answers how many were new."""
        self._ask(building)
        added = 0
        for one in admissions:
            job_id = one.row.job_id
            if job_id in self.rows or self._gone.get(job_id, 0.0) > self._kernel.now:
                continue
            added += 1
            self._enter(one.row, one.number)
            if one.not_before_s > self._kernel.now:
                self._delayed[job_id] = (one.not_before_s, False)
                continue
            self._put(one.row)
            if one.claim is not None and self.queue.hold(job_id):
                self._lend(one.claim, one.row, models=None, restored=True)
            else:
                self._wake(one.row)
        return added

    def _enter(self, row: Row, number: int) -> None:
        self.rows[row.job_id] = row
        self._numbers[row.job_id] = number
        if not number:
            heapq.heappush(self._start_by, (row.start_by_s, row.job_id))

    def _put(self, row: Row) -> None:
        self._models[row.waiting.model_key] = None
        self.queue.admit(row.waiting, row.person.plan.share)
        self._observer.admitted(row)

    def release(self) -> None:
        """Puts delayed jobs in line whose time has come."""
        self._ask()
        now_s = self._kernel.now
        for job_id in [key for key, (at_s, _) in self._delayed.items() if at_s <= now_s]:
            self._resume(job_id)
            self._wake(self.rows[job_id])

    def _resume(self, job_id: JobId) -> None:
        _, known = self._delayed.pop(job_id)
        if known:
            self.queue.release(job_id)
        self._put(self.rows[job_id])

    def claim(
        self,
        worker_id: WorkerId,
        session: int,
        limit: int,
        *,
        models: frozenset[ModelKey],
        loaded: Collection[ModelKey] = (),
    ) -> list[Claim]:
        """The next jobs for a worker with these models, each under a fresh lease.

        Raises:
            NotFound: the worker has to join again.
            Conflict: another stream speaks for the worker.
        """
        self._ask()
        self._know(worker_id, session)
        claims: list[Claim] = []
        while len(claims) < limit and (job := self.queue.claim(models, loaded=loaded)) is not None:
            claim = Claim(
                AttemptId(f"a{next(self._attempts)}"),
                job.job_id,
                job.user_id,
                worker_id,
                self._numbers[job.job_id] + 1,
                _DAWN + timedelta(seconds=self._kernel.now),
            )
            self._lend(claim, self.rows[job.job_id], models=models)
            claims.append(claim)
        return claims

    def _lend(
        self,
        claim: Claim,
        row: Row,
        *,
        models: frozenset[ModelKey] | None,
        restored: bool = False,
    ) -> None:
        deadline_s = self._kernel.now + self._ttl_s
        self.leases[claim.attempt_id] = Lease(claim, row, deadline_s, restored)
        self.holder[claim.job_id] = claim.attempt_id
        self._numbers[claim.job_id] = claim.number
        self.held[claim.worker_id].add(claim.attempt_id)
        self._observer.lent(row, claim.attempt_id, models)
        if models is not None and row.started_s is None:
            row.started_s = self._kernel.now

    def requeue(self, claim: Claim, *, stop: bool, not_before_s: float = 0.0) -> bool:
        """The attempt no longer runs: its job waits again, unless another attempt has it.

        Until `not_before_s` it is delayed: in no line.
        """
        self._ask()
        current = self.holder.get(claim.job_id) == claim.attempt_id
        later = not_before_s > self._kernel.now
        row = self._take_back(claim.attempt_id, stop=stop, waits=current and not later)
        if not current or row is None:
            return False
        self.queue.requeue(claim.job_id, later=later)
        if later:
            self._delayed[claim.job_id] = (not_before_s, True)
        self.on_wake(self._models)
        return True

    def remove(
        self,
        job_ids: Collection[JobId],
        *,
        by: AttemptId | None = None,
        took_ms: int | None = None,
    ) -> None:
        """Jobs have ended: frees places and slots, stops other attempts than `by`.

        Args:
            job_ids: the jobs.
            by: the attempt that reported it.
            took_ms: how long it took, of a success.
        """
        self._ask()
        for job_id in job_ids:
            self._gone[job_id] = self._kernel.now + _GONE_S
            row = self.rows.pop(job_id, None)
            if row is None:
                continue
            holder = self.holder.get(job_id)
            if holder is None:
                self._observer.left(row)
            else:
                self._take_back(holder, stop=holder != by, waits=False)
            del self._numbers[job_id]
            self._delayed.pop(job_id, None)
            self.queue.remove(job_id, took_ms=took_ms)
            self.on_wake(self._models)
        if by is not None:
            self._take_back(by, stop=False, waits=False)

    def stop(self, job_id: JobId) -> None:
        """Asks the worker that runs a job to stop it."""
        self._ask()
        holder = self.holder.get(job_id)
        if holder is not None:
            self.on_stop(self.leases[holder].claim.worker_id, holder)

    def _take_back(self, attempt_id: AttemptId, *, stop: bool, waits: bool) -> Row | None:
        lease = self.leases.pop(attempt_id, None)
        if lease is None:
            return None
        claim = lease.claim
        if self.holder.get(claim.job_id) == attempt_id:
            del self.holder[claim.job_id]
        self.held[claim.worker_id].discard(attempt_id)
        if stop:
            self.on_stop(claim.worker_id, attempt_id)
        self._observer.returned(lease.row, attempt_id, waits=waits)
        return lease.row

    def adopt(self, session: int, claim: Claim, row: Row) -> bool:
        """Lets a worker keep an attempt that it still has; False when it was superseded."""
        self._ask()
        job_id = row.job_id
        if self.seats.get(claim.worker_id) != session:
            return False
        if self._gone.get(job_id, 0.0) > self._kernel.now:
            return False
        holder = self.holder.get(job_id)
        if holder == claim.attempt_id:
            self._extend(claim)
            return True
        if holder is not None or self._numbers.get(job_id, 0) > claim.number:
            return False
        if job_id not in self.rows:
            self._enter(row, claim.number)
            self._put(row)
        elif job_id in self._delayed:
            self._resume(job_id)
        if not self.queue.hold(job_id):
            return False
        self._lend(claim, row, models=None)
        return True

    def _extend(self, claim: Claim) -> None:
        lease = self.leases[claim.attempt_id]
        lease.claim, lease.restored = replace(lease.claim, worker_id=claim.worker_id), False
        lease.deadline_s = self._kernel.now + self._ttl_s
        self.held[claim.worker_id].add(claim.attempt_id)

    def join(self, worker_id: WorkerId, session: int) -> list[Claim]:
        """A stream introduces its worker; answers the claims that the worker holds."""
        self._ask()
        self.seats[worker_id] = session
        return self._held(worker_id)

    def leave(self, worker_id: WorkerId, session: int) -> list[Claim]:
        """A stream is gone for good; answers the claims it leaves, none where another has come."""
        self._ask()
        if self.seats.get(worker_id, session) != session:
            return []
        self.seats.pop(worker_id, None)
        return self._held(worker_id)

    def renew(self, worker_id: WorkerId, session: int, held: Iterable[AttemptId]) -> set[AttemptId]:
        """A heartbeat: extends leases; answers those that the worker does hold.

        Raises:
            NotFound: the worker has to join again.
            Conflict: another stream speaks for the worker.
        """
        self._ask()
        self._know(worker_id, session)
        deadline_s = self._kernel.now + self._ttl_s
        found = self.held[worker_id].intersection(held)
        for attempt_id in found:
            lease = self.leases[attempt_id]
            lease.deadline_s, lease.restored = deadline_s, False
        return found

    def _held(self, worker_id: WorkerId) -> list[Claim]:
        return [self.leases[attempt_id].claim for attempt_id in sorted(self.held[worker_id])]

    def _know(self, worker_id: WorkerId, session: int) -> None:
        found = self.seats.get(worker_id)
        if found is None:
            raise NotFound("worker", worker_id)
        if found != session:
            raise Conflict("another stream of this worker has taken over")

    def expired(self) -> list[tuple[Claim, bool]]:
        """Claims past their deadline; True for leases that were made up after a loss."""
        self._ask()
        now_s = self._kernel.now
        if now_s < self.calm_until_s:
            return []
        late = [lease for lease in self.leases.values() if lease.deadline_s <= now_s]
        return [(lease.claim, lease.restored) for lease in late]

    def overdue(self) -> list[JobId]:
        """Jobs that wait past their queue time and were never started."""
        self._ask()
        late: list[tuple[float, JobId]] = []
        while self._start_by and self._start_by[0][0] <= self._kernel.now:
            start_by_s, job_id = heapq.heappop(self._start_by)
            if job_id in self.rows and not self._numbers[job_id]:
                late.append((start_by_s, job_id))
        for one in late:  # they stay until they are removed
            heapq.heappush(self._start_by, one)
        return [job_id for _, job_id in late]

    def known(self) -> set[JobId]:
        """Jobs in line or running."""
        self._ask()
        now_s = self._kernel.now
        self._gone = {job_id: at_s for job_id, at_s in self._gone.items() if at_s > now_s}
        return set(self.rows)

    def _wake(self, row: Row) -> None:
        self.on_wake([row.waiting.model_key])
