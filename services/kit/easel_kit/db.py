"""Postgres: how a pool is opened and a transaction is run. SQL stands in each service's storage."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from easel_kit.errors import DependencyDown

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement that meets the loss of its connection half-way
)


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )


@asynccontextmanager
async def open_pool(
    url: str,
    *,
    schema: str,
    name: str,
    max_size: int = 10,
    command_timeout_s: float = 10.0,
) -> AsyncIterator[Pool]:
    """Opens a pool whose connections see `schema` first and speak jsonb as Python values.

    Args:
        url: `postgresql://…`.
        schema: the service's own.
        name: shows up as application_name.
        max_size: connections at most.
        command_timeout_s: a statement that takes longer is cancelled.

    Raises:
        DependencyDown: the server does not answer.
    """
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=max_size,
            timeout=5.0,
            command_timeout=command_timeout_s,
            init=_prepare,
            server_settings={"search_path": schema, "application_name": name, "timezone": "UTC"},
        )
    except _LOST as error:
        raise DependencyDown("the database does not answer") from error
    try:
        yield pool
    finally:
        pool.terminate()


@asynccontextmanager
async def connection(pool: Pool, *, acquire_timeout_s: float = 5.0) -> AsyncIterator[Connection]:
    """Lends a connection without a transaction: each statement commits by itself.

    Raises:
        DependencyDown: the server or the pool does not answer; a statement may have taken effect.
    """
    try:
        async with pool.acquire(timeout=acquire_timeout_s) as lent:
            yield lent
    except _LOST as error:
        raise DependencyDown("the database does not answer") from error


@asynccontextmanager
async def transaction(pool: Pool, *, acquire_timeout_s: float = 5.0) -> AsyncIterator[Connection]:
    """Lends a connection inside a READ COMMITTED transaction, rolled back on any error.

    Raises:
        DependencyDown: the server or the pool does not answer; after a lost commit the effect
            is unknown, so callers repeat only what is idempotent.
    """
    async with connection(pool, acquire_timeout_s=acquire_timeout_s) as lent, lent.transaction():
        yield lent
