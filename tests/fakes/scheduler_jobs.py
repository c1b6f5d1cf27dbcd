"""Users' jobs in the scheduler's database, in memory: `JobStore` and the ports beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from easel_kit.erasure import UserHash, hash_of
from easel_kit.errors import (
    Conflict,
    DependencyDown,
    DomainError,
    InvalidState,
    NotFound,
    RateLimited,
)
from easel_kit.ids import AttemptId, BatchId, JobId, UserId
from scheduler.domain.job import (
    Cursor,
    Entitlements,
    Event,
    EventType,
    Job,
    JobState,
    NewJob,
    Resolution,
    Submission,
)
from scheduler.domain.lease import Claim, Outcome
from scheduler.domain.line import Accepted
from scheduler.domain.policy import Share
from scheduler.domain.privacy import Erasure
from scheduler.domain.selection import (
    Cancellation,
    Filter,
    Mark,
    PlanChange,
    Selection,
    mark,
)

LANE = "default"


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
class Attempt:
    """A row of `attempts`."""

    claim: Claim
    outcome: Outcome | None = None
    counted: bool = False


@dataclass(slots=True)
class User:
    """What `open_jobs` knows of a user."""

    plan: Entitlements
    open: int = 0
    changed_at: datetime | None = None


def share_of(plan: Entitlements) -> Share:
    """Its numbers as the queue obeys them."""
    return Share(plan.version, plan.priority, plan.weight, plan.max_running)


class MemoryJobs:
    """`JobStore`, `OwnLineStore`, `PlanStore`, `HistoryStore`, `PrivacyStore`.

    `away` makes every call fail.
    """

    def __init__(self, clock: MovableClock, *, max_attempts: int = 3) -> None:
        self.away = False
        self.rows: dict[JobId, Job] = {}
        self.tries: dict[AttemptId, Attempt] = {}
        self.told: list[Event] = []
        self._clock = clock
        self._max_attempts = max_attempts
        self._users: dict[UserId, User] = {}
        self._buried: dict[JobId, datetime] = {}
        self._places = count(1)
        self._events = count(1)
        self._fronts = 0
        self._pruned = Cursor()

    def _reach(self) -> None:
        if self.away:
            raise DependencyDown("the database does not answer")

    # --- JobStore

    async def submit(self, submissions: Sequence[Submission]) -> list[Accepted | DomainError]:
        """See `ports.JobStore`."""
        self._reach()
        for submission in submissions:
            self._entitle(submission)
        return [self._answer(submission) for submission in submissions]

    def _entitle(self, submission: Submission) -> None:
        plan = submission.entitlements
        user = self._users.setdefault(submission.user_id, User(plan))
        if plan.version >= user.plan.version:
            user.plan = plan

    def _answer(self, submission: Submission) -> Accepted | DomainError:
        try:
            fresh = [job for job in submission.jobs if not self._is_known(submission.user_id, job)]
        except DomainError as error:
            return error
        user = self._users[submission.user_id]
        plan = user.plan
        if fresh and user.open + len(fresh) > plan.max_open:
            return RateLimited(
                "too many", limit=plan.max_open, current=user.open, requested=len(fresh)
            )
        user.open += len(fresh)
        self._insert(submission, fresh, plan)
        return Accepted(
            jobs=[self.rows[job.id] for job in submission.jobs],
            fresh=frozenset(job.id for job in fresh),
            share=share_of(plan),
        )

    def _is_known(self, user_id: UserId, job: NewJob) -> bool:
        known = self.rows.get(job.id)
        if known is None:
            if job.id in self._buried:
                raise InvalidState("buried")
            return False
        if known.user_id != user_id:
            raise NotFound("job", job.id)
        if known.generation != job.generation:
            raise Conflict("another request")
        return True

    def _insert(self, submission: Submission, fresh: list[NewJob], plan: Entitlements) -> None:
        fronts = self._draw_fronts(len(fresh)) if submission.prepend else [None] * len(fresh)
        for job, front in zip(fresh, fronts, strict=True):
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
                batch_id=submission.batch_id,
                retry_of=job.retry_of,
                lane=LANE,
                front=front,
            )
            self._tell(self.rows[job.id])

    def _draw_fronts(self, count: int) -> Sequence[int]:
        self._fronts -= count
        return range(self._fronts, self._fronts + count)

    async def job(self, user_id: UserId, job_id: JobId, *, hidden: bool = False) -> Job:
        """See `ports.JobStore`."""
        found = (await self.find(user_id, [job_id])).get(job_id)
        if found is None or (found.is_hidden and not hidden):
            raise NotFound("job", job_id)
        return found

    async def find(self, user_id: UserId, job_ids: Collection[JobId]) -> dict[JobId, Job]:
        """See `ports.JobStore`."""
        self._reach()
        return {one: self.rows[one] for one in job_ids if self._owns(user_id, one)}

    def _owns(self, user_id: UserId, job_id: JobId) -> bool:
        return job_id in self.rows and self.rows[job_id].user_id == user_id

    def _in_sight(self, user_id: UserId, wanted: Filter) -> list[Job]:
        self._reach()
        own = [job for job in self.rows.values() if job.user_id == user_id and not job.is_hidden]
        return sorted(filter(wanted.admits, own), key=mark, reverse=True)

    async def page(
        self, user_id: UserId, wanted: Filter, *, before: Mark | None, limit: int
    ) -> list[Job]:
        """See `ports.JobStore`."""
        found = self._in_sight(user_id, wanted)
        return [job for job in found if before is None or mark(job) < before][:limit]

    async def counts(self, user_id: UserId, batch_ids: Collection[BatchId]) -> dict[JobState, int]:
        """See `ports.JobStore`."""
        found = self._in_sight(user_id, Filter(batch_ids=frozenset(batch_ids)))
        return {state: sum(job.state is state for job in found) for state in JobState}

    async def resolve(self, job_id: JobId) -> Resolution:
        """See `ports.JobStore`."""
        self._reach()
        job = self.rows.get(job_id)
        if job is None:
            self._buried.setdefault(job_id, self._clock.now())
            return Resolution(None)
        return Resolution(job.state, job.steps_done, job.steps)

    # --- OwnLineStore

    async def cancel(
        self,
        user_id: UserId,
        selection: Selection,
        *,
        waiting_only: bool = False,
        hide: bool = False,
    ) -> Cancellation:
        """See `ports.OwnLineStore`."""
        own = self._in_sight(user_id, Filter())[::-1]
        meant = [job for job in own if not job.state.ended and selection.names(job)]
        waiting = [job for job in meant if job.state is JobState.QUEUED]
        running = [job for job in meant if job.state is JobState.RUNNING]
        stopping = [] if waiting_only else running
        for job in [*waiting, *stopping]:
            self._change(replace(job, cancel_requested=True, is_hidden=hide))
        for job in waiting:
            self._end(replace(self.rows[job.id], state=JobState.CANCELLED))
        ended = {job.id for job in own if job.state.ended}
        left = selection.job_ids - {job.id for job in meant}
        return Cancellation(
            ended=tuple(self.rows[job.id] for job in waiting),
            stopping=tuple(self.rows[job.id] for job in stopping),
            running=tuple(job.id for job in running) if waiting_only else (),
            over=tuple(sorted(left & ended)),
            unknown=tuple(sorted(left - ended)),
        )

    async def prepend(self, user_id: UserId, job_ids: Sequence[JobId]) -> dict[JobId, int]:
        """See `ports.OwnLineStore`."""
        own = {job.id: job for job in self._in_sight(user_id, Filter())}
        moved = [
            one
            for one in dict.fromkeys(job_ids)
            if one in own and own[one].state is JobState.QUEUED
        ]
        fronts = dict(zip(moved, self._draw_fronts(len(moved)), strict=True))
        for one, front in fronts.items():
            self._change(replace(own[one], front=front))
        self._note_change(user_id)
        return fronts

    async def hide(self, user_id: UserId, wanted: Filter) -> int:
        """See `ports.OwnLineStore`."""
        found = [job for job in self._in_sight(user_id, wanted) if job.state.ended]
        for job in found:
            self._change(replace(job, is_hidden=True))
        return len(found)

    # --- PlanStore

    async def entitle(self, user_id: UserId, plan: Entitlements) -> tuple[Entitlements, str]:
        """See `ports.PlanStore`."""
        self._reach()
        user = self._users.setdefault(user_id, User(plan))
        if plan.version >= user.plan.version:
            user.plan = plan
        self._note_change(user_id)
        return user.plan, LANE

    async def changes(self, *, within_s: float | None) -> list[PlanChange]:
        """See `ports.PlanStore`."""
        self._reach()
        since = None if within_s is None else self._clock.now() - timedelta(seconds=within_s)
        return [
            PlanChange(user_id, share_of(user.plan), self._fronts_of(user_id))
            for user_id, user in self._users.items()
            if user.open and user.changed_at and (since is None or user.changed_at > since)
        ]

    def _fronts_of(self, user_id: UserId) -> dict[JobId, int]:
        return {
            job.id: job.front
            for job in self.rows.values()
            if job.user_id == user_id and not job.state.ended and job.front is not None
        }

    def _note_change(self, user_id: UserId) -> None:
        if user_id in self._users:
            self._users[user_id].changed_at = self._clock.now()

    # --- HistoryStore

    async def remove(self, *, older_than_s: float) -> int:
        """See `ports.HistoryStore`."""
        self._reach()
        oldest = self._clock.now() - timedelta(seconds=older_than_s)
        jobs = [
            job.id for job in self.rows.values() if job.finished_at and job.finished_at < oldest
        ]
        for one in jobs:
            self._drop(one)
        buried = [one for one, at in self._buried.items() if at < oldest]
        for one in buried:
            del self._buried[one]
        return len(jobs) + len(buried)

    # --- PrivacyStore

    async def jobs(self, user_id: UserId, *, after: Mark | None, limit: int) -> list[Job]:
        """See `ports.PrivacyStore`."""
        self._reach()
        own = sorted((job for job in self.rows.values() if job.user_id == user_id), key=mark)
        return [job for job in own if after is None or mark(job) > after][:limit]

    async def users(self, user_hashes: Collection[UserHash]) -> list[UserId]:
        """See `ports.PrivacyStore`."""
        self._reach()
        return [user_id for user_id in self._users if hash_of(user_id) in user_hashes]

    async def erase(self, user_id: UserId) -> Erasure:
        """See `ports.PrivacyStore`."""
        self._reach()
        if user_id not in self._users:
            return Erasure.ABSENT
        if self._users[user_id].open:
            return Erasure.BUSY
        for one in [job.id for job in self.rows.values() if job.user_id == user_id]:
            self._drop(one)
        self.told = [event for event in self.told if event.user_id != user_id]
        del self._users[user_id]
        return Erasure.DONE

    # --- what the other ports share

    def _drop(self, job_id: JobId) -> None:
        del self.rows[job_id]
        self.tries = {
            key: attempt for key, attempt in self.tries.items() if attempt.claim.job_id != job_id
        }

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
        number = next(self._events)
        self.told.append(
            Event(
                cursor=Cursor(1, number, number),
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
