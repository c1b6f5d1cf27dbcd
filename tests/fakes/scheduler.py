"""The scheduler's ports in memory: the database, the queue, signals, and who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from easel_kit.errors import (
    Conflict,
    DependencyDown,
    InvalidState,
    NotFound,
    OutOfRange,
    RateLimited,
)
from easel_kit.ids import AttemptId, JobId, ModelKey, UserId, WorkerId, new_attempt_id
from scheduler.domain.estimate import Pace, eta_waiting_s
from scheduler.domain.job import (
    QUEUE_TIME_EXCEEDED,
    Cursor,
    Entitlements,
    Event,
    EventType,
    Job,
    JobState,
    Resolution,
    Submission,
)
from scheduler.domain.lease import (
    COUNTED,
    Claim,
    Outcome,
    Report,
    Settled,
    Standing,
    judge,
)
from scheduler.domain.line import Admission, Depth, Live, Progress
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.worker import Worker, WorkerStatus
from scheduler.ports import SignalHandler


class MovableClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """See `easel_kit.clock.Clock`."""
        return self._now

    def monotonic(self) -> float:
        """See `easel_kit.clock.Clock`."""
        return self._now.timestamp()

    def move(self, seconds: float) -> None:
        """Lets time pass."""
        self._now += timedelta(seconds=seconds)


@dataclass(slots=True)
class _Attempt:
    claim: Claim
    outcome: Outcome | None = None
    counted: bool = False


@dataclass(slots=True)
class _User:
    plan: Entitlements
    open: int = 0


class MemoryStore:
    """`JobStore`, `AttemptStore` and `FeedStore`; `away` makes every call fail."""

    def __init__(self, clock: MovableClock, *, max_attempts: int = 3) -> None:
        self.away = False
        self.rows: dict[JobId, Job] = {}
        self.tries: dict[AttemptId, _Attempt] = {}
        self.told: list[Event] = []
        self._clock = clock
        self._max_attempts = max_attempts
        self._users: dict[UserId, _User] = {}
        self._buried: set[JobId] = set()
        self._places = count(1)
        self._pruned = Cursor()

    def _reach(self) -> None:
        if self.away:
            raise DependencyDown("the database does not answer")

    # --- JobStore

    async def submit(self, submission: Submission) -> tuple[list[Job], set[JobId]]:
        """See `ports.JobStore`."""
        self._reach()
        fresh = []
        for job in submission.jobs:
            known = self.rows.get(job.id)
            if known is None:
                fresh.append(job)
            elif known.user_id != submission.user_id:
                raise NotFound("job", job.id)
            elif known.generation != job.generation:
                raise Conflict("another request")
        if any(job.id in self._buried for job in fresh):
            raise InvalidState("buried")
        plan = submission.entitlements
        user = self._users.get(submission.user_id, _User(plan))
        if plan.version < user.plan.version:
            plan = user.plan
        if fresh and user.open + len(fresh) > plan.max_open:
            raise RateLimited("too many", limit=plan.max_open, current=user.open)
        self._users[submission.user_id] = _User(plan, user.open + len(fresh))
        for job in fresh:
            self.rows[job.id] = Job(
                id=job.id,
                user_id=submission.user_id,
                state=JobState.QUEUED,
                generation=job.generation,
                cost_ms=job.cost_ms,
                place=next(self._places),
                queued_at=self._clock.now(),
                start_by=self._clock.now() + timedelta(seconds=plan.queue_time_s),
                traceparent=submission.traceparent,
            )
            self._tell(self.rows[job.id])
        return [self.rows[job.id] for job in submission.jobs], {job.id for job in fresh}

    async def job(self, user_id: UserId, job_id: JobId) -> Job:
        """See `ports.JobStore`."""
        self._reach()
        found = self.rows.get(job_id)
        if found is None or found.user_id != user_id:
            raise NotFound("job", job_id)
        return found

    async def jobs(
        self, user_id: UserId, states: Collection[JobState], *, before: int | None, limit: int
    ) -> list[Job]:
        """See `ports.JobStore`."""
        self._reach()
        found = [
            job
            for job in self.rows.values()
            if job.user_id == user_id
            and (not states or job.state in states)
            and (before is None or job.place < before)
        ]
        return sorted(found, key=lambda job: -job.place)[:limit]

    async def cancel(self, user_id: UserId, job_id: JobId) -> tuple[Job, bool]:
        """See `ports.JobStore`."""
        job = await self.job(user_id, job_id)
        ended = job.state is JobState.QUEUED
        if not job.state.ended:
            self._change(replace(job, cancel_requested=True))
        if ended:
            self._end(replace(self.rows[job_id], state=JobState.CANCELLED))
        return self.rows[job_id], ended

    async def resolve(self, job_id: JobId) -> Resolution:
        """See `ports.JobStore`."""
        self._reach()
        job = self.rows.get(job_id)
        if job is None:
            self._buried.add(job_id)
            return Resolution(None)
        return Resolution(job.state, job.steps_done, job.steps)

    def open_count(self, user_id: UserId) -> int:
        """Jobs of the user that count against the limit."""
        return self._users[user_id].open if user_id in self._users else 0

    def _change(self, job: Job) -> None:
        self.rows[job.id] = job

    def _end(self, job: Job) -> None:
        self._change(replace(job, finished_at=self._clock.now()))
        self._users[job.user_id].open -= 1
        self._tell(self.rows[job.id])

    def _tell(self, job: Job) -> None:
        self.told.append(
            Event(
                cursor=Cursor(1, len(self.told) + 1, len(self.told) + 1),
                type=EventType(job.state.value),
                job_id=job.id,
                user_id=job.user_id,
                occurred_at=self._clock.now(),
                steps_done=job.steps_done,
                steps=job.steps,
                images=job.images,
                error=job.error,
                traceparent=job.traceparent,
            )
        )

    # --- AttemptStore

    async def record(self, claims: Sequence[Claim], *, revive: bool = False) -> list[AttemptId]:
        """See `ports.AttemptStore`."""
        self._reach()
        ended = []
        for claim in claims:
            job = self.rows.get(claim.job_id)
            if job is None:
                ended.append(claim.attempt_id)
                continue
            attempt = self.tries.setdefault(claim.attempt_id, _Attempt(claim))
            if revive and attempt.outcome in {Outcome.LOST, Outcome.FORGOTTEN}:
                attempt.outcome, attempt.counted = None, False
            if job.state.ended:
                ended.append(claim.attempt_id)
            elif attempt.outcome is None and claim.number >= job.attempts:
                self._change(
                    replace(
                        job,
                        state=JobState.RUNNING,
                        attempts=claim.number,
                        attempt_id=claim.attempt_id,
                        claimed_at=max(claim.claimed_at, job.queued_at),
                    )
                )
        return ended

    async def settle(self, reports: Sequence[Report]) -> list[Settled]:
        """See `ports.AttemptStore`."""
        self._reach()
        return [self._settle(report) for report in reports]

    def _settle(self, report: Report) -> Settled:
        claim = report.claim
        job = self.rows.get(claim.job_id)
        if job is None:
            return Settled(claim.job_id, claim, None, changed=False, accepted=False)
        attempt = self.tries.setdefault(claim.attempt_id, _Attempt(claim))
        tries = [one for one in self.tries.values() if one.claim.job_id == job.id]
        latest = job.attempt_id == claim.attempt_id or claim.number > job.attempts
        standing = Standing(
            job.state,
            job.cancel_requested,
            is_current=attempt.outcome is None and latest,
            failures=sum(one.counted for one in tries),
        )
        verdict = judge(standing, report, max_attempts=self._max_attempts)
        won = job.state is JobState.SUCCEEDED and job.attempt_id == claim.attempt_id
        again = won or attempt.outcome is report.outcome is not Outcome.SUCCEEDED
        if attempt.outcome is None:
            attempt.outcome = report.outcome
            attempt.counted = verdict.state is not None and report.outcome in COUNTED
        if verdict.state is not None:
            changed = replace(
                job,
                state=verdict.state,
                error=verdict.error,
                attempts=max(job.attempts, claim.number),
                attempt_id=claim.attempt_id,
                claimed_at=claim.claimed_at if verdict.state.ended else None,
                first_step_at=report.first_step_at if verdict.state.ended else None,
                steps_done=min(report.steps_done, job.steps) if verdict.state.ended else 0,
                images=report.images,
                warnings=report.warnings,
            )
            self._end(changed) if verdict.state.ended else self._change(changed)
        return Settled(
            job.id,
            claim,
            self.rows[job.id].state,
            changed=verdict.state is not None,
            accepted=verdict.state is not None or again,
            outcome=report.outcome,
            error=verdict.error,
            traceparent=job.traceparent,
        )

    async def claims(self, attempt_ids: Collection[AttemptId]) -> list[Claim]:
        """See `ports.AttemptStore`."""
        self._reach()
        return [self.tries[one].claim for one in attempt_ids if one in self.tries]

    async def open(self, job_ids: Collection[JobId]) -> dict[JobId, Job]:
        """See `ports.AttemptStore`."""
        self._reach()
        return {one: self.rows[one] for one in job_ids if self._is_open(one)}

    def _is_open(self, job_id: JobId) -> bool:
        return job_id in self.rows and not self.rows[job_id].state.ended

    async def cancelled(self, job_ids: Collection[JobId]) -> set[JobId]:
        """See `ports.AttemptStore`."""
        self._reach()
        return {one for one in job_ids if self._is_open(one) and self.rows[one].cancel_requested}

    async def admissions(self, job_ids: Collection[JobId]) -> list[Admission]:
        """See `ports.AttemptStore`."""
        self._reach()
        found = [self._admission(self.rows[one]) for one in job_ids if self._is_open(one)]
        return sorted(found, key=lambda one: one.place)

    def _admission(self, job: Job) -> Admission:
        plan = self._users[job.user_id].plan
        attempt = self.tries.get(job.attempt_id) if job.attempt_id else None
        runs = job.state is JobState.RUNNING and attempt is not None and attempt.outcome is None
        return Admission(
            job_id=job.id,
            user_id=job.user_id,
            model_key=job.generation.model_key,
            cost_ms=job.cost_ms,
            place=job.place,
            attempts=job.attempts,
            start_by=job.start_by,
            share=Share(plan.version, plan.priority, plan.weight, plan.max_running),
            claim=attempt.claim if attempt is not None and runs else None,
        )

    async def open_jobs(self, state: JobState, *, after: int, limit: int) -> list[Admission]:
        """See `ports.AttemptStore`."""
        self._reach()
        found = [
            self._admission(job)
            for job in self.rows.values()
            if job.state is state and job.place > after
        ]
        return sorted(found, key=lambda one: one.place)[:limit]

    async def expire_waiting(self, job_ids: Collection[JobId]) -> list[Settled]:
        """See `ports.AttemptStore`."""
        self._reach()
        settled = []
        for job in [self.rows[one] for one in job_ids if self._is_open(one)]:
            due = job.start_by <= self._clock.now() and job.attempts == 0
            if job.state is JobState.QUEUED and due:
                self._end(replace(job, state=JobState.FAILED, error=QUEUE_TIME_EXCEEDED))
                settled.append(
                    Settled(job.id, None, JobState.FAILED, changed=True, error=QUEUE_TIME_EXCEEDED)
                )
        return settled

    async def stop_requests(self, *, limit: int) -> list[JobId]:
        """See `ports.AttemptStore`."""
        self._reach()
        found = [job for job in self.rows.values() if job.state is JobState.RUNNING]
        return [job.id for job in found if job.cancel_requested][:limit]

    # --- FeedStore

    async def events(self, after: Cursor, *, limit: int) -> tuple[list[Event], bool]:
        """See `ports.FeedStore`."""
        self._reach()
        if Cursor() < after < self._pruned:
            raise OutOfRange("pruned")
        return [event for event in self.told if event.cursor > after][:limit], False

    async def prune(self, *, older_than_s: float) -> int:
        """See `ports.FeedStore`."""
        self._reach()
        oldest = self._clock.now() - timedelta(seconds=older_than_s)
        old = [event for event in self.told if event.occurred_at < oldest]
        if old:
            self._pruned = old[-1].cursor
            self.told = self.told[len(old) :]
        return len(old)


@dataclass(slots=True)
class _Entry:
    admission: Admission
    number: int
    claim: Claim | None = None
    deadline: float = 0.0
    restored: bool = False
    progress: Progress | None = None


@dataclass(slots=True)
class _Silent:
    """Hears nothing."""

    wakes: list[ModelKey] = field(default_factory=list)
    stops: list[tuple[WorkerId, AttemptId]] = field(default_factory=list)
    changes: list[tuple[JobId, Progress | None]] = field(default_factory=list)

    def on_wake(self, model_key: ModelKey) -> None:
        self.wakes.append(model_key)

    def on_stop(self, worker_id: WorkerId, attempt_id: AttemptId) -> None:
        self.stops.append((worker_id, attempt_id))

    def on_job(self, job_id: JobId, progress: Progress | None) -> None:
        self.changes.append((job_id, progress))

    def on_connected(self) -> None:
        """Never."""


class MemoryQueue:
    """`Line`, `Leases`, `Upkeep` and `Registry` over the plain-Python policy.

    `away` makes every call fail; `forget` empties it as a restart of Redis would.
    """

    def __init__(self, clock: MovableClock, *, lease_ttl_s: float = 15.0) -> None:
        self.away = False
        self.heard = _Silent()
        self.handler: SignalHandler = self.heard
        self._clock = clock
        self._ttl_s = lease_ttl_s
        self._version = 0
        self.forget()

    def forget(self) -> None:
        """Loses everything."""
        self._policy = FairQueue()
        self._entries: dict[JobId, _Entry] = {}
        self._gone: set[JobId] = set()
        self._workers: dict[WorkerId, Worker] = {}
        self._pace = Pace()

    def _reach(self) -> None:
        if self.away:
            raise DependencyDown("the queue's store does not answer")

    def _deadline(self) -> float:
        return self._clock.monotonic() + self._ttl_s

    def _wake(self) -> None:
        for model in {self._entries[one].admission.model_key for one in self._policy.waiting()}:
            self.handler.on_wake(model)

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
            if admission.claim is not None:
                assert self._policy.hold(admission.job_id)
                entry.claim, entry.number = admission.claim, admission.claim.number
                entry.deadline, entry.restored = self._deadline(), True
            self.handler.on_job(admission.job_id, None)
        self._wake()
        return added

    def _put(self, admission: Admission) -> None:
        self._entries[admission.job_id] = _Entry(admission, admission.attempts)
        self._policy.admit(
            Waiting(
                admission.job_id,
                admission.user_id,
                admission.model_key,
                admission.cost_ms,
                admission.place,
            ),
            admission.share,
        )

    async def remove(
        self, job_ids: Collection[JobId], *, by: AttemptId | None = None, took_ms: int = 0
    ) -> None:
        """See `ports.Line`."""
        self._reach()
        for job_id in job_ids:
            self._gone.add(job_id)
            entry = self._entries.pop(job_id, None)
            if entry is not None:
                self._policy.remove(job_id)
                if entry.claim is not None and entry.claim.attempt_id != by:
                    self.handler.on_stop(entry.claim.worker_id, entry.claim.attempt_id)
                if took_ms:
                    self._pace = Pace(took_ms, took_ms / entry.admission.cost_ms, 0)
            self.handler.on_job(job_id, None)
        self._wake()

    async def requeue(self, claim: Claim, *, stop: bool) -> bool:
        """See `ports.Line`."""
        self._reach()
        if stop:
            self.handler.on_stop(claim.worker_id, claim.attempt_id)
        entry = self._entries.get(claim.job_id)
        if entry is None or entry.claim is None or entry.claim.attempt_id != claim.attempt_id:
            return False
        entry.claim, entry.progress = None, None
        self._policy.requeue(claim.job_id)
        self.handler.on_job(claim.job_id, None)
        self._wake()
        return True

    async def stop(self, job_id: JobId) -> bool:
        """See `ports.Line`."""
        self._reach()
        entry = self._entries.get(job_id)
        if entry is None or entry.claim is None:
            return False
        self.handler.on_stop(entry.claim.worker_id, entry.claim.attempt_id)
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
                place = waiting.index(job_id) + 1
                eta_s = eta_waiting_s(place, entry.admission.cost_ms, pace)
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
                )
        return found

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
        self._workers[worker.id] = worker
        self._version += 1
        return self._held(worker.id)

    async def update(self, worker: Worker) -> None:
        """See `ports.Leases`."""
        self._known(worker.id, worker.session)
        self._workers[worker.id] = worker
        self._version += 1

    async def leave(self, worker_id: WorkerId, session: str) -> list[Claim]:
        """See `ports.Leases`."""
        try:
            self._known(worker_id, session)
        except Conflict:
            return []
        except NotFound:
            pass
        self._workers.pop(worker_id, None)
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
        self, worker_id: WorkerId, session: str, models: Sequence[ModelKey], count: int
    ) -> list[Claim]:
        """See `ports.Leases`."""
        self._known(worker_id, session)
        claims: list[Claim] = []
        while len(claims) < count and (job := self._policy.claim(models)) is not None:
            entry = self._entries[job.job_id]
            entry.number += 1
            entry.claim = Claim(
                attempt_id=new_attempt_id(),
                job_id=job.job_id,
                user_id=job.user_id,
                worker_id=worker_id,
                number=entry.number,
                claimed_at=self._clock.now(),
            )
            entry.deadline, entry.restored = self._deadline(), False
            claims.append(entry.claim)
            self.handler.on_job(job.job_id, None)
        return claims

    async def adopt(self, session: str, admission: Admission) -> bool:
        """See `ports.Leases`."""
        self._reach()
        claim = admission.claim
        assert claim is not None
        worker = self._workers.get(claim.worker_id)
        if worker is None or worker.session != session or claim.job_id in self._gone:
            return False
        entry = self._entries.get(claim.job_id)
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
        entry.claim, entry.number = claim, claim.number
        entry.deadline, entry.restored = self._deadline(), False
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

    async def known(self, *, after: int, limit: int) -> list[tuple[int, JobId]]:
        """See `ports.Upkeep`."""
        self._reach()
        places = sorted((one.admission.place, job_id) for job_id, one in self._entries.items())
        return [(place, job_id) for place, job_id in places if place > after][:limit]

    async def depth(self) -> Depth:
        """See `ports.Upkeep`."""
        self._reach()
        running = sum(entry.claim is not None for entry in self._entries.values())
        slots = sum(worker.slots for worker in self._workers.values())
        return Depth(len(self._entries) - running, running, len(self._workers), slots)

    # --- Registry

    async def catalogue_version(self) -> str:
        """See `ports.Registry`."""
        self._reach()
        return str(self._version)

    async def workers(self) -> list[WorkerStatus]:
        """See `ports.Registry`."""
        self._reach()
        return [
            WorkerStatus(self._workers[one], len(self._held(one))) for one in sorted(self._workers)
        ]


class MemorySignals:
    """`Signals`: the queue in memory tells everything anyway."""

    def __init__(self) -> None:
        self.watched: list[JobId] = []

    async def watch(self, job_id: JobId) -> None:
        """See `ports.Signals`."""
        self.watched.append(job_id)

    async def unwatch(self, job_id: JobId) -> None:
        """See `ports.Signals`."""
        self.watched.remove(job_id)


class MemoryBell:
    """`FeedBell` of one process."""

    def __init__(self) -> None:
        self._ears: list[asyncio.Event] = []

    def ring(self) -> None:
        """See `ports.FeedBell`."""
        for ear in self._ears:
            ear.set()

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[_Ear]:
        """See `ports.FeedBell`."""
        ear = asyncio.Event()
        self._ears.append(ear)
        try:
            yield _Ear(ear)
        finally:
            self._ears.remove(ear)


@dataclass(slots=True)
class _Ear:
    event: asyncio.Event

    async def rung(self, *, within_s: float) -> None:
        """See `ports.Bell`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.event.wait()
        self.event.clear()


