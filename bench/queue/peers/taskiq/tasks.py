"""taskiq's broker: a Redis stream whose messages are acknowledged after the task."""

import asyncio

from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from bench.queue.journal import READY, Journal
from bench.queue.producing import setting

_SILENCE_MS = int(setting("SILENCE_MS") or 600_000)  # the library's default

broker = RedisStreamBroker(
    setting("URL"),
    queue_name="bench",
    consumer_id="0",  # jobs that were submitted before the first worker came count too
    max_connection_pool_size=128,
    idle_timeout=_SILENCE_MS,
    unacknowledged_lock_timeout=_SILENCE_MS / 1000,
)

_journal = Journal(setting("JOURNAL")) if setting("JOURNAL") else None


@broker.task(task_name="bench.run")
async def run(number: int, hold_ms: int) -> None:
    """Say that it ran."""
    _journal.note(number)
    if hold_ms:
        await asyncio.sleep(hold_ms / 1000)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def _ready(_: TaskiqState) -> None:
    _journal.note(READY)
