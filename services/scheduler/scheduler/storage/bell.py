"""Tells readers of the feed, in this process and all others, that it may have grown.

A NOTIFY inside each transaction would make all commits wait for one lock, so one connection sends
it afterwards, once for all that happened meanwhile. A ring that is lost with a process costs the
readers their slow re-check, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from easel_kit.db import Pool, connection
from easel_kit.errors import DependencyDown
from easel_kit.log import get_logger

_CHANNEL = "easel_scheduler_events"
_RECONNECT_S = 0.5
_PROBE_S = 5.0
# Rings within this time after one that was sent are sent as one.
_TOLD_S = 0.01

_log = get_logger(__name__)


class _Ear:
    """One reader's side."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def rung(self, *, within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._event.wait()
        self._event.clear()


class PostgresBell:
    """`ports.FeedBell` on LISTEN and NOTIFY."""

    def __init__(self, pool: Pool, url: str) -> None:
        """Sends through the pool, listens on a connection of its own to `url`."""
        self._pool = pool
        self._url = url
        self._ears: set[_Ear] = set()
        self._grown = asyncio.Event()

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[_Ear]:
        """See `ports.FeedBell`."""
        ear = _Ear()
        self._ears.add(ear)
        try:
            yield ear
        finally:
            self._ears.discard(ear)

    def ring(self) -> None:
        """The feed has grown by a commit of this process."""
        self._ring_here()
        self._grown.set()

    def _ring_here(self) -> None:
        for ear in self._ears:
            ear.ring()

    async def tell(self) -> None:
        """Tells the other processes, until cancelled."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            try:
                async with connection(self._pool) as db:
                    await db.execute("SELECT pg_notify($1, '')", _CHANNEL)
                await asyncio.sleep(_TOLD_S)
            except DependencyDown:
                await asyncio.sleep(_RECONNECT_S)

    async def listen(self) -> None:
        """Hears the other processes, until cancelled."""
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("feed.unheard", reason=type(error).__name__)
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self) -> None:
        db: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self._url, timeout=5.0)
        try:
            await db.add_listener(_CHANNEL, lambda *_: self._ring_here())
            self._ring_here()  # what was rung while nobody listened
            while True:
                await asyncio.sleep(_PROBE_S)
                await db.execute("SELECT 1", timeout=5.0)
        finally:
            db.terminate()
