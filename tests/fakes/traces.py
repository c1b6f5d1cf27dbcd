"""All that a schema and a Redis hold, as text: for tests that nothing of a person is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
from redis.asyncio import Redis

Fetch = Callable[[str], Awaitable[Sequence[asyncpg.Record]]]


async def tables(fetch: Fetch, schema: str) -> list[str]:
    """Names of all tables of the schema."""
    rows = await fetch(
        "SELECT table_name FROM information_schema.tables "
        f"WHERE table_schema = '{schema}' AND table_type = 'BASE TABLE' ORDER BY 1"
    )
    return [row["table_name"] for row in rows]


async def rows(fetch: Fetch, schema: str) -> list[tuple[str, str]]:
    """Every row of every table, all its columns as text, bytes as hex; and of which table."""
    return [
        (table, row[0])
        for table in await tables(fetch, schema)
        for row in await fetch(f"SELECT t::text FROM {schema}.{table} AS t ORDER BY 1")
    ]


async def entries(redis: Redis) -> list[str]:
    """Every key with all that it holds."""
    readers: dict[bytes | str, Callable[[bytes], Any]] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
    }
    found = []
    async for key in redis.scan_iter():
        kind = await redis.type(key)
        if kind != b"none":  # it has just run out
            found.append(f"{key!r}: {await readers[kind](key)!r}")
    return found
