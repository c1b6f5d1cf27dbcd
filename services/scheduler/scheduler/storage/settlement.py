"""One transaction's worth of ended attempts: what `domain.lease.judge` says, and its rows."""

from __future__ import annotations

import json
import random
from collections import Counter
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


@dataclass(slots=True)
class _Attempt:
    number: int
    outcome: Outcome | None = None
    counted: bool = False
    won: bool = False


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

    @property
    def superseded(self) -> list[AttemptId]:
        """Attempts that run although another one has ended their job."""
        return [
            attempt_id
            for job in self.ended
            for attempt_id, attempt in job.tries.items()
            if attempt.outcome is None
        ]

    def take(self, report: Report) -> Settled:
        """Judges one report."""
        claim = report.claim
        job = self._jobs.get(claim.job_id)
        if job is None:
            return Settled(claim.job_id, claim, None, changed=False, accepted=False)
        # a report may come before the record of its claim
        attempt = job.tries.setdefault(claim.attempt_id, _Attempt(claim.number))
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


# Users come last, by id: jobs are locked already.
_WRITE = """
    WITH tried AS (
        INSERT INTO attempts (id, job_id, number, worker_id, claimed_at, outcome, counted,
            steps_done, error_code, error_message, ended_at)
        SELECT *, now() FROM unnest($1::text[], $2::text[], $3::int[], $4::text[],
            $5::timestamptz[], $6::text[], $7::bool[], $8::int[], $9::text[], $10::text[])
        ON CONFLICT (id) DO UPDATE SET ended_at = now(), outcome = excluded.outcome,
            counted = excluded.counted, steps_done = excluded.steps_done,
            error_code = excluded.error_code, error_message = excluded.error_message
    ), changed AS (
        UPDATE jobs SET state = new.state, attempts = new.number, attempt_id = new.attempt_id,
            claimed_at = new.claimed_at, first_step_at = new.first_step_at,
            steps_done = new.steps_done, error_code = new.error_code,
            error_message = new.error_message, not_before = new.not_before,
            finished_at = CASE WHEN new.ended THEN now() END
        FROM unnest($11::text[], $12::text[], $13::int[], $14::text[], $15::timestamptz[],
                $16::timestamptz[], $17::int[], $18::text[], $19::text[], $20::timestamptz[],
                $21::bool[]) WITH ORDINALITY
            AS new (id, state, number, attempt_id, claimed_at, first_step_at, steps_done,
                error_code, error_message, not_before, ended, n)
        WHERE jobs.id = new.id
        RETURNING jobs.*, new.n
    ), won AS (
        INSERT INTO results (job_id, attempt_id, images, warnings)
        SELECT job_id, attempt_id, images::jsonb, warnings::jsonb
        FROM unnest($22::text[], $23::text[], $24::text[], $25::text[])
            AS won (job_id, attempt_id, images, warnings)
        RETURNING job_id, images
    ), told AS (
        INSERT INTO events (generation, type, job_id, user_id, occurred_at, steps_done, steps,
            images, error_code, error_message, traceparent)
        SELECT feed.generation, state, id, user_id, finished_at, steps_done,
            total_steps(changed.generation),
            coalesce(won.images, '[]'), error_code, error_message, traceparent
        FROM feed, changed LEFT JOIN won ON won.job_id = changed.id
        WHERE finished_at IS NOT NULL ORDER BY n
    ), closed AS (
        SELECT open_jobs.user_id, ended.count FROM open_jobs JOIN unnest($26::text[], $27::int[])
            AS ended (user_id, count) USING (user_id)
        ORDER BY open_jobs.user_id FOR UPDATE OF open_jobs
    )
    UPDATE open_jobs SET open = open - closed.count
    FROM closed WHERE closed.user_id = open_jobs.user_id
"""


async def write_settlement(db: Connection, work: Settlement) -> None:
    """Writes what was decided: attempts, jobs, results, events and the users' counts."""
    jobs = list(work.changed.values())
    closed = Counter(job.user_id for job in work.ended)
    await db.execute(
        _WRITE,
        *_attempt_columns(list(work.reports.values())),
        *_job_columns(jobs),
        *_result_columns(work.won),
        list(closed),
        list(closed.values()),
    )
    if others := work.superseded:
        await db.execute(
            "UPDATE attempts SET ended_at = now(), outcome = 'superseded' WHERE id = ANY($1)",
            others,
        )


def _attempt_columns(reports: Sequence[tuple[Report, bool]]) -> tuple[list[object], ...]:
    claims = [report.claim for report, _ in reports]
    errors = [report.error for report, _ in reports]
    return (
        [claim.attempt_id for claim in claims],
        [claim.job_id for claim in claims],
        [claim.number for claim in claims],
        [claim.worker_id for claim in claims],
        [claim.claimed_at for claim in claims],
        [report.outcome for report, _ in reports],
        [counted for _, counted in reports],
        [report.steps_done for report, _ in reports],
        [error.code if error else None for error in errors],
        [error.message if error else None for error in errors],
    )


def _job_columns(jobs: Sequence[_Job]) -> tuple[list[object], ...]:
    return (
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


def _result_columns(won: Sequence[Report]) -> tuple[list[object], ...]:
    return (
        [report.claim.job_id for report in won],
        [report.claim.attempt_id for report in won],
        [json.dumps(images_to_json(report.images)) for report in won],
        [json.dumps(report.warnings) for report in won],
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
