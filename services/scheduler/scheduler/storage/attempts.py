"""Attempts in Postgres: what was claimed, and what the end of an attempt means for its job.

`settle` is the one place where a running job changes its state: it locks the jobs, lets the rules
decide (`storage.settlement`), and writes state, result, event and the users' counts together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

import asyncpg

from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.ids import AttemptId, JobId
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import QUEUE_TIME_EXCEEDED, Job, JobState
from scheduler.domain.lease import Claim, Report, Settled
from scheduler.domain.line import Admission
from scheduler.storage.events import write_events
from scheduler.storage.rows import (
    ADMISSION,
    ADMISSION_FROM,
    JOB,
    admission_from_row,
    claim_from_row,
    job_from_row,
)
from scheduler.storage.settlement import Settlement, close_jobs, write_settlement


class PostgresAttempts:
    """`ports.AttemptStore` on Postgres."""

    def __init__(
        self,
        pool: Pool,
        *,
        lane: str,
        max_attempts: int,
        retry: Backoff,
        ring: Callable[[], None],
    ) -> None:
        """A job fails after `max_attempts` tries that count, with a pause of `retry` between some.

        `ring` is called when the feed has grown.
        """
        self._pool = pool
        self._lane = lane
        self._max_attempts = max_attempts
        self._retry = retry
        self._ring = ring

    async def record(self, claims: Sequence[Claim], *, revive: bool = False) -> list[AttemptId]:
        """See `ports.AttemptStore`."""
        attempt_ids = [claim.attempt_id for claim in claims]
        async with transaction(self._pool) as db:
            jobs = await _lock_jobs(db, {claim.job_id for claim in claims})
            await _insert_attempts(db, [claim for claim in claims if claim.job_id in jobs])
            if revive:
                await db.execute(
                    "UPDATE attempts SET ended_at = NULL, outcome = NULL, counted = false "
                    "WHERE id = ANY($1) AND outcome IN ('lost', 'forgotten')",
                    attempt_ids,
                )
            await db.execute(
                """
                UPDATE jobs SET state = 'running', attempts = number, attempt_id = tried.id,
                    claimed_at = greatest(tried.claimed_at, queued_at)
                FROM attempts AS tried
                WHERE tried.id = ANY($1) AND jobs.id = job_id AND finished_at IS NULL
                    AND ended_at IS NULL AND number >= attempts
                """,
                attempt_ids,
            )
        return [
            claim.attempt_id
            for claim in claims
            if claim.job_id not in jobs or JobState(jobs[claim.job_id]["state"]).ended
        ]

    async def settle(self, reports: Sequence[Report]) -> list[Settled]:
        """See `ports.AttemptStore`."""
        async with transaction(self._pool) as db:
            jobs = await _lock_jobs(db, {report.claim.job_id for report in reports})
            work = Settlement(
                jobs.values(), await _attempts(db, jobs), self._max_attempts, self._retry
            )
            settled = [work.take(report) for report in reports]
            await write_settlement(db, work)
        if work.ended:
            self._ring()
        return settled

    async def expire_waiting(self, job_ids: Collection[JobId]) -> list[Settled]:
        """See `ports.AttemptStore`."""
        error = QUEUE_TIME_EXCEEDED
        async with transaction(self._pool) as db:
            rows = await db.fetch(
                """
                UPDATE jobs SET state = 'failed', finished_at = now(), error_code = $2,
                    error_message = $3
                WHERE id IN (
                    SELECT id FROM jobs WHERE id = ANY($1) AND state = 'queued' AND attempts = 0
                        AND start_by <= now() ORDER BY id FOR UPDATE)
                RETURNING id, user_id, traceparent, queued_at, finished_at
                """,
                list(job_ids),
                error.code,
                error.message,
            )
            await write_events(db, [row["id"] for row in rows])
            await close_jobs(db, [row["user_id"] for row in rows])
        if rows:
            self._ring()
        return [
            Settled(
                job_id=JobId(row["id"]),
                claim=None,
                state=JobState.FAILED,
                changed=True,
                error=error,
                traceparent=row["traceparent"],
                waited_s=(row["finished_at"] - row["queued_at"]).total_seconds(),
            )
            for row in rows
        ]

    async def claims(self, attempt_ids: Collection[AttemptId]) -> list[Claim]:
        """See `ports.AttemptStore`."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                "SELECT attempts.id, job_id, user_id, worker_id, number, attempts.claimed_at "
                "FROM attempts JOIN jobs ON jobs.id = job_id WHERE attempts.id = ANY($1)",
                list(attempt_ids),
            )
        return [claim_from_row(row) for row in rows]

    async def open(self, job_ids: Collection[JobId]) -> dict[JobId, Job]:
        """See `ports.AttemptStore`."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                f"SELECT {JOB} FROM jobs LEFT JOIN results ON results.job_id = jobs.id "  # noqa: S608 (a constant)
                "WHERE jobs.id = ANY($1) AND finished_at IS NULL",
                list(job_ids),
            )
        return {JobId(row["id"]): job_from_row(row) for row in rows}

    async def cancelled(self, job_ids: Collection[JobId]) -> set[JobId]:
        """See `ports.AttemptStore`."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                "SELECT id FROM jobs WHERE id = ANY($1) AND cancel_requested "
                "AND finished_at IS NULL",
                list(job_ids),
            )
        return {JobId(row["id"]) for row in rows}

    async def admissions(self, job_ids: Collection[JobId]) -> list[Admission]:
        """See `ports.AttemptStore`."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                f"SELECT {ADMISSION} FROM {ADMISSION_FROM} "  # noqa: S608 (constants)
                "WHERE jobs.id = ANY($1) AND finished_at IS NULL ORDER BY place",
                list(job_ids),
            )
        return [admission_from_row(row) for row in rows]

    async def open_jobs(self, state: JobState, *, after: int, limit: int) -> list[Admission]:
        """See `ports.AttemptStore`."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                f"SELECT {ADMISSION} FROM {ADMISSION_FROM} "  # noqa: S608 (constants)
                "WHERE lane = $1 AND state = $2 AND finished_at IS NULL AND place > $3 "
                "ORDER BY place LIMIT $4",
                self._lane,
                state,
                after,
                limit,
            )
        return [admission_from_row(row) for row in rows]

    async def open_ids(
        self, state: JobState, *, after: int, upto: int | None = None, limit: int
    ) -> list[tuple[int, JobId]]:
        """See `ports.AttemptStore`."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                "SELECT place, id FROM jobs WHERE lane = $1 AND state = $2 "
                "AND finished_at IS NULL AND place > $3 AND ($4::bigint IS NULL OR place <= $4) "
                "ORDER BY place LIMIT $5",
                self._lane,
                state,
                after,
                upto,
                limit,
            )
        return [(row["place"], JobId(row["id"])) for row in rows]

    async def last_place(self) -> tuple[int, datetime]:
        """See `ports.AttemptStore`."""
        async with connection(self._pool) as db:
            row = await db.fetchrow(
                "SELECT last_value, clock_timestamp() AS at FROM jobs_place_seq"
            )
        assert row is not None  # noqa: S101 (a sequence has one row)
        return row["last_value"], row["at"]

    async def stop_requests(self, *, limit: int) -> list[JobId]:
        """See `ports.AttemptStore`."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                "SELECT id FROM jobs WHERE lane = $1 AND state = 'running' "
                "AND finished_at IS NULL AND cancel_requested ORDER BY place LIMIT $2",
                self._lane,
                limit,
            )
        return [JobId(row["id"]) for row in rows]


