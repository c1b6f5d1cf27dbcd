"""How long a caller waits for the queue, whose answer it can do without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from easel_kit.errors import DependencyDown
from scheduler.ports import Observer

# Of a caller's deadline of some seconds, what the queue may take.
QUEUE_WAIT_S = 1.0


@asynccontextmanager
async def briefly(what: str, observer: Observer) -> AsyncIterator[None]:
    """Ends the block after a while or when the queue is away, and tells so; goes on behind it."""
    try:
        async with asyncio.timeout(QUEUE_WAIT_S):
            yield
    except (DependencyDown, TimeoutError) as error:
        observer.trouble(what, error)
