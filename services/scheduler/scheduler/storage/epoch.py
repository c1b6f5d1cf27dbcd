"""The rebuild of a lane's keys in Redis: begun, swept, filled and opened under one token."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from redis.asyncio import Redis

from easel_kit.redis import redis_errors
from scheduler.domain.line import Admission
from scheduler.storage.codec import admission_to_redis
from scheduler.storage.scripts import Scripts

# A script blocks Redis while it runs: some milliseconds.
_JOBS_PER_CALL = 200
_KEYS_PER_CALL = 1_000


class RedisEpoch:
    """`ports.Epoch` on Redis."""

    def __init__(self, redis: Redis, scripts: Scripts, *, lease_ttl_s: float) -> None:
        """`lease_ttl_s` is given to attempts that are under way."""
        self._redis = redis
        self._scripts = scripts
        self._lease_ms = int(lease_ttl_s * 1000)

    async def is_open(self) -> bool:
        """See `ports.Epoch`."""
        return await self._scripts.is_open()

    async def begin(self, *, alone: bool) -> str | None:
        """See `ports.Epoch`."""
        token = secrets.token_hex(8)
        answer = await self._scripts.begin(token, alone=alone)
        return token if answer == b"begun" else None

    async def sweep(self, token: str) -> None:
        """See `ports.Epoch`."""
        cursor = 0
        while True:
            with redis_errors():
                cursor, found = await self._redis.scan(
                    cursor, match=f"{self._scripts.prefix}*", count=_KEYS_PER_CALL
                )
            keys = [key.decode() for key in found if isinstance(key, bytes)]
            await self._scripts.build("sweep", token, keys)
            if not cursor:
                return

    async def restore(self, token: str, admissions: Sequence[Admission]) -> None:
        """See `ports.Epoch`."""
        batches = []
        for start in range(0, len(admissions), _JOBS_PER_CALL):
            some = admissions[start : start + _JOBS_PER_CALL]
            fields = [field for admission in some for field in admission_to_redis(admission)]
            batches.append([str(self._lease_ms), *fields])
        await self._scripts.build("admit", token, *batches)

    async def open(self, token: str) -> None:
        """See `ports.Epoch`."""
        await self._scripts.build("open", token, [])
