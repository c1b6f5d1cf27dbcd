"""How full the lane is: measured again and again for who scales it, looked up for operators."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown
from scheduler.domain.estimate import Pace
from scheduler.domain.load import Load, readings
from scheduler.domain.worker import WorkerStatus
from scheduler.ports import LoadStore, Observer, Publisher, Registry, Upkeep
from scheduler.service.briefly import briefly


class Meter:
    """One look at the lane; the loop calls it again and again."""

    def __init__(
        self,
        store: LoadStore,
        registry: Registry,
        upkeep: Upkeep,
        observer: Observer,
        publisher: Publisher | None,
    ) -> None:
        """`publisher` is told besides `observer`; None: nobody is."""
        self._store = store
        self._registry = registry
        self._upkeep = upkeep
        self._observer = observer
        self._publisher = publisher

    async def measure(self) -> None:
        """Counts what is open, looks who works, and tells both.

        While the queue is away nobody is seen working and nothing measured: the lane shows its
        whole line and no worker.

        Raises:
            DependencyDown: the database or the publisher's service does not answer.
        """
        load = await self._store.load()
        workers: list[WorkerStatus] = []
        pace = Pace()
        try:
            workers = await self._registry.workers()
            pace = await self._upkeep.pace()
        except DependencyDown as error:
            self._observer.trouble("measure", error)
        found = readings(load, workers, pace)
        self._observer.measured(load, found)
        if self._publisher is not None:
            await self._publisher.publish(found)


_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Sight:
    """The lane as an operator sees it."""

    load: Load
    workers: int
    slots: int


class Overview:
    """Operators' look at the lane."""

    def __init__(
        self, store: LoadStore, registry: Registry, observer: Observer, clock: Clock
    ) -> None:
        """However many look, the database counts once a second."""
        self._store = store
        self._registry = registry
        self._observer = observer
        self._clock = clock
        self._seen: tuple[float, Sight] | None = None
        self._looking = asyncio.Lock()

    async def look(self) -> Sight:
        """The line and who works on it; while the queue is away, nobody is seen working.

        Raises:
            DependencyDown: the database does not answer.
        """
        async with self._looking:
            now = self._clock.monotonic()
            if self._seen is None or now - self._seen[0] > _FRESH_S:
                self._seen = (now, await self._count())
            return self._seen[1]

    async def _count(self) -> Sight:
        load = await self._store.load()
        workers: list[WorkerStatus] = []
        async with briefly("overview", self._observer):
            workers = await self._registry.workers()
        return Sight(load, len(workers), sum(status.worker.slots for status in workers))
