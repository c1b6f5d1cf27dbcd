"""Fills the queue again from the database after its store was flushed, replaced or failed over.

Whoever meets a closed queue says so here; every replica then tries, one does it, and another takes
its place should it die. Safety rests on the token of each rebuild, which every step checks in the
store; the lock only spares the work of doing it twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from easel_kit.clock import Clock
from easel_kit.errors import Conflict, DependencyDown
from scheduler.domain.job import JobState
from scheduler.domain.line import Admission
from scheduler.ports import AttemptStore, Epoch, Line, Locks, Observer

_PAGE = 2_000
_LOCK = "rebuild"
_LOCK_WAIT_S = 5.0
_RETRY_S = 0.1


class Rebuilder:
    """Sees to it that the queue is open."""

    def __init__(
        self,
        *,
        attempts: AttemptStore,
        line: Line,
        epoch: Epoch,
        locks: Locks,
        observer: Observer,
        clock: Clock,
        doubted: asyncio.Event,
        on_open: Callable[[], None],
        unwritten_s: float,
    ) -> None:
        """Looks whenever `doubted` is set.

        Claims are written down within `unwritten_s`, by a replica and a database that are well.
        `on_open` is called in the replica that did it: jobs may have come in meanwhile.
        """
        self._attempts = attempts
        self._line = line
        self._epoch = epoch
        self._locks = locks
        self._observer = observer
        self._clock = clock
        self._on_open = on_open
        self._unwritten_s = unwritten_s
        self._doubted = doubted
        self._doubted.set()
        self._opened = asyncio.Event()

    async def opened(self, *, within_s: float) -> None:
        """Returns once the queue has been seen open, or after the time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._opened.wait()

    def doubt(self) -> None:
        """The queue may be closed: has it looked at, at once."""
        self._doubted.set()

    async def run(self) -> None:
        """Opens the queue now and whenever it is in doubt, until cancelled."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            try:
                while not await self._epoch.is_open():
                    await self.rebuild()
                self._opened.set()
            except (DependencyDown, Conflict) as error:
                self._observer.trouble("rebuild", error)
                await asyncio.sleep(_RETRY_S)
                self._doubted.set()

    async def rebuild(self) -> None:
        """Fills and opens the queue, or waits a while for the replica that does.

        Raises:
            Conflict: the queue was lost once more meanwhile.
            DependencyDown: a store does not answer.
        """
        async with self._locks.hold(_LOCK, wait_s=_LOCK_WAIT_S) as alone:
            token = await self._epoch.begin(alone=alone)
            if token is None:
                return
            began = self._clock.monotonic()
            await self._epoch.sweep(token)
            if await self._page(JobState.QUEUED, 0):
                # what replicas claimed just before the loss is on its way into the database; read
                # too early, those jobs would be lent once more
                await asyncio.sleep(self._unwritten_s)
            running, _ = await self._copy(token, JobState.RUNNING)  # slots before who waits
            waiting, last = await self._copy(token, JobState.QUEUED)
            await self._epoch.open(token)
        took_s = self._clock.monotonic() - began
        self._observer.rebuilt(running + waiting, took_s=took_s)
        while late := await self._page(JobState.QUEUED, last):  # refused while it was closed
            await self._line.admit(late)
            last = late[-1].place
        self._on_open()

    async def _copy(self, token: str, state: JobState) -> tuple[int, int]:
        """Restores all open jobs in this state; answers how many, and the last one's place."""
        count, last = 0, 0
        page = await self._page(state, last)
        while page:
            last = page[-1].place
            count += len(page)
            # the next page is read while this one is written
            _, page = await asyncio.gather(
                self._epoch.restore(token, page), self._page(state, last)
            )
        return count, last

    async def _page(self, state: JobState, after: int) -> list[Admission]:
        return await self._attempts.open_jobs(state, after=after, limit=_PAGE)
