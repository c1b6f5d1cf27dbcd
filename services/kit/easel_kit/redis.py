"""Redis: how a client is opened. Keys and scripts stand in each service's storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, RedisError, TimeoutError  # noqa: A004

from easel_kit.errors import DependencyDown


@asynccontextmanager
async def open_redis(
    url: str, *, name: str, command_timeout_s: float = 2.0, retries: int = 2
) -> AsyncIterator[Redis]:
    """Opens a client; connections are made at first use, so a Redis that is away is no error yet.

    Args:
        url: `redis://…` or `rediss://…`.
        name: shows up in CLIENT LIST.
        command_timeout_s: an answer that takes longer counts as lost.
        retries: tries after the first, with jittered growing pauses; commands must be idempotent.
    """
    client = Redis.from_url(
        url,
        client_name=name,
        decode_responses=False,
        socket_timeout=command_timeout_s,
        socket_connect_timeout=command_timeout_s,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.05), retries),
        retry_on_error=[BusyLoadingError, ConnectionError, TimeoutError],
    )
    try:
        yield client
    finally:
        await client.aclose()


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turns every Redis failure inside the block into an error of ours.

    Raises:
        DependencyDown: no answer, or an error answer; the command may have taken effect.
    """
    try:
        yield
    except RedisError as error:
        raise DependencyDown("the queue's store does not answer") from error
