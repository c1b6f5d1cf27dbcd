"""Measures the lane again and again and tells who scales it."""

from __future__ import annotations

from easel_kit.errors import DependencyDown
from scheduler.domain.estimate import Pace
from scheduler.domain.load import readings
from scheduler.domain.worker import WorkerStatus
from scheduler.ports import LoadStore, Observer, Publisher, Registry, Upkeep


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
