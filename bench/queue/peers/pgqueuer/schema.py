"""Installs pgqueuer's tables, all of them durable, with its settings for autovacuum."""

import asyncio

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from bench.queue.producing import setting


async def _main() -> None:
    connection = await asyncpg.connect(setting("URL"))
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()
    await connection.close()


asyncio.run(_main())
