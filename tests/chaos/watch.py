"""What is looked at from outside while a run goes on, and what is left at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.records import (
    AttemptRow,
    Book,
    Count,
    EventRow,
    JobRow,
    ResultRow,
    Sample,
    TombstoneRow,
)

_SAMPLE_EVERY_S = 0.05
_COUNT_EVERY_S = 0.25
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement that meets the loss of its connection half-way
)
# One script: one instant. Leases by the user of each attempt, running sets by user, who waits.
_LOOK = """
local P = ARGV[1]
local leases = {}
for _, attempt in ipairs(redis.call('ZRANGE', P .. 'leases', 0, -1)) do
  local user = redis.call('HGET', P .. 'a:' .. attempt, 'user') or '?'
  leases[user] = (leases[user] or 0) + 1
end
local found = {redis.call('ZCARD', P .. 'jobs'), 0}
for i = 2, #ARGV do
  found[2] = found[2] + redis.call('ZCARD', P .. 'uw:' .. ARGV[i])
  found[#found + 1] = ARGV[i]
  found[#found + 1] = leases[ARGV[i]] or 0
  found[#found + 1] = redis.call('SCARD', P .. 'r:' .. ARGV[i])
  leases[ARGV[i]] = nil
end
for user, count in pairs(leases) do
  found[#found + 1] = user
  found[#found + 1] = count
  found[#found + 1] = 0
end
return found
"""
_PREFIX = "easel:{default}:"
_COUNT = """
SELECT coalesce(o.user_id, j.user_id) AS user_id, coalesce(open, 0) AS said, coalesce(n, 0) AS is
FROM open_jobs AS o FULL JOIN
    (SELECT user_id, count(*) AS n FROM jobs WHERE finished_at IS NULL GROUP BY user_id) AS j
    ON j.user_id = o.user_id
"""


class Watch:
    """Looks into Redis and Postgres; what does not answer is looked at later."""

    def __init__(self, redis_url: str, database_url: str, users: list[str], book: Book) -> None:
        """Connects at the first look."""
        self._redis = Redis.from_url(
            redis_url, socket_timeout=1, socket_connect_timeout=1, retry=None
        )
        self._database_url = database_url
        self._users = users
        self._book = book

    async def close(self) -> None:
        """Disconnects."""
        with suppress(RedisError):
            await self._redis.aclose()

    async def flush(self) -> bool:
        """FLUSHALL; False when Redis is away."""
        try:
            await self._redis.flushall()
        except (RedisError, OSError):
            return False
        return True

    async def backend(self) -> int | None:
        """The process id of a server process that some scheduler talks to, if there is one."""
        try:
            async with self._database() as db:
                pid: int | None = await db.fetchval(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'easel-scheduler' "
                    "ORDER BY random() LIMIT 1"
                )
        except _AWAY:
            return None
        return pid

    async def sample(self) -> Sample | None:
        """Leases and running jobs at one instant."""
        try:
            jobs, waiting, *found = await self._redis.eval(_LOOK, 0, _PREFIX, *self._users)
        except (RedisError, OSError):
            return None
        by_user = [
            (user.decode(), leases, running)
            for user, leases, running in zip(*[iter(found)] * 3, strict=True)
        ]
        return Sample(
            time.time(),
            {user: leases for user, leases, _ in by_user if leases},
            {user: running for user, _, running in by_user if running},
            waiting,
            jobs,
        )

    async def count(self) -> Count | None:
        """Whether the counts of open jobs are right at one instant."""
        try:
            async with self._database() as db:
                rows = await db.fetch(_COUNT)
        except _AWAY:
            return None
        wrong: dict[str, Sequence[int]] = {
            row["user_id"]: [row["said"], row["is"]] for row in rows if row["said"] != row["is"]
        }
        return Count(time.time(), wrong, sum(row["is"] for row in rows))

    async def sample_on(self) -> None:
        """Samples until cancelled."""
        while True:
            if (found := await self.sample()) is not None:
                self._book.write(found)
            await asyncio.sleep(_SAMPLE_EVERY_S)

    async def count_on(self) -> None:
        """Counts until cancelled."""
        while True:
            if (found := await self.count()) is not None:
                self._book.write(found)
            await asyncio.sleep(_COUNT_EVERY_S)

    async def write_rows(self) -> None:
        """Writes down all that the database has."""
        now = time.time()
        async with self._database() as db, db.transaction(isolation="repeatable_read"):
            for row in await db.fetch(
                "SELECT id, user_id, generation ->> 'model_key', state, place, attempts, "
                "coalesce(attempt_id, ''), coalesce(error_code, ''), front IS NOT NULL "
                "FROM jobs ORDER BY place"
            ):
                self._book.write(JobRow(now, *row))
            for row in await db.fetch(
                "SELECT id, job_id, worker_id, number, extract(epoch FROM claimed_at)::float8, "
                "extract(epoch FROM ended_at)::float8, coalesce(outcome, ''), counted "
                "FROM attempts ORDER BY claimed_at, number"
            ):
                self._book.write(AttemptRow(now, *row))
            for row in await db.fetch("SELECT job_id, attempt_id FROM results"):
                self._book.write(ResultRow(now, *row))
            for row in await db.fetch(
                "SELECT generation, transaction_id, sequence, type, job_id FROM events "
                "ORDER BY generation, transaction_id, sequence"
            ):
                self._book.write(EventRow(now, list(row)[:3], row["type"], row["job_id"]))
            for row in await db.fetch("SELECT job_id FROM tombstones"):
                self._book.write(TombstoneRow(now, *row))

    async def last_event(self) -> list[int]:
        """The cursor of the newest event."""
        async with self._database() as db:
            row = await db.fetchrow(
                "SELECT generation, transaction_id, sequence FROM events "
                "ORDER BY generation DESC, transaction_id DESC, sequence DESC LIMIT 1"
            )
        return [0, 0, 0] if row is None else list(row)

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(
            self._database_url,
            timeout=3,
            command_timeout=60,
            server_settings={"search_path": "scheduler", "application_name": "chaos"},
        )
        try:
            yield connection
        finally:
            with suppress(*_AWAY):
                await connection.close(timeout=3)
