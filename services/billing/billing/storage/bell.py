"""Wakes whoever waits for work in this process, one waiter for each piece of work."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class Bell:
    """Rung once for each piece of work; a ring that nobody waits for is kept until `heard`."""

    def __init__(self) -> None:
        """Silent."""
        self._is_rung = False
        self._waiting: deque[asyncio.Event] = deque()

    def ring(self) -> None:
        """There is something to do: one of those who wait goes to look."""
        self._is_rung = True
        if self._waiting:
            self._waiting.popleft().set()

    def heard(self) -> None:
        """Somebody goes to look: what was rung for so far is seen."""
        self._is_rung = False

    async def wait(self, *, within_s: float) -> None:
        """Returns after a ring that nobody has heard, or after the time."""
        if self._is_rung:
            return
        waiter = asyncio.Event()
        self._waiting.append(waiter)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await waiter.wait()
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiter)
