"""The workers of the webhook inbox, and its figures."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter, Gauge

from billing.domain.inbox import EventState
from billing.loop.pause import Pause
from billing.ports.inbox import Inbox
from billing.service.inbox import Answer, InboxWorker, Look
from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown, DomainError
from easel_kit.ids import new_id
from easel_kit.log import get_logger
from easel_kit.telemetry import span

_log = get_logger(__name__)
_looks = Counter("easel_billing_inbox_looks", "Looks at customers, by outcome.", ["outcome"])
_answered = Counter("easel_billing_inbox_answered", "Webhooks answered, by outcome.", ["outcome"])
_events = Gauge("easel_billing_inbox_events", "Webhooks in the inbox, by state.", ["state"])
_oldest = Gauge("easel_billing_inbox_oldest_seconds", "Age of the oldest webhook still open.")


async def work_inbox(worker: InboxWorker, *, workers: int, poll_s: float) -> None:
    """Answers webhooks for ever with so many looks at a time.

    A new event of this process wakes it at once; every `poll_s` seconds it finds what other
    processes have kept, what is due again and what a killed worker has left behind.
    """
    async with asyncio.TaskGroup() as tasks:
        for _ in range(workers):
            tasks.create_task(_work(worker, new_id("wrk"), poll_s))


async def measure_inbox(inbox: Inbox, clock: Clock, *, interval_s: float) -> None:
    """Keeps the figures current, for ever."""
    while True:
        try:
            figures = await inbox.figures()
        except DependencyDown as error:
            _log.warning("inbox.unmeasured", error=str(error))
        except Exception:  # noqa: BLE001 (figures are old until the next round)
            _log.exception("inbox.unmeasured")
        else:
            for state in EventState:
                _events.labels(state.value).set(figures.counts.get(state, 0))
            oldest = figures.oldest_open_at
            age = 0.0 if oldest is None else (clock.now() - oldest).total_seconds()
            _oldest.set(max(age, 0.0))
        await asyncio.sleep(interval_s)


async def _work(worker: InboxWorker, owner: str, poll_s: float) -> None:
    pause = Pause()
    while True:
        try:
            lease = await worker.take(owner)
            if lease is not None:
                with span("billing.answer_webhooks"):
                    _report(await worker.answer(lease))
        except DependencyDown as error:
            _log.warning("inbox.postponed", error=str(error))
            await pause.wait()
        except Exception:  # noqa: BLE001 (its lease ends by its time, and another worker goes on)
            _log.exception("inbox.failed")
            await pause.wait()
        else:
            pause.reset()
            if lease is None:
                await worker.kept(within_s=poll_s)


def _report(look: Look) -> None:
    _looks.labels(look.answer.value).inc()
    _answered.labels(look.answer.value).inc(look.events)
    fields: dict[str, object] = {"customer_id": look.customer_id, "events": look.events}
    if look.error is not None:
        fields["error"] = type(look.error).__name__
        if not isinstance(look.error, DomainError):  # a fault of ours: where it happened
            fields["exc_info"] = look.error
    if look.dead:
        _answered.labels("dead").inc(look.dead)
        _log.error("webhooks.dead", dead=look.dead, **fields)
    elif look.answer in {Answer.FAILED, Answer.LOST}:
        _log.warning(f"webhooks.{look.answer.value}", **fields)
    else:
        _log.info(f"webhooks.{look.answer.value}", **fields)
