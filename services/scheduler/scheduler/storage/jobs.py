"""Jobs in Postgres as their users see them: submit, read, cancel, resolve."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.errors import DomainError, NotFound
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import Job, JobState, Resolution, Submission
from scheduler.domain.line import Accepted
from scheduler.storage.events import write_events
from scheduler.storage.rows import JOB, job_from_row
from scheduler.storage.submits import BURIAL_LOCK, PostgresSubmits


class PostgresJobs:
    """`ports.JobStore` on Postgres."""

    def __init__(self, pool: Pool, *, lane: str, ring: Callable[[], None]) -> None:
        """`lane` is where submitted jobs go; `ring` is called when the feed has grown."""
        self._pool = pool
        self._ring = ring
        self._submits = PostgresSubmits(pool, lane=lane, ring=ring)

    async def submit(self, submissions: Sequence[Submission]) -> list[Accepted | DomainError]:
        """See `ports.JobStore`."""
        return await self._submits.submit(submissions)

    async def job(self, user_id: UserId, job_id: JobId) -> Job:
        """See `ports.JobStore`."""
        async with connection(self._pool) as db:
            return await _one(db, user_id, job_id)

    async def jobs(
        self, user_id: UserId, states: Collection[JobState], *, before: int | None, limit: int
    ) -> list[Job]:
        """See `ports.JobStore`."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                f"SELECT {JOB} FROM jobs LEFT JOIN results ON results.job_id = jobs.id "  # noqa: S608 (a constant)
                "WHERE jobs.user_id = $1 AND (cardinality($2::text[]) = 0 OR state = ANY($2)) "
                "AND ($3::bigint IS NULL OR place < $3) ORDER BY place DESC LIMIT $4",
                user_id,
                list(states),
                before,
                limit,
            )
        return [job_from_row(row) for row in rows]

    async def cancel(self, user_id: UserId, job_id: JobId) -> tuple[Job, bool]:
        """See `ports.JobStore`."""
        async with transaction(self._pool) as db:
            state = await db.fetchval(
                "SELECT state FROM jobs WHERE id = $1 AND user_id = $2 FOR UPDATE", job_id, user_id
            )
            ended = state == JobState.QUEUED
            if state == JobState.RUNNING:
                await db.execute("UPDATE jobs SET cancel_requested = true WHERE id = $1", job_id)
            elif ended:
                await db.execute(
                    "UPDATE jobs SET cancel_requested = true, state = 'cancelled', "
                    "finished_at = now() WHERE id = $1",
                    job_id,
                )
                await write_events(db, [job_id])
                await db.execute("UPDATE open_jobs SET open = open - 1 WHERE user_id = $1", user_id)
            job = await _one(db, user_id, job_id)
        if ended:
            self._ring()
        return job, ended

    async def resolve(self, job_id: JobId) -> Resolution:
        """See `ports.JobStore`."""
        async with connection(self._pool) as db:
            if (found := await _resolution(db, job_id)) is not None:
                return found
        async with transaction(self._pool) as db:
            await db.execute("SELECT pg_advisory_xact_lock($1)", BURIAL_LOCK)
            if (found := await _resolution(db, job_id)) is not None:
                return found
            await db.execute(
                "INSERT INTO tombstones (job_id) VALUES ($1) ON CONFLICT DO NOTHING", job_id
            )
        return Resolution(None)


async def _one(db: Connection, user_id: UserId, job_id: JobId) -> Job:
    row = await db.fetchrow(
        f"SELECT {JOB} FROM jobs LEFT JOIN results ON results.job_id = jobs.id "  # noqa: S608 (a constant)
        "WHERE jobs.id = $1 AND jobs.user_id = $2",
        job_id,
        user_id,
    )
    if row is None:
        raise NotFound("job", job_id)
    return job_from_row(row)


async def _resolution(db: Connection, job_id: JobId) -> Resolution | None:
    row = await db.fetchrow(
        """
        SELECT state, steps_done,
            (generation ->> 'steps')::int * (generation ->> 'image_count')::int AS steps
        FROM jobs WHERE id = $1
        """,
        job_id,
    )
    return (
        None if row is None else Resolution(JobState(row["state"]), row["steps_done"], row["steps"])
    )
