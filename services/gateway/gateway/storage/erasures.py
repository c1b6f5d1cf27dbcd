"""Erasures in Postgres: the port `Erasures`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from easel_kit.db import Pool, connection, transaction
from easel_kit.erasure import HASH_PREFIX, Tombstone, UserHash, hash_of
from easel_kit.errors import Internal
from easel_kit.ids import UserId
from gateway.domain.privacy import Erasure, ErasureState

_COLUMNS = "user_hash, user_id, state, requested_at, stopped_at, finished_at, failures"
_REQUEST = """
INSERT INTO erasures (user_hash, user_id, state, requested_at, try_at)
VALUES ($1, $2, 'requested', $3, $3) ON CONFLICT (user_hash) DO NOTHING
"""
_FIND = f"SELECT {_COLUMNS} FROM erasures WHERE user_hash = $1"  # noqa: S608 (constants)
_IS_BARRED = "SELECT EXISTS (SELECT FROM erasures WHERE user_hash = $1)"
_DUE = f"""
SELECT {_COLUMNS} FROM erasures WHERE state <> 'done' AND try_at <= $1 ORDER BY try_at LIMIT $2
"""  # noqa: S608 (constants)
_STOP = """
UPDATE erasures SET state = 'stopped', stopped_at = $2, failures = 0
WHERE user_hash = $1 AND state = 'requested'
"""
_FINISH = """
UPDATE erasures SET state = 'done', finished_at = $2, user_id = NULL, failures = 0
WHERE user_hash = $1 AND state = 'stopped' RETURNING true
"""
_FORGET_PICTURES = "DELETE FROM images WHERE user_id = $1"
_POSTPONE = "UPDATE erasures SET try_at = $2, failures = failures + $3 WHERE user_hash = $1"
_TOMBSTONES = "SELECT user_hash, requested_at FROM erasures WHERE state = 'done'"
_BURY = """
INSERT INTO erasures (user_hash, state, requested_at, finished_at, try_at)
SELECT user_hash, 'done', erased_at, erased_at, erased_at
FROM unnest($1::bytea[], $2::timestamptz[]) AS known (user_hash, erased_at)
ON CONFLICT (user_hash) DO NOTHING
"""
# users one after another along the index images_of_user, however many pictures each has
_REOPEN = """
WITH RECURSIVE users AS (
    (SELECT user_id FROM images ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT user_id FROM images WHERE user_id > users.user_id ORDER BY user_id LIMIT 1)
    FROM users WHERE users.user_id IS NOT NULL
)
UPDATE erasures SET user_id = users.user_id, state = 'requested', finished_at = NULL, try_at = $2
FROM users
WHERE user_hash = sha256(convert_to($1 || users.user_id, 'UTF8')) AND state = 'done'
RETURNING true
"""


class PostgresErasures:
    """Rows of `erasures`, and the removal of those of `images`."""

    def __init__(self, pool: Pool) -> None:
        """The pool's connections see the schema `gateway` first."""
        self._pool = pool

    async def request(self, user_id: UserId, now: datetime) -> Erasure:
        """See `gateway.ports.Erasures`."""
        user_hash = hash_of(user_id)
        async with transaction(self._pool) as lent:
            await lent.execute(_REQUEST, user_hash, user_id, now)
            row = await lent.fetchrow(_FIND, user_hash)
        if row is None:
            raise Internal("an erasure has vanished")
        return _erasure(row)

    async def is_barred(self, user_hash: UserHash) -> bool:
        """See `gateway.ports.Erasures`."""
        async with connection(self._pool) as lent:
            return bool(await lent.fetchval(_IS_BARRED, user_hash))

    async def due(self, now: datetime, limit: int) -> Sequence[Erasure]:
        """See `gateway.ports.Erasures`."""
        async with connection(self._pool) as lent:
            return [_erasure(row) for row in await lent.fetch(_DUE, now, limit)]

    async def stop(self, erasure: Erasure, now: datetime) -> Erasure:
        """See `gateway.ports.Erasures`."""
        async with transaction(self._pool) as lent:
            await lent.execute(_STOP, erasure.user_hash, now)
            row = await lent.fetchrow(_FIND, erasure.user_hash)
        if row is None:
            raise Internal("an erasure has vanished")
        return _erasure(row)

    async def finish(self, erasure: Erasure, now: datetime) -> None:
        """See `gateway.ports.Erasures`."""
        async with transaction(self._pool) as lent:
            if await lent.fetchval(_FINISH, erasure.user_hash, now):
                await lent.execute(_FORGET_PICTURES, erasure.user_id)

    async def postpone(self, erasure: Erasure, until: datetime, *, failed: bool) -> None:
        """See `gateway.ports.Erasures`."""
        async with connection(self._pool) as lent:
            await lent.execute(_POSTPONE, erasure.user_hash, until, int(failed))

    async def tombstones(self) -> Sequence[Tombstone]:
        """See `gateway.ports.Erasures`."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_TOMBSTONES)
        return [Tombstone(UserHash(row["user_hash"]), row["requested_at"]) for row in rows]

    async def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """See `gateway.ports.Erasures`."""
        async with connection(self._pool) as lent:
            await lent.execute(
                _BURY,
                [one.user_hash for one in tombstones],
                [one.erased_at for one in tombstones],
            )

    async def reopen(self, now: datetime) -> int:
        """See `gateway.ports.Erasures`."""
        async with connection(self._pool) as lent:
            return len(await lent.fetch(_REOPEN, HASH_PREFIX, now))


def _erasure(row: asyncpg.Record) -> Erasure:
    user_id = row["user_id"]
    return Erasure(
        user_hash=UserHash(row["user_hash"]),
        user_id=None if user_id is None else UserId(user_id),
        state=ErasureState(row["state"]),
        requested_at=row["requested_at"],
        stopped_at=row["stopped_at"],
        finished_at=row["finished_at"],
        failures=row["failures"],
    )
