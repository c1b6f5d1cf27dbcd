"""Submits in Postgres: jobs of a user are accepted together or not at all."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from easel_kit.db import Connection, Pool, transaction
from easel_kit.errors import Conflict, InvalidState, NotFound, RateLimited
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import NewJob, Submission
from scheduler.domain.line import Accepted
from scheduler.storage.codec import generation_to_json
from scheduler.storage.events import write_events
from scheduler.storage.rows import JOB, JOB_FROM, job_from_row, share_from_row

BURIAL_LOCK = 0x6561_7365_6C01
"""Submits hold it shared, the burial of an unknown id alone: no id is submitted and buried."""

_MIN_RETRY_S, _MAX_RETRY_S = 1.0, 60.0


class PostgresSubmits:
    """`ports.JobStore.submit` on Postgres."""

    def __init__(self, pool: Pool, *, lane: str, ring: Callable[[], None]) -> None:
        """`lane` becomes the home of a user without open jobs; `ring`: the feed has grown."""
        self._pool = pool
        self._lane = lane
        self._ring = ring

    async def submit(self, submission: Submission) -> Accepted:
        """See `ports.JobStore`."""
        async with transaction(self._pool) as db:
            await db.execute("SELECT pg_advisory_xact_lock_shared($1)", BURIAL_LOCK)
            await _entitle(db, submission)
            known = await _known(db, submission)
            fresh = [job for job in submission.jobs if job.id not in known]
            if fresh:
                await _refuse_buried(db, fresh)
                await _reserve(db, submission.user_id, len(fresh), self._lane)
                await _insert(db, submission, fresh)
            rows = await db.fetch(
                f"SELECT {JOB}, version, priority, weight, max_running "  # noqa: S608 (constants)
                f"FROM {JOB_FROM} JOIN open_jobs USING (user_id) WHERE jobs.id = ANY($1)",
                [job.id for job in submission.jobs],
            )
        if fresh:
            self._ring()
        found = {row["id"]: job_from_row(row) for row in rows}
        return Accepted(
            jobs=[found[job.id] for job in submission.jobs],
            fresh=frozenset(job.id for job in fresh),
            share=share_from_row(rows[0]),
        )


async def _insert(db: Connection, submission: Submission, jobs: list[NewJob]) -> None:
    fronts = await draw_fronts(db, len(jobs)) if submission.prepend else [None] * len(jobs)
    try:
        rows = await db.fetch(
            """
            INSERT INTO jobs (id, user_id, lane, state, generation, cost_ms, queued_at, start_by,
                traceparent, batch_id, retry_of, front)
            SELECT id, $2, home_lane, 'queued', generation, cost_ms, now(),
                now() + queue_time_s * interval '1 second', $7, $8, retry_of, front
            FROM unnest($1::text[], $3::jsonb[], $4::bigint[], $5::text[], $6::bigint[])
                WITH ORDINALITY AS fresh (id, generation, cost_ms, retry_of, front, n), open_jobs
            WHERE open_jobs.user_id = $2
            ORDER BY n
            RETURNING id
            """,
            [job.id for job in jobs],
            submission.user_id,
            [generation_to_json(job.generation) for job in jobs],
            [job.cost_ms for job in jobs],
            [job.retry_of for job in jobs],
            fronts,
            submission.traceparent,
            submission.batch_id,
        )
    except asyncpg.UniqueViolationError as error:  # submitted by another user just now
        raise Conflict("the job is being submitted by someone else") from error
    await write_events(db, [row["id"] for row in rows])


async def draw_fronts(db: Connection, count: int) -> list[int]:
    """Values of `jobs.front` before all that were drawn until now, ascending."""
    rows = await db.fetch("SELECT -nextval('fronts') AS front FROM generate_series(1, $1)", count)
    return sorted(row["front"] for row in rows)


async def _entitle(db: Connection, submission: Submission) -> None:
    """Locks the user's row and writes newer entitlements into it."""
    new = submission.entitlements
    await db.execute(
        """
        INSERT INTO open_jobs AS known
            (user_id, version, priority, weight, max_running, max_waiting, queue_time_s)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (user_id) DO UPDATE SET version = $2, priority = $3, weight = $4,
            max_running = $5, max_waiting = $6, queue_time_s = $7
        WHERE known.version <= $2
        """,
        submission.user_id,
        new.version,
        new.priority,
        new.weight,
        new.max_running,
        new.max_waiting,
        new.queue_time_s,
    )


async def _known(db: Connection, submission: Submission) -> set[JobId]:
    rows = await db.fetch(
        "SELECT id, user_id, generation FROM jobs WHERE id = ANY($1)",
        [job.id for job in submission.jobs],
    )
    found = {row["id"]: row for row in rows}
    for job in submission.jobs:
        row = found.get(job.id)
        if row is None:
            continue
        if row["user_id"] != submission.user_id:
            raise NotFound("job", job.id)
        if row["generation"] != generation_to_json(job.generation):
            raise Conflict(f"job {job.id} was submitted with another request")
    return set(found)


async def _refuse_buried(db: Connection, jobs: list[NewJob]) -> None:
    buried = await db.fetchval(
        "SELECT job_id FROM tombstones WHERE job_id = ANY($1) LIMIT 1", [job.id for job in jobs]
    )
    if buried is not None:
        raise InvalidState(f"job {buried} came too late: it was already given up")


async def _reserve(db: Connection, user_id: UserId, count: int, lane: str) -> None:
    """Counts the jobs as open, if the limit allows; the first of them make `lane` their home."""
    reserved = await db.fetchval(
        """
        UPDATE open_jobs SET open = open + $2,
            home_lane = CASE WHEN open = 0 THEN $3 ELSE home_lane END
        WHERE user_id = $1 AND open + $2 <= max_running + max_waiting
        RETURNING true
        """,
        user_id,
        count,
        lane,
    )
    if reserved:
        return
    row = await db.fetchrow(
        """
        SELECT open, max_running + max_waiting AS most,
            (SELECT min(cost_ms) FROM jobs WHERE user_id = $1 AND finished_at IS NULL) AS soonest_ms
        FROM open_jobs WHERE user_id = $1
        """,
        user_id,
    )
    assert row is not None  # noqa: S101 (_entitle has written it)
    raise RateLimited(
        "Too many concurrent requests",
        retry_after_s=min(_MAX_RETRY_S, max(_MIN_RETRY_S, (row["soonest_ms"] or 0) / 1000)),
        limit=row["most"],
        current=row["open"],
        requested=count,
    )
