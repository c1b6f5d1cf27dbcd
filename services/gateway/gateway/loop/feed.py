"""Follows the scheduler's event feed and keeps the library in step with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from prometheus_client import Counter

from easel_kit.errors import DomainError, OutOfRange
from easel_kit.log import get_logger
from easel_kit.telemetry import span
from gateway.domain.library import Cursor, JobEvent, pictures_of_event
from gateway.ports import JobFeed, LibraryFeed

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 2.0

_log = get_logger(__name__)
_events = Counter("easel_feed_events", "Events applied to the library.", ["state"])
_breaks = Counter("easel_feed_breaks", "Ends of the event feed, for whatever reason.")


async def follow_feed(feed: JobFeed, library: LibraryFeed) -> None:
    """Applies every event once, in order, over losses of either side. Never ends.

    Where the feed no longer keeps what comes after our place, it begins with what there is: the
    pictures in between enter the library when their jobs are looked at.
    """
    pause_s = _FIRST_PAUSE_S
    lost_place = False
    while True:
        try:
            cursor = Cursor() if lost_place else await library.cursor()
            lost_place = False
            async with aclosing(feed.subscribe(cursor)) as batches:
                async for events in batches:
                    await _apply(library, events)
                    pause_s = _FIRST_PAUSE_S
            _log.info("feed.ended")
        except OutOfRange as error:
            _log.error("feed.gap_found", detail=str(error))
            lost_place = True
        except DomainError as error:
            _log.warning("feed.broken", reason=type(error).__name__, detail=str(error))
        _breaks.inc()
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LAST_PAUSE_S)


async def _apply(library: LibraryFeed, events: Sequence[JobEvent]) -> None:
    pictures = [picture for event in events for picture in pictures_of_event(event)]
    await library.apply(pictures, max(event.cursor for event in events))
    for event in events:
        _events.labels(event.state).inc()
        if event.state.has_ended:
            with span("library.record", traceparent=event.traceparent):
                _log.info(
                    "job.recorded",
                    job_id=event.job_id,
                    user_id=event.user_id,
                    state=event.state,
                    images=len(event.images),
                )
