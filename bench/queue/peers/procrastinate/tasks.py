"""procrastinate's app on a pool of connections, and its recipe for jobs of dead workers."""

import asyncio

from procrastinate import App, JobContext, PsycopgConnector

from bench.queue.journal import Journal
from bench.queue.producing import setting

SILENCE_S = int(setting("SILENCE_MS") or 30_000) / 1000  # the library's default

app = App(connector=PsycopgConnector(conninfo=setting("URL"), min_size=5, max_size=20))

_journal = Journal(setting("JOURNAL")) if setting("JOURNAL") else None


@app.task(name="run")
async def run(number: int, hold_ms: int) -> None:
    """Say that it ran."""
    _journal.note(number)
    if hold_ms:
        await asyncio.sleep(hold_ms / 1000)


if setting("SILENCE_MS"):

    @app.periodic(cron="* * * * * */5")
    @app.task(queueing_lock="retry_stalled_jobs", pass_context=True)
    async def retry_stalled_jobs(context: JobContext, timestamp: int) -> None:  # noqa: ARG001 (the library names it)
        """Jobs of workers without a sign of life wait again."""
        manager = context.app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=SILENCE_S):
            await manager.retry_job(job)
