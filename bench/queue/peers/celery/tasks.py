"""Celery's app: Redis as broker, late acknowledgement, one message ahead, results ignored."""

import json
import time

from celery import Celery
from celery.signals import worker_ready

from bench.queue.journal import READY, Journal
from bench.queue.producing import setting

HIGH, LOW = 0, 9  # on Redis the lowest number is served first

app = Celery("bench", broker=setting("URL"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    task_default_queue="bench",
    broker_pool_limit=64,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    broker_transport_options=json.loads(setting("TRANSPORT") or "{}"),
)
if setting("PRIORITIES"):
    app.conf.broker_transport_options = {
        "priority_steps": [HIGH, LOW],
        "queue_order_strategy": "priority",
    }

_journal = Journal(setting("JOURNAL")) if setting("JOURNAL") else None


@app.task(name="bench.run")
def run(number: int, hold_ms: int) -> None:
    """Say that it ran."""
    _journal.note(number)
    if hold_ms:
        time.sleep(hold_ms / 1000)


@worker_ready.connect
def _ready(**_: object) -> None:
    _journal.note(READY)
