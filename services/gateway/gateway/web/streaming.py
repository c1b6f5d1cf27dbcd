"""Answers that are written while another service is read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing


async def all_of(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """What was read before the answer began, then the rest, which is closed whatever happens."""
    async with aclosing(rest):
        yield first
        async for part in rest:
            yield part
