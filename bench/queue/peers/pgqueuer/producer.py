"""pgqueuer's `enqueue` on a pool of connections, on uvloop as its own benchmark runs."""

import json

import asyncpg
import uvloop
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.queries import Queries

from bench.queue.producing import Job, serve, setting


async def _main() -> None:
    pool = await asyncpg.create_pool(setting("URL"), min_size=5, max_size=20)
    queries = Queries(AsyncpgPoolDriver(pool))

    async def submit(job: Job) -> None:
        payload = json.dumps([job.number, job.hold_ms]).encode()
        await queries.enqueue("run", payload, priority=int(job.high))

    await serve(submit)
    await pool.close()


uvloop.run(_main())