class RecordingObserver:
    """`Observer`: a list of what happened."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def names(self) -> list[str]:
        """What happened, in order."""
        return [name for name, _ in self.seen]

    def queued(self, job: Job) -> None:
        """See `ports.Observer`."""
        self.seen.append(("queued", job.id))

    def claimed(self, claim: Claim, *, waited_s: float, traceparent: str) -> None:
        """See `ports.Observer`."""
        self.seen.append(("claimed", (claim, waited_s, traceparent)))

    def settled(self, settled: Settled) -> None:
        """See `ports.Observer`."""
        self.seen.append(("settled", settled))

    def cancel_requested(self, job: Job) -> None:
        """See `ports.Observer`."""
        self.seen.append(("cancel_requested", job.id))

    def worker_joined(self, worker: Worker, *, kept: int) -> None:
        """See `ports.Observer`."""
        self.seen.append(("worker_joined", (worker.id, kept)))

    def worker_left(self, worker_id: WorkerId, *, lost: int) -> None:
        """See `ports.Observer`."""
        self.seen.append(("worker_left", (worker_id, lost)))

    def trouble(self, what: str, error: Exception) -> None:
        """See `ports.Observer`."""
        self.seen.append((f"trouble {what}", error))

    def repaired(self, what: str, count: int) -> None:
        """See `ports.Observer`."""
        self.seen.append((f"repaired {what}", count))

    def depth(self, depth: Depth) -> None:
        """See `ports.Observer`."""
        self.seen.append(("depth", depth))
