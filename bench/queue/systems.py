"""What a system under test is: what to start for it, and how to see that nothing is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.queue.processes import Command
from bench.queue.servers import Servers


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """A worker that is wanted."""

    name: str
    journal: Path
    concurrency: int
    """Jobs that it may run at once."""


class System(Protocol):
    """A queue under test."""

    @property
    def name(self) -> str:
        """Short, unique in a run."""
        ...

    @property
    def facts(self) -> dict[str, str]:
        """What a reader must know: version, where jobs are kept, how it is set up."""
        ...

    @property
    def replicas(self) -> Sequence[Command]:
        """Servers of its own, beside Postgres and Redis."""
        ...

    async def install(self, folder: Path, servers: Servers) -> None:
        """Makes its environment, database and tables.

        Raises:
            Failed: it cannot be had here.
        """
        ...

    async def close(self) -> None:
        """Lets go of what `install` opened."""
        ...

    def producer(self) -> Command:
        """A process that submits."""
        ...

    def worker(self, order: WorkerOrder) -> Command:
        """A process that runs jobs."""
        ...

    async def outstanding(self) -> int:
        """Jobs that are not finished, or whose end is not recorded yet."""
        ...
