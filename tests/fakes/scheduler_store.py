"""The scheduler's database in memory: `JobStore`, `AttemptStore`, `LoadStore` and `FeedStore`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from easel_kit.errors import (
    OutOfRange,
)
from easel_kit.ids import AttemptId, JobId, ModelKey
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import (
    QUEUE_TIME_EXCEEDED,
    Cursor,
    Event,
    Job,
    JobState,
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
from scheduler.domain.line import Admission
from scheduler.domain.load import Load, ModelLoad, TierLoad
from tests.fakes.scheduler_jobs import Attempt, MemoryJobs, MovableClock, share_of

RETRY = Backoff(base_s=1, cap_s=30)


class MemoryStore(MemoryJobs):
    """`JobStore`, `AttemptStore`, `LoadStore` and `FeedStore`; `away` makes every call fail."""

    def __init__(self, clock: MovableClock, *, max_attempts: int = 3) -> None:
        super().__init__(clock, max_attempts=max_attempts)
        self._pauses: dict[JobId, datetime] = {}

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
            attempt = self.tries.setdefault(claim.attempt_id, Attempt(claim))
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
        attempt = self.tries.setdefault(claim.attempt_id, Attempt(claim))
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
        if attempt.outcome is None or verdict.state is JobState.SUCCEEDED:
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
            self._pauses.pop(job.id, None)
            if verdict.pause:
                failures = standing.failures + attempt.counted
                wait = timedelta(seconds=RETRY.delay_s(failures, luck=0.5))
                self._pauses[job.id] = self._clock.now() + wait
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
            not_before=self._pauses.get(job.id),
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
            share=share_of(plan),
            claim=attempt.claim if attempt is not None and runs else None,
            front=job.front,
            not_before=self._pauses.get(job.id),
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

    async def open_ids(
        self, state: JobState, *, after: int, upto: int | None = None, limit: int
    ) -> list[tuple[int, JobId]]:
        """See `ports.AttemptStore`."""
        jobs = await self.open_jobs(state, after=after, limit=len(self.rows))
        found = [(job.place, job.job_id) for job in jobs]
        return [one for one in found if upto is None or one[0] <= upto][:limit]

    async def last_place(self) -> tuple[int, datetime]:
        """See `ports.AttemptStore`."""
        self._reach()
        return max((job.place for job in self.rows.values()), default=0), self._clock.now()

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

    # --- LoadStore

    async def load(self) -> Load:
        """See `ports.LoadStore`."""
        self._reach()
        open_jobs = [job for job in self.rows.values() if not job.state.ended]
        models = sorted({job.generation.model_key for job in open_jobs})
        plans = {self._users[job.user_id].plan.priority for job in open_jobs}
        return Load(
            tiers=tuple(self._tier_load(priority) for priority in sorted(plans, reverse=True)),
            models=tuple(self._model_load(model) for model in models),
        )

    def _tier_load(self, priority: int) -> TierLoad:
        plans = {user_id: user.plan for user_id, user in self._users.items()}
        jobs = [
            job
            for job in self.rows.values()
            if not job.state.ended and plans[job.user_id].priority == priority
        ]
        waiting = [job for job in jobs if job.state is JobState.QUEUED]
        return TierLoad(
            priority=priority,
            weight=max(plans[job.user_id].weight for job in jobs),
            waiting=len(waiting),
            running=len(jobs) - len(waiting),
            waiting_users=len({job.user_id for job in waiting}),
        )

    def _model_load(self, model: ModelKey) -> ModelLoad:
        jobs = [
            job
            for job in self.rows.values()
            if not job.state.ended and job.generation.model_key == model
        ]
        waiting = [job for job in jobs if job.state is JobState.QUEUED]
        now = self._clock.now()
        return ModelLoad(
            model_key=model,
            waiting=len(waiting),
            running=len(jobs) - len(waiting),
            waiting_cost_ms=sum(job.cost_ms for job in waiting),
            oldest_waiting_s=max(
                ((now - job.queued_at).total_seconds() for job in waiting), default=0.0
            ),
        )

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
