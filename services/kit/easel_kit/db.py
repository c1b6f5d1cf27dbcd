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

_RESET_S = 5.0

_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # a database that takes no connections for now
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement that meets the loss of its connection half-way
)


async def _keep(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Nothing to clear: see `connection`."""
    del connection


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
            reset=_keep,
            server_settings={"search_path": schema, "application_name": name, "timezone": "UTC"},
        )
    except _LOST as error:
        raise DependencyDown("the database does not answer") from error
    try:
        yield pool
    finally:
        pool.terminate()


@asynccontextmanager
async def connection(
    pool: Pool, *, acquire_timeout_s: float = 5.0, clean: bool = False
) -> AsyncIterator[Connection]:
    """Lends a connection without a transaction: each statement commits by itself.

    Args:
        pool: to borrow from.
        acquire_timeout_s: how long to wait for a connection.
        clean: afterwards locks and settings of the session are cleared. That is a round trip, so
            whoever leaves none behind does without.

    Raises:
        DependencyDown: the server or the pool does not answer; a statement may have taken effect.
    """
    try:
        async with pool.acquire(timeout=acquire_timeout_s) as lent:
            if clean:
                async with _cleaned(lent):
                    yield lent
            else:
                yield lent
    except _LOST as error:
        raise DependencyDown("the database does not answer") from error


@asynccontextmanager
async def _cleaned(lent: Connection) -> AsyncIterator[None]:
    try:
        yield
        await lent.reset(timeout=_RESET_S)
    except BaseException:
        lent.terminate()  # its locks end with it
        raise


@asynccontextmanager
async def transaction(
    pool: Pool, *, acquire_timeout_s: float = 5.0, first: str = ""
) -> AsyncIterator[Connection]:
    """Lends a connection inside a READ COMMITTED transaction, rolled back on any error.

    Args:
        pool: to borrow from.
        acquire_timeout_s: how long to wait for a connection.
        first: a statement without parameters that goes with the BEGIN, in one round trip.

    Raises:
        DependencyDown: the server or the pool does not answer; after a lost commit the effect
            is unknown, so callers repeat only what is idempotent.
    """
    async with connection(pool, acquire_timeout_s=acquire_timeout_s) as lent:
        if not first:
            async with lent.transaction():
                yield lent
            return
        try:
            await lent.execute(f"BEGIN; {first}")
            yield lent
            await lent.execute("COMMIT")
        except BaseException:
            if not lent.is_closed():
                await lent.execute("ROLLBACK")
            raise
