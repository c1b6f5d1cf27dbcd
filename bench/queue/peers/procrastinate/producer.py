"""procrastinate's `defer_async`."""

import uvloop

from bench.queue.peers.procrastinate.tasks import app, run
from bench.queue.producing import Job, serve


async def _submit(job: Job) -> None:
    task = run.configure(priority=1) if job.high else run
    await task.defer_async(number=job.number, hold_ms=job.hold_ms)


async def _main() -> None:
    async with app.open_async():
        await serve(_submit)


uvloop.run(_main())
