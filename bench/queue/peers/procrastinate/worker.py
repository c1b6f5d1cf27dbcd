"""One procrastinate worker, woken by notifications."""

import uvloop

from bench.queue.journal import READY, Journal
from bench.queue.peers.procrastinate.tasks import SILENCE_S, app
from bench.queue.producing import setting


async def _main() -> None:
    async with app.open_async():
        Journal(setting("JOURNAL")).note(READY)
        await app.run_worker_async(
            concurrency=int(setting("CONCURRENCY")),
            update_heartbeat_interval=SILENCE_S / 3,
            stalled_worker_timeout=SILENCE_S,
        )


uvloop.run(_main())
