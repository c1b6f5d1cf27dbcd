"""The peers: public libraries, each with its producer and worker in `peers/<package>`."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.queue.looks import ListLook, Look, SqlLook, StreamLook
from bench.queue.plan import SILENCE_MS
from bench.queue.processes import Command, Failed, run_to_end
from bench.queue.servers import Servers
from bench.queue.systems import WorkerOrder
from bench.queue.venvs import python_of, versions

_ROOT = Path(__file__).parents[2]
_SCHEMA_S = 60.0


@dataclass(frozen=True, slots=True)
class Library:
    """What tells one peer from another."""

    package: str
    durable: bool
    setup: str
    priority: str
    look: Callable[[str], Awaitable[Look]]
    tuning: Mapping[str, str]
    """Settings that make a dead worker's jobs another's sooner."""
    tuned: str
    """The same in words."""
    priorities: Mapping[str, str] = field(default_factory=dict)
    """Settings without which it knows no priorities."""


async def _celery_look(url: str) -> Look:
    # the second key is where kombu keeps messages of priority 9
    return ListLook(url, ("bench", "bench\x06\x169"), "unacked")


async def _taskiq_look(url: str) -> Look:
    return StreamLook(url, "bench")


async def _pgqueuer_look(url: str) -> Look:
    return await SqlLook.opened(url, "SELECT count(*) FROM pgqueuer")


async def _procrastinate_look(url: str) -> Look:
    query = (
        "SELECT count(*) FROM procrastinate_jobs "
        "WHERE status IN ('todo', 'doing') AND task_name = 'run'"
    )
    return await SqlLook.opened(url, query)


_SILENCE_S = SILENCE_MS // 1000

CELERY = Library(
    "celery",
    durable=False,
    setup="acks_late, prefetch 1, no results, threads (its fastest pool here)",
    priority="priority steps on Redis",
    look=_celery_look,
    tuning={
        "TRANSPORT": json.dumps(
            {
                "visibility_timeout": _SILENCE_S,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            }
        )
    },
    tuned=f"visibility timeout {_SILENCE_S} s, looked at each second (longer jobs run twice)",
    priorities={"PRIORITIES": "1"},
)
TASKIQ = Library(
    "taskiq",
    durable=False,
    setup="Redis streams, acknowledged when executed, uvloop",
    priority="none",
    look=_taskiq_look,
    tuning={"SILENCE_MS": str(SILENCE_MS)},
    tuned=f"idle timeout {_SILENCE_S} s (longer jobs run twice)",
)
PGQUEUER = Library(
    "pgqueuer",
    durable=True,
    setup="durable tables, pool of 20 for submits, batches of half the concurrency, uvloop",
    priority="a number of each job",
    look=_pgqueuer_look,
    tuning={"SILENCE_MS": str(SILENCE_MS)},
    tuned=f"heartbeat timeout {_SILENCE_S} s",
)
PROCRASTINATE = Library(
    "procrastinate",
    durable=True,
    setup="pool of 20, notifications, uvloop",
    priority="a number of each job",
    look=_procrastinate_look,
    tuning={"SILENCE_MS": str(SILENCE_MS)},
    tuned=f"stalled after {_SILENCE_S} s, its recipe for stalled jobs every 5 s",
)


class Rival:
    """One installation of a peer: `systems.System`."""

    def __init__(
        self,
        library: Library,
        *,
        redis_database: int = 0,
        name: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are handed to its producer and worker, as in `Library.tuning`."""
        self.name = name or library.package
        self.library = library
        self._redis_database = redis_database
        self._settings = dict(settings or {})
        self._python = Path(sys.executable)
        self._look: Look | None = None

    @property
    def facts(self) -> dict[str, str]:
        """See `System`."""
        package = self.library.package
        pinned = [line for line in versions(package) if line.startswith(package)]
        return {
            "version": ", ".join(line.replace("==", " ") for line in pinned),
            "durable": "yes" if self.library.durable else "no",
            "setup": self.library.setup,
            "priority": self.library.priority,
            "kill": self.library.tuned,
        }

    @property
    def replicas(self) -> Sequence[Command]:
        """See `System`: a library needs none."""
        return ()

    async def install(self, folder: Path, servers: Servers) -> None:
        """See `System`."""
        self._python = await python_of(self.library.package, folder.parent / "venvs")
        if self.library.durable:
            url = await servers.create_database(self.name)
        else:
            url = servers.redis_url(self._redis_database)
        self._settings["URL"] = url
        if self.library.durable:
            log = folder / f"{self.name}.log"
            await run_to_end(self._command("schema"), log, within_s=_SCHEMA_S)
        self._look = await self.library.look(url)

    async def close(self) -> None:
        """See `System`."""
        if self._look is not None:
            await self._look.close()

    def producer(self) -> Command:
        """See `System`."""
        return self._command("producer")

    def worker(self, order: WorkerOrder) -> Command:
        """See `System`."""
        return self._command(
            "worker",
            NAME=order.name,
            JOURNAL=str(order.journal),
            CONCURRENCY=str(order.concurrency),
        )

    def _command(self, role: str, **more: str) -> Command:
        module = f"bench.queue.peers.{self.library.package}.{role}"
        env = {f"BENCH_{name}": value for name, value in (self._settings | more).items()}
        # the tree's root alone: whatever else is on our path would lend it our packages
        return Command([str(self._python), "-m", module], env | {"PYTHONPATH": str(_ROOT)})

    async def outstanding(self) -> int:
        """See `System`."""
        if self._look is None:
            raise Failed(f"{self.name} is not installed")
        return await self._look.outstanding()
