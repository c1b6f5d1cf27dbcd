"""How many jobs a system still has, seen from outside in its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import asyncpg
from redis.asyncio import Redis

_DEADLINE_S = 10.0


class Look(Protocol):
    """An open view of a system's store."""

    async def outstanding(self) -> int:
        """Jobs that are not finished, or whose end is not recorded yet."""
        ...

    async def close(self) -> None:
        """Disconnects."""
        ...


class SqlLook:
    """One number that a query counts."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], query: str) -> None:
        """Use `opened`."""
        self._connection = connection
        self._query = query

    @classmethod
    async def opened(cls, url: str, query: str) -> SqlLook:
        """Connects."""
        return cls(await asyncpg.connect(url, timeout=_DEADLINE_S), query)

    async def outstanding(self) -> int:
        """See `Look`."""
        return int(await self._connection.fetchval(self._query, timeout=_DEADLINE_S))

    async def close(self) -> None:
        """See `Look`."""
        await self._connection.close(timeout=_DEADLINE_S)


class ListLook:
    """Lists of waiting messages and a hash of those not acknowledged, as Celery keeps them."""

    def __init__(self, url: str, lists: Sequence[str], unacknowledged: str) -> None:
        """Names of the keys."""
        self._redis = Redis.from_url(url, socket_timeout=_DEADLINE_S)
        self._lists = lists
        self._unacknowledged = unacknowledged

    async def outstanding(self) -> int:
        """See `Look`."""
        pipe = self._redis.pipeline(transaction=True)
        for name in self._lists:
            pipe.llen(name)
        pipe.hlen(self._unacknowledged)
        return sum(await pipe.execute())

    async def close(self) -> None:
        """See `Look`."""
        await self._redis.aclose()


class StreamLook:
    """A Redis stream with one group of consumers, as taskiq keeps it.

    Of messages that nobody was given yet one at most is counted: Redis 6.2 does not say how many.
    """

    def __init__(self, url: str, stream: str) -> None:
        """Name of the stream."""
        self._redis = Redis.from_url(url, socket_timeout=_DEADLINE_S)
        self._stream = stream

    async def outstanding(self) -> int:
        """See `Look`."""
        groups: list[dict[str, Any]] = await self._redis.xinfo_groups(self._stream)
        (group,) = groups
        after = f"({group['last-delivered-id'].decode()}"
        ahead = await self._redis.xrange(self._stream, min=after, count=1) or ()
        return int(group["pending"]) + len(ahead)

    async def close(self) -> None:
        """See `Look`."""
        await self._redis.aclose()
