"""Locks between replicas: Postgres advisory locks of a session, which end with their process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b

import asyncpg

from easel_kit.db import Pool, connection

_GONE_S = 10
"""A replica that vanished with its machine loses its locks after so long without a word."""


class PostgresLocks:
    """`ports.Locks`; a lock holds one connection of the pool for itself."""

    def __init__(self, pool: Pool, *, lane: str) -> None:
        """Locks of one lane."""
        self._pool = pool
        self._lane = lane

    @asynccontextmanager
    async def hold(self, name: str, *, wait_s: float = 0) -> AsyncIterator[bool]:
        """See `ports.Locks`."""
        text = f"easel:{self._lane}:{name}"
        key = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)
        async with connection(self._pool, clean=True) as db:
            # given back to the pool, the connection forgets its settings and its locks
            await db.execute(
                f"SET tcp_keepalives_idle = {_GONE_S // 2}; SET tcp_keepalives_interval = 1; "
                f"SET tcp_keepalives_count = {_GONE_S // 2}"
            )
            if await db.fetchval("SELECT pg_try_advisory_lock($1)", key):
                yield True
                return
            if wait_s > 0:
                await db.execute(f"SET lock_timeout = {int(wait_s * 1000)}")
                try:
                    await db.execute("SELECT pg_advisory_lock($1)", key, timeout=wait_s + 5)
                except asyncpg.LockNotAvailableError:
                    yield False
                else:
                    yield True
                return
            yield False
