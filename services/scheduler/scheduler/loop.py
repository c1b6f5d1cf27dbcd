"""The scheduler's own clockwork: passes of the caretaker at their intervals.

No job waits for these: they look after leases that ran out, waits that took too long, and
differences between the queue and the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from easel_kit.errors import DependencyDown
from scheduler.ports import FeedStore, HistoryStore, Observer
from scheduler.service.load import Meter
from scheduler.service.reconcile import Reconciler
from scheduler.service.upkeep import Caretaker

_PRUNE_EVERY_S = 600.0
_PASS_S = 60.0


async def every(
    interval_s: float,
    what: str,
    work: Callable[[], Awaitable[object]],
    observer: Observer,
    *,
    soon: asyncio.Event | None = None,
) -> None:
    """Does `work` now and `interval_s` after each end, or when `soon` is set, until cancelled.

    A store that does not answer costs one pass; any other error ends the process.
    """
    while True:
        try:
            async with asyncio.timeout(_PASS_S):
                await work()
        except (DependencyDown, TimeoutError) as error:
            observer.trouble(what, error)
        with suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await (soon or asyncio.Event()).wait()
        if soon is not None:
            soon.clear()


async def watch_leases(caretaker: Caretaker, observer: Observer, *, every_s: float) -> None:
    """Ends leases, overdue waits and pauses, and repeats orders that workers have not answered."""

    async def look() -> None:
        await caretaker.expire()
        await caretaker.fail_overdue()
        await caretaker.release()
        await caretaker.park()
        await caretaker.remind()

    await every(every_s, "expire", look, observer)


async def reconcile(
    reconciler: Reconciler, observer: Observer, *, every_s: float, soon: asyncio.Event
) -> None:
    """Makes the queue agree with the database, at the start, then again and again, and `soon`."""
    await every(every_s, "reconcile", reconciler.reconcile, observer, soon=soon)


async def measure(meter: Meter, observer: Observer, *, every_s: float) -> None:
    """Measures the lane for whoever scales it."""
    await every(every_s, "measure", meter.measure, observer)


async def prune(
    feed: FeedStore,
    history: HistoryStore,
    observer: Observer,
    *,
    events_kept_s: float,
    jobs_kept_s: float,
) -> None:
    """Removes old events, and jobs that have ended long ago."""

    async def remove() -> None:
        while await feed.prune(older_than_s=events_kept_s):
            pass
        while await history.remove(older_than_s=jobs_kept_s):
            pass

    await every(_PRUNE_EVERY_S, "prune", remove, observer)
