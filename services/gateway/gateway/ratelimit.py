"""Requests per minute, counted in Redis by `limits`; without Redis nobody is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from prometheus_client import Counter

from easel_kit.clock import Clock
from easel_kit.log import get_logger
from easel_kit.redis import open_redis
from gateway.ports import Allowance

# A request is not worth more waiting than this for its count.
_TIMEOUT_S = 0.25
# After a failure Redis is left alone for so long: an outage then costs each request nothing.
_PAUSE_S = 1.0

_log = get_logger(__name__)
_open = Counter("easel_ratelimit_open", "Requests let through uncounted.", ["kind"])


class RedisRateLimiter:
    """A sliding window a minute long, shared by all gateways."""

    def __init__(self, storage: RedisStorage, clock: Clock) -> None:
        """`storage` wraps its errors."""
        self._window = SlidingWindowCounterRateLimiter(storage)
        self._clock = clock
        self._away_until = 0.0

    async def hit(self, kind: str, key: str, per_minute: int) -> Allowance | None:
        """See `gateway.ports.RateLimiter`."""
        if self._clock.monotonic() < self._away_until:
            _open.labels(kind).inc()
            return None
        item = RateLimitItemPerMinute(per_minute)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                allowed = await self._window.hit(item, kind, key)
                left = await self._window.get_window_stats(item, kind, key)
        except (StorageError, TimeoutError) as error:
            self._away_until = self._clock.monotonic() + _PAUSE_S
            _open.labels(kind).inc()
            _log.warning("ratelimit.opened", reason=type(error).__name__)
            return None
        reset_s = max(0.0, left.reset_time - self._clock.now().timestamp())
        return Allowance(allowed, per_minute, left.remaining if allowed else 0, reset_s)


class NoRateLimit:
    """Counts nothing and refuses nobody."""

    async def hit(self, kind: str, key: str, per_minute: int) -> Allowance | None:
        """See `gateway.ports.RateLimiter`."""
        del kind, key, per_minute
        return None


@asynccontextmanager
async def open_rate_limiter(
    redis_url: str, clock: Clock
) -> AsyncIterator[RedisRateLimiter | NoRateLimit]:
    """A limiter over that Redis, none where the URL is empty; a Redis that is away is no error."""
    if not redis_url:
        yield NoRateLimit()
        return
    async with open_redis(
        redis_url, name="gateway", command_timeout_s=_TIMEOUT_S, retries=0
    ) as client:
        storage = RedisStorage(
            "async+redis://",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="easel:limits",
            connection_pool=client.connection_pool,  # type: ignore[arg-type]
        )
        yield RedisRateLimiter(storage, clock)
