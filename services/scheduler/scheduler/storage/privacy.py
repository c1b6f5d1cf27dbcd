"""A user's jobs in Postgres read from the first to the last, and all that is kept of users removed.

Every user of whom there is anything has a row in `open_jobs`: the first submit or plan writes it,
and only an erasure removes it, last of all. So users are looked for there alone, and an erasure
that was cut short is found again. Its jobs outlive their events (see `Settings`), so the events to
be removed are those of jobs. Readers of the feed do not notice: a cursor is a place between events
and not one of them, and the feed's lower end stays where it is.

Tombstones stay: they name jobs and nobody.

Locks are taken as everywhere: jobs by id, then open_jobs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.erasure import UserHash
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import ENDED_STATES, Job
from scheduler.domain.privacy import Erasure
from scheduler.domain.selection import Mark
from scheduler.storage.rows import JOB, JOB_FROM, job_from_row

_BATCH = 1_000
_BEGINNING = Mark(datetime(1970, 1, 1, tzinfo=UTC), 0)

# each names a partial index: jobs_of_user_open, jobs_of_user_ended, jobs_of_user_hidden
_KINDS = (
    "finished_at IS NULL",
    *(
        f"state = '{state}' AND finished_at IS NOT NULL AND hidden_at IS NULL"
        for state in sorted(ENDED_STATES)
    ),
    "finished_at IS NOT NULL AND hidden_at IS NOT NULL",
)
_OLDEST = "ORDER BY queued_at, place LIMIT $4"
_PAGE = " UNION ALL ".join(
    f"(SELECT id FROM jobs WHERE user_id = $1 AND {kind} "  # noqa: S608 (constants)
    f"AND (queued_at, place) > ($2, $3) {_OLDEST})"
    for kind in _KINDS
)
_ENDED = " UNION ALL ".join(
    f"(SELECT id FROM jobs WHERE user_id = $1 AND {kind} LIMIT $2)"  # noqa: S608 (constants)
    for kind in _KINDS[1:]
)


class PostgresPrivacy:
    """`ports.PrivacyStore` on Postgres."""

    def __init__(self, pool: Pool) -> None:
        """Of all lanes."""
        self._pool = pool

    async def jobs(self, user_id: UserId, *, after: Mark | None, limit: int) -> list[Job]:
        """See `ports.PrivacyStore`."""
        start = after or _BEGINNING
        async with connection(self._pool) as db:
            rows = await db.fetch(
                f"SELECT {JOB} FROM {JOB_FROM} WHERE jobs.id IN ({_PAGE}) {_OLDEST}",  # noqa: S608 (constants)
                user_id,
                start.queued_at,
                start.place,
                limit,
            )
        return [job_from_row(row) for row in rows]

    async def users(self, user_hashes: Collection[UserHash]) -> list[UserId]:
        """See `ports.PrivacyStore`. One look into an index for each."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                """
                SELECT found.user_id FROM unnest($1::bytea[]) AS gone (user_hash), LATERAL (
                    SELECT user_id FROM open_jobs WHERE user_hash(user_id) = gone.user_hash LIMIT 1
                ) AS found ORDER BY found.user_id
                """,
                list(set(user_hashes)),
            )
        return [UserId(row["user_id"]) for row in rows]

    async def erase(self, user_id: UserId) -> Erasure:
        """See `ports.PrivacyStore`. A bounded number of jobs a transaction, the user last."""
        while (came_to := await self._erase_some(user_id)) is None:
            pass
        return came_to

    async def _erase_some(self, user_id: UserId) -> Erasure | None:
        """None: more is left."""
        async with transaction(self._pool) as db:
            job_ids = await _lock_ended(db, user_id)
            count = await db.fetchval(
                "SELECT open FROM open_jobs WHERE user_id = $1 FOR UPDATE", user_id
            )
            if count is None:
                return Erasure.ABSENT
            if count:
                return Erasure.BUSY
            await _remove(db, job_ids)
            # under the user's lock none is added, but some may have ended since they were locked
            if await db.fetch(_ENDED, user_id, 1):
                return None
            await db.execute("DELETE FROM open_jobs WHERE user_id = $1", user_id)
            return Erasure.DONE


async def _lock_ended(db: Connection, user_id: UserId) -> list[JobId]:
    rows = await db.fetch(f"{_ENDED} LIMIT $2", user_id, _BATCH)
    job_ids = [row["id"] for row in rows]
    # a late report writes under this lock: what it wrote is removed with the job
    await db.execute("SELECT FROM jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE", job_ids)
    return job_ids


async def _remove(db: Connection, job_ids: Sequence[JobId]) -> None:
    """Removes jobs that have ended and are locked, with all that hangs on them."""
    await db.execute("DELETE FROM events WHERE job_id = ANY($1) AND type <> 'queued'", job_ids)
    # the first event of a job is as old as the job: there is an index of that
    await db.execute(
        "DELETE FROM events USING jobs WHERE jobs.id = ANY($1) AND job_id = jobs.id "
        "AND occurred_at = queued_at",
        job_ids,
    )
    for table, column in (("results", "job_id"), ("attempts", "job_id"), ("jobs", "id")):
        await db.execute(f"DELETE FROM {table} WHERE {column} = ANY($1)", job_ids)  # noqa: S608 (constants)
