"""Streams that end when the process does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

Item = TypeVar("Item")


async def until(
    stop: asyncio.Event, items: AsyncGenerator[Item, None]
) -> AsyncGenerator[Item, None]:
    """The items, until they end or `stop` is set; closes them whichever way it is left."""
    stopping = asyncio.ensure_future(stop.wait())
    following = asyncio.ensure_future(anext(items))
    try:
        while True:
            await asyncio.wait({stopping, following}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return
            try:
                item = following.result()
            except StopAsyncIteration:
                return
            yield item
            following = asyncio.ensure_future(anext(items))
    finally:
        stopping.cancel()
        following.cancel()
        await asyncio.gather(stopping, following, return_exceptions=True)
        await items.aclose()
