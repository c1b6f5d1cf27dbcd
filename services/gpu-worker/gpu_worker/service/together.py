"""Several waits at once, and not too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_Result = TypeVar("_Result")


async def together(
    calls: Iterable[Callable[[], Awaitable[_Result]]], *, at_once: int
) -> list[_Result]:
    """The answers, in the order of the calls; the first failure ends the others and is raised."""
    gate = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Awaitable[_Result]]) -> _Result:
        async with gate:
            return await call()

    tasks = [asyncio.ensure_future(one(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
