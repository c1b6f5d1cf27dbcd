"""Users' jobs in the scheduler's database, in memory: `JobStore`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from easel_kit.errors import (
    Conflict,
    DependencyDown,
    DomainError,
    InvalidState,
    NotFound,
    RateLimited,
)
from easel_kit.ids import AttemptId, JobId, UserId
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


def share_of(plan: Entitlements) -> Share:
    """Its numbers as the queue obeys them."""
    return Share(plan.version, plan.priority, plan.weight, plan.max_running)


class MemoryJobs:
    """`JobStore`; `away` makes every call fail."""

    def __init__(self, clock: MovableClock, *, max_attempts: int = 3) -> None:
        self.away = False
        self.rows: dict[JobId, Job] = {}
        self.tries: dict[AttemptId, Attempt] = {}
        self.told: list[Event] = []
        self._clock = clock
        self._max_attempts = max_attempts
        self._users: dict[UserId, User] = {}
        self._buried: set[JobId] = set()
        self._places = count(1)
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
