"""One transaction's worth of ended attempts: what `domain.lease.judge` says, and its rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg

from easel_kit.db import Connection
from easel_kit.ids import AttemptId, JobId, UserId
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import JobError, JobState
from scheduler.domain.lease import COUNTED, Outcome, Report, Settled, Standing, Verdict, judge
from scheduler.storage.codec import images_to_json
from scheduler.storage.events import write_events


@dataclass(slots=True)
class _Attempt:
    number: int
    outcome: Outcome | None
    counted: bool
    won: bool


@dataclass(slots=True)
class _Job:
    id: JobId
    user_id: UserId
    state: JobState
    cancel_requested: bool
    attempt_id: AttemptId | None
    number: int
    traceparent: str
    steps: int
    now: datetime
    queued_at: datetime
    claimed_at: datetime | None
    tries: dict[AttemptId, _Attempt] = field(default_factory=dict)
    steps_done: int = 0
    first_step_at: datetime | None = None
    error: JobError | None = None
    not_before: datetime | None = None

    @property
    def failures(self) -> int:
        return sum(one.counted for one in self.tries.values())

    def standing(self, attempt_id: AttemptId) -> Standing:
        attempt = self.tries[attempt_id]
        latest = attempt_id == self.attempt_id or attempt.number > self.number
        return Standing(
            state=self.state,
            cancel_requested=self.cancel_requested,
            is_current=attempt.outcome is None and latest,
            failures=self.failures,
        )


class Settlement:
    """Takes reports one by one; each sees what those before it changed."""

    def __init__(
        self,
        jobs: Iterable[asyncpg.Record],
        attempts: Iterable[asyncpg.Record],
        max_attempts: int,
        retry: Backoff,
    ) -> None:
        """Rows of the locked jobs and of all their attempts."""
        self._max_attempts = max_attempts
        self._retry = retry
        self._jobs: dict[JobId, _Job] = {}
        for row in jobs:
            self._jobs[row["id"]] = _Job(
                id=row["id"],
                user_id=row["user_id"],
                state=JobState(row["state"]),
                cancel_requested=row["cancel_requested"],
                attempt_id=row["attempt_id"],
                number=row["attempts"],
                traceparent=row["traceparent"],
                steps=row["steps"],
                now=row["now"],
                queued_at=row["queued_at"],
                claimed_at=row["claimed_at"],
            )
        for row in attempts:
            outcome = None if row["outcome"] is None else Outcome(row["outcome"])
            self._jobs[row["job_id"]].tries[row["id"]] = _Attempt(
                row["number"], outcome, row["counted"], row["won"]
            )
        self.changed: dict[JobId, _Job] = {}
        self.reports: dict[AttemptId, tuple[Report, bool]] = {}
        """What each attempt came to, and whether it used up a try."""
        self.won: list[Report] = []

    @property
    def ended(self) -> list[_Job]:
        """Jobs that a report has ended, in order."""
        return [job for job in self.changed.values() if job.state.ended]

    def take(self, report: Report) -> Settled:
        """Judges one report."""
        claim = report.claim
        job = self._jobs.get(claim.job_id)
        if job is None:
            return Settled(claim.job_id, claim, None, changed=False, accepted=False)
        attempt = job.tries[claim.attempt_id]
        verdict = judge(job.standing(claim.attempt_id), report, max_attempts=self._max_attempts)
        same_again = attempt.won or attempt.outcome is report.outcome is not Outcome.SUCCEEDED
        # an attempt that was given up and succeeds all the same was not in vain
        if attempt.outcome is None or verdict.state is JobState.SUCCEEDED:
            attempt.outcome = report.outcome
            attempt.counted = verdict.state is not None and report.outcome in COUNTED
            self.reports[claim.attempt_id] = (report, attempt.counted)
        if verdict.state is not None:
            self._change(job, report, verdict)
        return Settled(
            job_id=job.id,
            claim=claim,
            state=job.state,
            changed=verdict.state is not None,
            accepted=verdict.state is not None or same_again,
            outcome=report.outcome,
            error=verdict.error,
            traceparent=job.traceparent,
            steps_done=job.steps_done,
            waited_s=(claim.claimed_at - job.queued_at).total_seconds(),
            lasted_s=(job.now - claim.claimed_at).total_seconds(),
            not_before=job.not_before,
        )

    def _change(self, job: _Job, report: Report, verdict: Verdict) -> None:
        claim, state = report.claim, verdict.state
        assert state is not None  # noqa: S101 (only changes come here)
        job.state = state
        job.error = verdict.error
        job.not_before = self._pause_end(job) if verdict.pause else None
        job.attempt_id = claim.attempt_id
        job.number = max(job.number, claim.number)
        if state.ended:
            job.claimed_at = max(claim.claimed_at, job.queued_at)
            job.first_step_at = report.first_step_at
            job.steps_done = max(0, min(report.steps_done, job.steps))
        else:
            job.claimed_at = job.first_step_at = None
            job.steps_done = 0
        if state is JobState.SUCCEEDED:
            job.tries[claim.attempt_id].won = True
            self.won.append(report)
        self.changed[job.id] = job

    def _pause_end(self, job: _Job) -> datetime:
        luck = random.random()  # noqa: S311 (jitter, no secret)
        return job.now + timedelta(seconds=self._retry.delay_s(job.failures, luck))


async def write_settlement(db: Connection, work: Settlement) -> None:
    """Writes what was decided: attempts, jobs, results, events, counts, in this order."""
    await _write_attempts(db, work)
    jobs = list(work.changed.values())
    await db.execute(
        """
        UPDATE jobs SET state = new.state, attempts = new.number, attempt_id = new.attempt_id,
            claimed_at = new.claimed_at, first_step_at = new.first_step_at,
            steps_done = new.steps_done, error_code = new.error_code,
            error_message = new.error_message, not_before = new.not_before,
            finished_at = CASE WHEN new.ended THEN now() END
        FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::timestamptz[],
            $6::timestamptz[], $7::int[], $8::text[], $9::text[], $10::timestamptz[], $11::bool[])
            AS new (id, state, number, attempt_id, claimed_at, first_step_at, steps_done,
                error_code, error_message, not_before, ended)
        WHERE jobs.id = new.id
        """,
        [job.id for job in jobs],
        [job.state for job in jobs],
        [job.number for job in jobs],
        [job.attempt_id for job in jobs],
        [job.claimed_at for job in jobs],
        [job.first_step_at for job in jobs],
        [job.steps_done for job in jobs],
        [job.error.code if job.error else None for job in jobs],
        [job.error.message if job.error else None for job in jobs],
        [job.not_before for job in jobs],
        [job.state.ended for job in jobs],
    )
    if work.won:
        await db.execute(
            """
            INSERT INTO results (job_id, attempt_id, images, warnings)
            SELECT job_id, attempt_id, images::jsonb, warnings::jsonb
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                AS won (job_id, attempt_id, images, warnings)
            """,
            [report.claim.job_id for report in work.won],
            [report.claim.attempt_id for report in work.won],
            [json.dumps(images_to_json(report.images)) for report in work.won],
            [json.dumps(report.warnings) for report in work.won],
        )
    ended = work.ended
    if ended:
        await write_events(db, [job.id for job in ended])
        await close_jobs(db, [job.user_id for job in ended])


async def _write_attempts(db: Connection, work: Settlement) -> None:
    reports = [report for report, _ in work.reports.values()]
    await db.execute(
        """
        UPDATE attempts SET ended_at = now(), outcome = new.outcome, counted = new.counted,
            steps_done = new.steps_done, error_code = new.error_code,
            error_message = new.error_message
        FROM unnest($1::text[], $2::text[], $3::bool[], $4::int[], $5::text[], $6::text[])
            AS new (id, outcome, counted, steps_done, error_code, error_message)
        WHERE attempts.id = new.id
        """,
        [report.claim.attempt_id for report in reports],
        [report.outcome for report in reports],
        [counted for _, counted in work.reports.values()],
        [report.steps_done for report in reports],
        [report.error.code if report.error else None for report in reports],
        [report.error.message if report.error else None for report in reports],
    )
    await db.execute(
        "UPDATE attempts SET ended_at = now(), outcome = 'superseded' "
        "WHERE job_id = ANY($1) AND ended_at IS NULL",
        [job.id for job in work.ended],
    )


async def close_jobs(db: Connection, user_ids: Sequence[UserId]) -> None:
    """Counts one job less as open for each mention of a user; locks users in order."""
    await db.execute(
        """
        UPDATE open_jobs SET open = open - gone.count
        FROM (
            SELECT open_jobs.user_id, told.count
            FROM (SELECT id, count(*) AS count FROM unnest($1::text[]) AS named (id) GROUP BY id)
                AS told JOIN open_jobs ON open_jobs.user_id = told.id
            ORDER BY open_jobs.user_id FOR UPDATE OF open_jobs
        ) AS gone
        WHERE gone.user_id = open_jobs.user_id
        """,
        list(user_ids),
    )
