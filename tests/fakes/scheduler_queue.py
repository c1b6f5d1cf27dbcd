"""The scheduler's queue in memory: `Line`, `Upkeep`, `Leases`, `Registry` and `Epoch`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from easel_kit.errors import (
    Conflict,
    DependencyDown,
    NotFound,
)
from easel_kit.ids import AttemptId, JobId, ModelKey, UserId, WorkerId, new_attempt_id
from scheduler.domain.estimate import Pace, eta_waiting_s
from scheduler.domain.lease import (
    Claim,
)
from scheduler.domain.line import Admission, Depth, End, Live, Progress
from scheduler.domain.parking import Parking, Seat, Seats, SeatState
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.stream import Control, Drain, Park, Resume, Stop
from scheduler.domain.survey import Survey
from scheduler.domain.worker import Worker, WorkerStatus
from scheduler.ports import SignalHandler
from tests.fakes.scheduler_jobs import MovableClock


@dataclass(slots=True)
class _Entry:
    admission: Admission
    number: int
    claim: Claim | None = None
    deadline: float = 0.0
    restored: bool = False
    progress: Progress | None = None
    not_before: datetime | None = None


@dataclass(slots=True)
class _Silent:
    """Hears nothing."""

    wakes: list[ModelKey] = field(default_factory=list)
    orders: list[tuple[WorkerId, Control]] = field(default_factory=list)
    changes: list[tuple[JobId, Progress | None]] = field(default_factory=list)

    def on_wake(self, model_key: ModelKey) -> None:
        self.wakes.append(model_key)

    def on_control(self, worker_id: WorkerId, message: Control) -> None:
        self.orders.append((worker_id, message))

    def on_job(self, job_id: JobId, progress: Progress | None) -> None:
        self.changes.append((job_id, progress))

    def on_connected(self) -> None:
        """Never."""


def _waiting(one: Admission) -> Waiting:
    return Waiting(one.job_id, one.user_id, one.model_key, one.cost_ms, one.order)


def _done(progress: Progress | None) -> float:
    return progress.step / progress.steps if progress else 0.0


PARKING = Parking(max_s=60, max_times=2)


class MemoryQueue:
    """`Line`, `Leases`, `Upkeep`, `Registry` and `Epoch` over the plain-Python policy.

    `away` makes every call fail; `lose` empties it as a flush of Redis would; `forget` makes it
    lose everything unnoticed, which only the comparison with the database finds.
    """

    def __init__(self, clock: MovableClock, *, lease_ttl_s: float = 15.0) -> None:
        self.away = False
        self.heard = _Silent()
        self.handler: SignalHandler = self.heard
        self._clock = clock
        self._ttl_s = lease_ttl_s
        self._version = 0
        self.doubted = asyncio.Event()
        self._token: str | None = None  # of the rebuild; "": closed, None: open
        self.forget()

    def forget(self) -> None:
        """Loses everything."""
        self._survey = Survey()
        self._policy = FairQueue()
        self._entries: dict[JobId, _Entry] = {}
        self._gone: set[JobId] = set()
        self._workers: dict[WorkerId, Worker] = {}
        self._told_to_drain: set[WorkerId] = set()
        self._pace = Pace()
        self._seats = Seats(self._policy, PARKING)

    def lose(self) -> None:
        """Loses everything, and is closed, as a flushed Redis."""
        self.forget()
        self._token = ""

    def _answer(self) -> None:
        if self.away:
            raise DependencyDown("the queue's store does not answer")

    def _reach(self) -> None:
        self._answer()
        if self._token is not None:
            self.doubted.set()
            raise DependencyDown("the queue is being rebuilt")

    def _deadline(self) -> float:
        return self._clock.monotonic() + self._ttl_s

    def _wake(self) -> None:
        for model in {self._entries[one].admission.model_key for one in self._policy.waiting()}:
            self.handler.on_wake(model)

    def _tell(self, claim: Claim, message: Control) -> None:
        self.handler.on_control(claim.worker_id, message)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def _lend(self, entry: _Entry, claim: Claim, *, restored: bool = False) -> None:
        if entry.claim is not None and entry.claim.worker_id != claim.worker_id:
            self._seats.end(entry.claim.attempt_id)
        entry.claim, entry.number = claim, claim.number
        entry.deadline, entry.restored = self._deadline(), restored
        self._seats.host(claim.worker_id).seats.setdefault(
            claim.attempt_id,
            Seat(
                claim.attempt_id,
                claim.job_id,
                self._policy.priority(claim.user_id),
                int(claim.claimed_at.timestamp() * 1000),
            ),
        )

    def _preempt(self) -> None:
        for worker_id, attempt_id in self._seats.preempt():
            self.handler.on_control(worker_id, Park(attempt_id))

    # --- Line

    async def admit(self, admissions: Sequence[Admission]) -> int:
        """See `ports.Line`."""
        self._reach()
        added = 0
        for admission in admissions:
            if admission.job_id in self._gone or admission.job_id in self._entries:
                continue
            added += 1
            self._put(admission)
            entry = self._entries[admission.job_id]
            self._pause(entry, admission.not_before)
            if admission.claim is not None:
                assert self._policy.hold(admission.job_id)
                self._lend(entry, admission.claim, restored=True)
            self.handler.on_job(admission.job_id, None)
        self._wake()
        self._preempt()
        return added

    def _put(self, admission: Admission) -> None:
        self._entries[admission.job_id] = _Entry(admission, admission.attempts)
        self._policy.admit(
            _waiting(admission),
            admission.share,
        )

    async def enter(
        self, admissions: Sequence[Admission], look_at: Collection[JobId]
    ) -> dict[JobId, Live]:
        """See `ports.Line`."""
        await self.admit(admissions)
        return await self.live(look_at)

    async def end(self, ends: Sequence[End]) -> None:
        """See `ports.Line`."""
        self._reach()
        for end in ends:
            self._gone.add(end.job_id)
            entry = self._entries.pop(end.job_id, None)
            if entry is not None:
                self._forget(entry, end)
            self.handler.on_job(end.job_id, None)
        self._wake()

    def _forget(self, entry: _Entry, end: End) -> None:
        other = entry.claim is not None and entry.claim.attempt_id != end.by
        took_ms = None if other else end.took_ms
        if entry.claim is not None:
            self._seats.end(entry.claim.attempt_id)
        self._policy.remove(end.job_id, took_ms=took_ms, done=_done(entry.progress))
        if entry.claim is not None and other:
            self._tell(entry.claim, Stop(entry.claim.attempt_id))
        if took_ms:
            self._pace = Pace(took_ms, took_ms / entry.admission.cost_ms, 0)

    async def remove(self, job_ids: Collection[JobId]) -> None:
        """See `ports.Line`."""
        await self.end([End(job_id) for job_id in job_ids])

    def _pause(self, entry: _Entry, not_before: datetime | None) -> None:
        if not_before is not None and not_before > self._clock.now():
            entry.not_before = not_before
            self._policy.remove(entry.admission.job_id)

    async def requeue(
        self, claim: Claim, *, stop: bool, not_before: datetime | None = None
    ) -> bool:
        """See `ports.Line`."""
        self._reach()
        if stop:
            self._tell(claim, Stop(claim.attempt_id))
        self._seats.end(claim.attempt_id)
        entry = self._entries.get(claim.job_id)
        if entry is None or entry.claim is None or entry.claim.attempt_id != claim.attempt_id:
            return False
        self._policy.requeue(claim.job_id, done=_done(entry.progress))
        entry.claim, entry.progress = None, None
        self._pause(entry, not_before)
        self.handler.on_job(claim.job_id, None)
        self._wake()
        self._preempt()
        return True

    async def prepend(self, orders: Mapping[JobId, int]) -> None:
        """See `ports.Line`."""
        self._reach()
        self._policy.prepend(orders)
        for job_id, order in orders.items():
            if (entry := self._entries.get(job_id)) is not None:
                entry.admission = replace(entry.admission, front=order)
            self.handler.on_job(job_id, None)

    async def entitle(self, user_id: UserId, share: Share) -> None:
        """See `ports.Line`."""
        self._reach()
        self._policy.entitle(user_id, share)
        self._wake()

    async def forget_user(self, user_id: UserId) -> list[JobId]:
        """See `ports.Line`."""
        self._reach()
        held = [one for one, job in self._entries.items() if job.admission.user_id == user_id]
        if not held:
            self._policy.forget(user_id)
        return held

    async def stop(self, job_id: JobId) -> bool:
        """See `ports.Line`."""
        self._reach()
        entry = self._entries.get(job_id)
        if entry is None or entry.claim is None:
            return False
        self._tell(entry.claim, Stop(entry.claim.attempt_id))
        return True

    async def live(self, job_ids: Collection[JobId]) -> dict[JobId, Live]:
        """See `ports.Line`. The position is the place in order of acceptance."""
        self._reach()
        found = {}
        waiting = self._policy.waiting()
        slots = sum(worker.slots for worker in self._workers.values())
        pace = replace(self._pace, slots=slots)
        for job_id in job_ids:
            entry = self._entries.get(job_id)
            if entry is None:
                continue
            if entry.claim is None:
                own = entry.admission.order
                place = sum(self._entries[one].admission.order < own for one in waiting) + 1
                pause_s = 0.0
                if entry.not_before is not None:
                    pause_s = (entry.not_before - self._clock.now()).total_seconds()
                eta_s = eta_waiting_s(
                    place, entry.admission.cost_ms, pace, pause_ms=max(0.0, pause_s * 1000)
                )
                found[job_id] = Live(
                    running=False, attempts=entry.number, position=place, eta_s=eta_s
                )
            else:
                shown = entry.progress
                found[job_id] = Live(
                    running=True,
                    attempts=entry.number,
                    claimed_at=entry.claim.claimed_at,
                    first_step_at=shown.first_step_at if shown else None,
                    step=shown.step if shown else 0,
                    parked=self._is_parked(entry.claim.attempt_id),
                )
        return found

    async def foresee(self, user_id: UserId, share: Share, cost_ms: int) -> Live:
        """See `ports.Line`. As `live`: behind all that wait."""
        del user_id, share
        self._reach()
        place = len(self._policy.waiting()) + 1
        pace = await self.pace()
        return Live(
            running=False, attempts=0, position=place, eta_s=eta_waiting_s(place, cost_ms, pace)
        )

    def _is_parked(self, attempt_id: AttemptId) -> bool:
        seat = self._seats.seat(attempt_id)
        return seat is not None and seat.state is SeatState.PARKED

    # --- Leases

    def _known(self, worker_id: WorkerId, session: str) -> None:
        self._reach()
        worker = self._workers.get(worker_id)
        if worker is None:
            raise NotFound("worker", worker_id)
        if worker.session != session:
            raise Conflict("another stream of this worker has taken over")

    def _held(self, worker_id: WorkerId) -> list[Claim]:
        claims = [entry.claim for entry in self._entries.values() if entry.claim is not None]
        return [claim for claim in claims if claim.worker_id == worker_id]

    async def join(self, worker: Worker) -> list[Claim]:
        """See `ports.Leases`."""
        self._reach()
        self._introduce(worker)
        return self._held(worker.id)

    def _introduce(self, worker: Worker) -> None:
        self._workers[worker.id] = worker
        host = self._seats.host(worker.id)
        host.models, host.slots = frozenset(worker.usable_models), worker.slots
        host.can_park = worker.can_park and not worker.draining
        host.idle &= not worker.draining
        self._version += 1

    async def update(self, worker: Worker) -> None:
        """See `ports.Leases`."""
        self._known(worker.id, worker.session)
        self._introduce(worker)

    async def leave(self, worker_id: WorkerId, session: str) -> list[Claim]:
        """See `ports.Leases`."""
        try:
            self._known(worker_id, session)
        except Conflict:
            return []
        except NotFound:
            pass
        self._workers.pop(worker_id, None)
        self._seats.leave(worker_id)
        self._told_to_drain.discard(worker_id)
        self._version += 1
        return self._held(worker_id)

    async def renew(
        self, worker_id: WorkerId, session: str, held: Collection[AttemptId]
    ) -> set[AttemptId]:
        """See `ports.Leases`."""
        self._known(worker_id, session)
        found = {claim.attempt_id for claim in self._held(worker_id)} & set(held)
        for entry in self._entries.values():
            if entry.claim is not None and entry.claim.attempt_id in found:
                entry.deadline, entry.restored = self._deadline(), False
        return found

    async def claim(
        self,
        worker_id: WorkerId,
        session: str,
        models: Sequence[ModelKey],
        count: int,
        *,
        loaded: Collection[ModelKey] = (),
    ) -> list[Claim]:
        """See `ports.Leases`."""
        self._known(worker_id, session)
        await self.release(limit=count)
        claims: list[Claim] = []
        host = self._seats.host(worker_id)
        host.idle = False
        for _ in range(min(count, host.room) if host.aside else count):
            resumed = self._seats.resume_next(worker_id, models, self._now_ms())
            if resumed is not None:
                self.handler.on_control(worker_id, Resume(resumed))
                continue
            job = self._policy.claim(models, loaded=loaded)
            if job is None:
                host.idle = True
                break
            entry = self._entries[job.job_id]
            claim = Claim(
                attempt_id=new_attempt_id(),
                job_id=job.job_id,
                user_id=job.user_id,
                worker_id=worker_id,
                number=entry.number + 1,
                claimed_at=self._clock.now(),
            )
            self._lend(entry, claim)
            claims.append(claim)
            self.handler.on_job(job.job_id, None)
        if not host.idle:
            self._preempt()
        return claims

    async def seat(
        self,
        worker_id: WorkerId,
        session: str,
        *,
        parked: Collection[AttemptId],
        running: Collection[AttemptId],
    ) -> None:
        """See `ports.Leases`."""
        self._known(worker_id, session)
        seats = self._seats.host(worker_id).seats
        for attempt_id in parked:
            if attempt_id in seats:
                self._seats.is_parked(seats[attempt_id], self._now_ms())
        for attempt_id in running:
            if attempt_id in seats:
                self._seats.is_running(seats[attempt_id], self._now_ms())

    async def adopt(self, session: str, admission: Admission) -> bool:
        """See `ports.Leases`."""
        self._reach()
        claim = admission.claim
        assert claim is not None
        worker = self._workers.get(claim.worker_id)
        if worker is None or worker.session != session or claim.job_id in self._gone:
            return False
        entry = self._entries.get(claim.job_id)
        if entry is not None and entry.not_before is not None:
            self._unpause(entry)
        if entry is None:
            self._put(admission)
            entry = self._entries[claim.job_id]
            entry.number = 0
            if not self._policy.hold(claim.job_id):
                self._policy.remove(claim.job_id)
                del self._entries[claim.job_id]
                return False
        elif entry.claim is not None:
            if entry.claim.attempt_id != claim.attempt_id:
                return False
        elif entry.number > claim.number or not self._policy.hold(claim.job_id):
            return False
        self._lend(entry, claim)
        return True

    async def show(self, progress: Sequence[Progress]) -> None:
        """See `ports.Leases`."""
        self._reach()
        for one in progress:
            if one.job_id in self._entries:
                self._entries[one.job_id].progress = replace(one, preview=b"")
            self.handler.on_job(one.job_id, one)

    # --- Upkeep

    async def expired(self, *, limit: int) -> list[tuple[Claim, bool]]:
        """See `ports.Upkeep`."""
        self._reach()
        now = self._clock.monotonic()
        found = [
            (entry.deadline, entry.claim, entry.restored)
            for entry in self._entries.values()
            if entry.claim is not None and entry.deadline <= now
        ]
        return [(claim, restored) for _, claim, restored in sorted(found, key=lambda one: one[0])][
            :limit
        ]

    async def overdue(self, *, limit: int) -> list[JobId]:
        """See `ports.Upkeep`."""
        self._reach()
        return [
            entry.admission.job_id
            for entry in self._entries.values()
            if entry.claim is None
            and entry.number == 0
            and entry.admission.start_by <= self._clock.now()
        ][:limit]

    async def known(
        self, *, after: int, upto: int | None = None, limit: int
    ) -> list[tuple[int, JobId]]:
        """See `ports.Upkeep`."""
        self._reach()
        places = sorted((one.admission.place, job_id) for job_id, one in self._entries.items())
        return [one for one in places if one[0] > after and (upto is None or one[0] <= upto)][
            :limit
        ]

    async def leased(self, *, limit: int) -> list[JobId]:
        """See `ports.Upkeep`."""
        self._reach()
        return [job for job, one in self._entries.items() if one.claim is not None][:limit]

    async def survey(self) -> Survey:
        """See `ports.Upkeep`."""
        self._reach()
        return self._survey

    async def surveyed(self, survey: Survey) -> None:
        """See `ports.Upkeep`."""
        self._reach()
        self._survey = survey

    # --- Epoch

    async def is_open(self) -> bool:
        """See `ports.Epoch`."""
        self._answer()
        return self._token is None

    async def begin(self, *, alone: bool) -> str | None:
        """See `ports.Epoch`."""
        self._answer()
        if self._token is None or (self._token and not alone):
            return None
        self._token = f"rebuild-{new_attempt_id()}"
        return self._token

    def _building(self, token: str) -> None:
        self._answer()
        if self._token != token:
            raise Conflict("another rebuild has begun")

    async def sweep(self, token: str) -> None:
        """See `ports.Epoch`."""
        self._building(token)
        self.forget()

    async def restore(self, token: str, admissions: Sequence[Admission]) -> None:
        """See `ports.Epoch`."""
        self._building(token)
        self._token = None
        await self.admit(admissions)
        self._token = token

    async def open(self, token: str) -> None:
        """See `ports.Epoch`."""
        self._building(token)
        self._version += 1_000
        self._token = None
        self.handler.on_connected()

    async def depth(self) -> Depth:
        """See `ports.Upkeep`."""
        self._reach()
        running = sum(entry.claim is not None for entry in self._entries.values())
        slots = sum(worker.slots for worker in self._workers.values())
        return Depth(len(self._entries) - running, running, len(self._workers), slots)

    async def pace(self) -> Pace:
        """See `ports.Upkeep`."""
        self._reach()
        return replace(self._pace, slots=sum(worker.slots for worker in self._workers.values()))

    async def release(self, *, limit: int) -> int:
        """See `ports.Upkeep`."""
        self._reach()
        now = self._clock.now()
        paused = [one for one in self._entries.values() if one.not_before is not None]
        due = [one for one in paused if one.not_before is not None and one.not_before <= now]
        for entry in due[:limit]:
            self._unpause(entry)
        if due:
            self._wake()
            self._preempt()
        return len(due[:limit])

    def _unpause(self, entry: _Entry) -> None:
        entry.not_before = None
        self._policy.admit(_waiting(entry.admission), entry.admission.share)

    async def park(self) -> None:
        """See `ports.Upkeep`."""
        self._reach()
        for worker_id, attempt_id in self._seats.resume_overdue(self._now_ms()):
            self.handler.on_control(worker_id, Resume(attempt_id))
        self._preempt()

    async def remind(self) -> None:
        """See `ports.Upkeep`."""
        self._reach()
        for claim in [one.claim for one in self._entries.values() if one.claim is not None]:
            seat = self._seats.seat(claim.attempt_id)
            if seat is not None and seat.state is SeatState.PARKING:
                self._tell(claim, Park(claim.attempt_id))
            elif seat is not None and seat.state is SeatState.RESUMING:
                self._tell(claim, Resume(claim.attempt_id))
        for worker_id in self._told_to_drain:
            if not self._workers[worker_id].draining:
                self.handler.on_control(worker_id, Drain())

    # --- Registry

    async def catalogue_version(self) -> str:
        """See `ports.Registry`."""
        self._reach()
        return str(self._version)

    async def workers(self) -> list[WorkerStatus]:
        """See `ports.Registry`."""
        self._reach()
        return [
            WorkerStatus(
                self._shown(self._workers[one]),
                len(self._held(one)),
                sum(self._is_parked(claim.attempt_id) for claim in self._held(one)),
            )
            for one in sorted(self._workers)
        ]

    def _shown(self, worker: Worker) -> Worker:
        return replace(worker, draining=worker.draining or worker.id in self._told_to_drain)

    async def drain(self, worker_id: WorkerId) -> None:
        """See `ports.Registry`."""
        self._reach()
        if worker_id not in self._workers:
            raise NotFound("worker", worker_id)
        self._told_to_drain.add(worker_id)
        self.handler.on_control(worker_id, Drain())