_Rows = dict[JobId, asyncpg.Record]


async def _lock_jobs(db: Connection, job_ids: Iterable[JobId]) -> _Rows:
    # by id: whoever locks several meets everyone else in the same order
    rows = await db.fetch(
        """
        SELECT id, user_id, state, cancel_requested, attempt_id, attempts, traceparent,
            queued_at, claimed_at, now() AS now,
            total_steps(generation) AS steps
        FROM jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE
        """,
        list(job_ids),
    )
    return {JobId(row["id"]): row for row in rows}


async def _insert_attempts(db: Connection, claims: Sequence[Claim]) -> None:
    """Writes claims that are not there yet."""
    await db.execute(
        """
        INSERT INTO attempts (id, job_id, number, worker_id, claimed_at)
        SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::timestamptz[])
        ON CONFLICT (id) DO NOTHING
        """,
        [claim.attempt_id for claim in claims],
        [claim.job_id for claim in claims],
        [claim.number for claim in claims],
        [claim.worker_id for claim in claims],
        [claim.claimed_at for claim in claims],
    )


async def _attempts(db: Connection, job_ids: Iterable[JobId]) -> list[asyncpg.Record]:
    return await db.fetch(
        """
        SELECT attempts.id, attempts.job_id, number, outcome, counted,
            results.attempt_id IS NOT NULL AS won
        FROM attempts LEFT JOIN results ON results.attempt_id = attempts.id
        WHERE attempts.job_id = ANY($1)
        """,
        list(job_ids),
    )
