"""Our scheduler: its replicas as a stack runs them, with the settings they have by default."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.queue.looks import SqlLook
from bench.queue.processes import Command, Failed, run_to_end
from bench.queue.servers import Servers
from bench.queue.systems import WorkerOrder
from easel_local.ports import free_port

_SCHEMA_S = 60.0
_OPEN_JOBS = "SELECT count(*) FROM scheduler.jobs WHERE finished_at IS NULL"
DOORS = {
    "grpc": "submits over gRPC",
    "in-process": "submits through the use case in the caller's process",
}


class Easel:
    """One installation of the scheduler: `systems.System`."""

    def __init__(self, name: str, *, replicas: int, door: str) -> None:
        """`door` is how jobs are submitted, a key of `DOORS`; a lane has the system's name."""
        self.name = name
        self._door = door
        self._addresses = [f"127.0.0.1:{free_port()}" for _ in range(replicas)]
        self._env: dict[str, str] = {}
        self._look: SqlLook | None = None

    @property
    def facts(self) -> dict[str, str]:
        """See `System`."""
        return {
            "version": "easel of this tree",
            "durable": "yes",
            "setup": f"{len(self._addresses)} replica(s), {DOORS[self._door]}, worker over gRPC",
            "priority": "fair shares by weight, 16 to 1",
            "kill": "by default",
        }

    @property
    def replicas(self) -> Sequence[Command]:
        """See `System`."""
        return [
            Command([sys.executable, "-m", "scheduler"], self._env | {"SCHEDULER_LISTEN": address})
            for address in self._addresses
        ]

    async def install(self, folder: Path, servers: Servers) -> None:
        """See `System`."""
        url = await servers.create_database(self.name)
        self._env = {
            "SCHEDULER_DATABASE_URL": url,
            "SCHEDULER_REDIS_URL": servers.redis_url(0),
            "SCHEDULER_LANE": self.name,
            "SCHEDULER_LOG_LEVEL": "warning",  # as its peers: they log each job only when asked
        }
        migrate = Command([sys.executable, "-m", "scheduler", "migrate"], self._env)
        await run_to_end(migrate, folder / f"{self.name}.log", within_s=_SCHEMA_S)
        self._look = await SqlLook.opened(url, _OPEN_JOBS)

    async def close(self) -> None:
        """See `System`."""
        if self._look is not None:
            await self._look.close()

    def producer(self) -> Command:
        """See `System`."""
        module = "bench.queue.easel.producer"
        targets = json.dumps(self._addresses)
        return Command([sys.executable, "-m", module, self._door, targets], self._env)

    def worker(self, order: WorkerOrder) -> Command:
        """See `System`: on the last replica, so that with two a half of the jobs crosses over."""
        options = {
            "address": self._addresses[-1],
            "lane": self.name,
            "name": order.name,
            "journal": str(order.journal),
            "slots": str(order.concurrency),
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        return Command([sys.executable, "-m", "bench.queue.easel.worker", *words])

    async def outstanding(self) -> int:
        """See `System`."""
        if self._look is None:
            raise Failed(f"{self.name} is not installed")
        return await self._look.outstanding()
