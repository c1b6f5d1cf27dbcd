"""Who was erased: asked by whoever opens an account, written by whoever erases one."""

from __future__ import annotations

from collections.abc import Sequence

from easel_kit.db import Connection
from easel_kit.erasure import Tombstone, UserHash

_LOCK_USER = "SELECT pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 0))"

_BURY = """
INSERT INTO erased_users (user_hash, erased_at)
SELECT * FROM unnest($1::bytea[], $2::timestamptz[])
ON CONFLICT (user_hash) DO NOTHING
"""

_IS_ERASED = "SELECT true FROM erased_users WHERE user_hash = $1"


async def lock_user(lent: Connection, user_hash: UserHash) -> None:
    """Lets one transaction at a time open or erase a user's account; the first lock to take."""
    await lent.execute(_LOCK_USER, user_hash)


async def is_erased(lent: Connection, user_hash: UserHash) -> bool:
    """Whether the user has a tombstone."""
    return bool(await lent.fetchval(_IS_ERASED, user_hash))


async def bury(lent: Connection, tombstones: Sequence[Tombstone]) -> None:
    """Adds tombstones; known ones stay."""
    await lent.execute(
        _BURY,
        [one.user_hash for one in tombstones],
        [one.erased_at for one in tombstones],
    )
