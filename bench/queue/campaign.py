"""One whole run: all systems in each round, in an order that rotates, then priority and kills."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bench.queue.easel.system import Easel
from bench.queue.measure import Result, rank, take_turn
from bench.queue.plan import Plan
from bench.queue.recovery import Blow, kill, recoveries, stop
from bench.queue.rivals import CELERY, PGQUEUER, PROCRASTINATE, TASKIQ, Library, Rival
from bench.queue.servers import Servers
from bench.queue.systems import System

EASEL = ("easel", "easel-2", "easel-in-process")
"""One replica, two replicas, and one whose caller is a replica itself."""
_LIBRARIES = (CELERY, TASKIQ, PGQUEUER, PROCRASTINATE)
NAMES = (*EASEL, *(library.package for library in _LIBRARIES))
_CELERY_COPIES = 3
# which of Redis's numbered databases is whose; Easel has the first
_REDIS = {"celery": 1, "taskiq": 2}
_FIRST_FREE_REDIS = 3

Say = Callable[[str], None]


def systems(names: Sequence[str]) -> list[System]:
    """Those of `NAMES` that are wanted, as they are measured in rounds."""
    known: list[System] = [
        Easel("easel", replicas=1, door="grpc"),
        Easel("easel-2", replicas=2, door="grpc"),
        Easel("easel-in-process", replicas=1, door="in-process"),
        *(Rival(library, redis_database=_REDIS.get(library.package, 0)) for library in _LIBRARIES),
    ]
    return [system for system in known if system.name in names]


class Campaign:
    """Measures systems on one pair of servers and keeps what was found."""

    def __init__(self, servers: Servers, folder: Path, plan: Plan, say: Say) -> None:
        """Logs go to folder; `say` is told how far it is."""
        self._servers = servers
        self._folder = folder
        self._plan = plan
        self._say = say
        self._databases = iter(range(_FIRST_FREE_REDIS, 16))
        self._open: list[System] = []
        self._starting = asyncio.Lock()
        self.results: dict[str, Result] = {}
        self.facts: dict[str, dict[str, str]] = {}

    async def run(self, names: Sequence[str]) -> None:
        """The whole of it; what fails is noted and the rest goes on."""
        try:
            ready = []
            for system in systems(names):
                self.facts[system.name] = system.facts
                self.results[system.name] = Result()
                if await self._install(system, system.name):
                    ready.append(system)
            for number in range(self._plan.rounds):
                await self._round(number, ready)
            await self._priorities(ready)
            await self._recoveries(ready)
        finally:
            for system in self._open:
                await system.close()

    async def _install(self, system: System, name: str) -> bool:
        self._say(f"install {system.name}")
        return await self._try(name, "install", self._opened(system))

    async def _opened(self, system: System) -> None:
        await system.install(self._folder, self._servers)
        self._open.append(system)

    async def _try(self, name: str, what: str, work: Awaitable[None]) -> bool:
        try:
            await work
        except Exception as error:  # noqa: BLE001 (the supervisor of one system: reported)
            text = f"{what}: {type(error).__name__}: {error}"
            self._say(f"{name}: {text}")
            self.results[name].trouble.append(text)
            return False
        return True

    async def _round(self, number: int, ready: Sequence[System]) -> None:
        turn = number % max(1, len(ready))
        for system in (*ready[turn:], *ready[:turn]):
            result = self.results[system.name]
            work = take_turn(system, self._servers, self._folder, self._plan, result)
            if await self._try(system.name, f"round {number + 1}", work):
                rate = result.jobs_per_s[-1]
                self._say(
                    f"round {number + 1} of {self._plan.rounds}: {system.name}: "
                    f"{result.submits_per_s[10][-1]:.0f} submits/s at 10 in flight, "
                    f"{rate:.0f} jobs/s end to end"
                )

    async def _priorities(self, ready: Sequence[System]) -> None:
        for system in ready:
            if system.name == "easel-in-process":
                continue  # the same queue as with the other door
            ranked = system
            if isinstance(system, Rival) and system.library.priorities:
                ranked = self._copy(system.library, "priorities", system.library.priorities)
                if not await self._install(ranked, system.name):
                    continue
            self._say(f"priority: {system.name}")
            result = self.results[system.name]
            work = rank(ranked, self._servers, self._folder, self._plan, result)
            await self._try(system.name, "priority", work)

    # --- kills

    async def _recoveries(self, ready: Sequence[System]) -> None:
        ours = [s for s in ready if isinstance(s, Easel) and s.name != "easel-in-process"]
        for system in ours:
            result = self.results[system.name]
            await self._strike(system, system.name, kill, self._plan.kills, result.recoveries_s)
        # from here on all wait for timers most of the time: side by side
        async with asyncio.TaskGroup() as group:
            for system in ours if self._plan.hung else ():
                hung_s = self.results[system.name].hung_s
                group.create_task(self._strike(system, system.name, stop, self._plan.hung, hung_s))
            for peer in ready:
                if isinstance(peer, Rival):
                    group.create_task(self._strike_peer(peer))

    async def _strike_peer(self, peer: Rival) -> None:
        library, result = peer.library, self.results[peer.name]
        copies = [self._copy(library, f"tuned-{n}", library.tuning) for n in self._copies(library)]
        installed = [copy for copy in copies if await self._install(copy, peer.name)]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._strike(peer, peer.name, kill, 1, result.untuned_s))
            for copy in installed:
                group.create_task(
                    self._strike(copy, peer.name, kill, self._plan.kills, result.recoveries_s)
                )

    @staticmethod
    def _copies(library: Library) -> range:
        return range(_CELERY_COPIES if library is CELERY else 1)

    async def _strike(
        self, system: System, name: str, blow: Blow, count: int, found: list[float | None]
    ) -> None:
        what = "kill" if blow is kill else "hang"
        self._say(f"{what} workers of {system.name}")

        async def work() -> None:
            found.extend(
                await recoveries(
                    system,
                    self._servers,
                    self._folder,
                    self._plan,
                    blow=blow,
                    count=count,
                    starting=self._starting,
                    until_s=math.inf if isinstance(system, Easel) else self._plan.peer_kills_s,
                )
            )

        if await self._try(name, what, work()):
            self._say(f"{what} workers of {system.name}: done")

    def _copy(self, library: Library, suffix: str, settings: Mapping[str, str]) -> Rival:
        """The peer with other settings, on a store of its own."""
        return Rival(
            library,
            name=f"{library.package}-{suffix}",
            settings=settings,
            redis_database=0 if library.durable else next(self._databases),
        )
