"""One pgqueuer worker: a connection of its own for listening, as its guide advises."""

import asyncio
import json
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job

from bench.queue.journal import READY, Journal
from bench.queue.producing import setting

_CONCURRENCY = int(setting("CONCURRENCY"))
_SILENCE = timedelta(milliseconds=int(setting("SILENCE_MS") or 30_000))  # the library's default


async def _main() -> None:
    journal = Journal(setting("JOURNAL"))
    app = PgQueuer.from_asyncpg_connection(await asyncpg.connect(setting("URL")))

    @app.entrypoint("run")
    async def run(job: Job) -> None:
        number, hold_ms = json.loads(job.payload)
        journal.note(number)
        if hold_ms:
            await asyncio.sleep(hold_ms / 1000)

    journal.note(READY)
    # it refuses less room than twice the batch
    await app.run(
        batch_size=max(1, _CONCURRENCY // 2),
        max_concurrent_tasks=max(2, _CONCURRENCY),
        heartbeat_timeout=_SILENCE,
    )


uvloop.run(_main())
