"""`easel.scheduler.v1.EventService`: the feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from easel.scheduler.v1 import events_pb2
from easel.scheduler.v1.events_pb2_grpc import EventServiceServicer
from scheduler.rpc import mapping
from scheduler.service.feed import Feed


class EventServicer(EventServiceServicer):
    """Thin: checks, calls, maps."""

    def __init__(self, feed: Feed) -> None:
        """The feed to read."""
        self._feed = feed

    async def Subscribe(  # noqa: N802
        self,
        request: events_pb2.SubscribeRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[events_pb2.SubscribeResponse]:
        """All events after the cursor in commit order, then each new one."""
        del context
        async for events in self._feed.follow(mapping.cursor(request.after)):
            yield events_pb2.SubscribeResponse(
                events=[mapping.event_to_wire(event) for event in events]
            )
