"""taskiq's `kiq`."""

import uvloop

from bench.queue.peers.taskiq.tasks import broker, run
from bench.queue.producing import Job, serve


async def _submit(job: Job) -> None:
    await run.kiq(job.number, job.hold_ms)


async def _main() -> None:
    await broker.startup()
    try:
        await serve(_submit)
    finally:
        await broker.shutdown()


uvloop.run(_main())
