"""Jobs in Postgres as their users submit and see them, and what became of an id."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.errors import DomainError, NotFound
from easel_kit.ids import BatchId, JobId, UserId
from scheduler.domain.job import Job, JobState, Resolution, Submission
from scheduler.domain.line import Accepted
from scheduler.domain.selection import Filter, Mark
from scheduler.storage import browse
from scheduler.storage.submits import BURIAL_LOCK, PostgresSubmits


class PostgresJobs:
    """`ports.JobStore` on Postgres."""

    def __init__(self, pool: Pool, *, lane: str, ring: Callable[[], None]) -> None:
        """`lane` is where submitted jobs go; `ring` is called when the feed has grown."""
        self._pool = pool
        self._submits = PostgresSubmits(pool, lane=lane, ring=ring)

    async def submit(self, submissions: Sequence[Submission]) -> list[Accepted | DomainError]:
        """See `ports.JobStore`."""
        return await self._submits.submit(submissions)

    async def job(self, user_id: UserId, job_id: JobId, *, hidden: bool = False) -> Job:
        """See `ports.JobStore`."""
        found = (await self.find(user_id, [job_id])).get(job_id)
        if found is None or (found.is_hidden and not hidden):
            raise NotFound("job", job_id)
        return found

    async def find(self, user_id: UserId, job_ids: Collection[JobId]) -> dict[JobId, Job]:
        """See `ports.JobStore`."""
        async with connection(self._pool) as db:
            return await browse.find(db, user_id, job_ids)

    async def page(
        self, user_id: UserId, wanted: Filter, *, before: Mark | None, limit: int
    ) -> list[Job]:
        """See `ports.JobStore`."""
        async with connection(self._pool) as db:
            return await browse.read_page(db, user_id, wanted, before=before, limit=limit)

    async def counts(self, user_id: UserId, batch_ids: Collection[BatchId]) -> dict[JobState, int]:
        """See `ports.JobStore`."""
        async with connection(self._pool) as db:
            return await browse.count_by_state(db, user_id, batch_ids)

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


async def _resolution(db: Connection, job_id: JobId) -> Resolution | None:
    row = await db.fetchrow(
        """
        SELECT state, steps_done,
            total_steps(generation) AS steps
        FROM jobs WHERE id = $1
        """,
        job_id,
    )
    return (
        None if row is None else Resolution(JobState(row["state"]), row["steps_done"], row["steps"])
    )
