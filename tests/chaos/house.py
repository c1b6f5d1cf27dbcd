"""The processes of a run: Postgres, Redis, two schedulers, light workers; all come back if killed.

Whoever wants to hurt one asks for it by name and kind; `Part` starts it again by itself.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from easel_local.ports import free_port
from easel_local.postgres import Postgres
from easel_local.process import Child, StartFailed, last_words
from easel_local.redis import Redis
from easel_local.runner.database import prepare_database, service_url
from tests.chaos.records import Back, Book, Fell

LEASE_TTL_S = 2.0
MAX_ATTEMPTS = 3
REPLICAS = 2
_PASSWORD = "chaos"
_START_S, _STOP_S, _POLL_S = 60.0, 5.0, 0.02
_TIMES = {
    "LEASE_TTL_S": LEASE_TTL_S,
    "HEARTBEAT_S": 0.5,
    "RECONNECT_GRACE_S": 0.3,
    "EXPIRE_EVERY_S": 0.2,
    "RECONCILE_EVERY_S": 1.0,
    "FEED_RECHECK_S": 1.0,
    "RETRY_BASE_S": 0.3,
    "UNFIT_BASE_S": 0.3,
    "UNFIT_CAP_S": 2.0,
    "PARK_MAX_S": 1.0,
    "GRACE_S": 1.0,
}


class Part:
    """One process under supervision."""

    def __init__(
        self,
        kind: str,
        name: str,
        start: Callable[[], Awaitable[Child]],
        is_ready: Callable[[], bool],
        *,
        book: Book,
        chance: random.Random,
    ) -> None:
        """`start` answers with the running process; `is_ready` whether it serves."""
        self.kind = kind
        self.name = name
        self.ready = asyncio.Event()
        self.ready_at = 0.0
        """Since when, on the monotonic clock."""
        self.hung = False
        self.restarts = 0
        self._start = start
        self._is_ready = is_ready
        self._book = book
        self._chance = chance
        self._child: Child | None = None
        self._killed = 0

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last."""
        assert self._child is not None
        return self._child.pid

    def kill(self, number: int) -> None:
        """kill -9; `number` of the kill is told when it is back."""
        assert self._child is not None
        self._killed = number
        self.ready.clear()
        self._child.send(signal.SIGKILL)

    def freeze(self) -> None:
        """It hangs, from now on."""
        assert self._child is not None
        self.hung = True
        self._child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._child is not None
        self._child.send(signal.SIGCONT)
        self.hung = False

    async def run(self) -> None:
        """Starts it, and again whenever it has ended, until cancelled."""
        try:
            while True:
                await self._live()
                await asyncio.sleep(self._chance.choice((0.0, 0.1, 0.5, 1.0)))
                self.restarts += 1
        finally:
            if self._child is not None:
                self._child.send(signal.SIGCONT)
                await self._child.stop(signal.SIGTERM, grace_s=_STOP_S)

    async def _live(self) -> None:
        try:
            child = self._child = await self._start()
        except StartFailed:  # what it left behind is not gone yet
            await asyncio.sleep(_POLL_S)
            return
        ended = asyncio.ensure_future(child.wait())
        while not ended.done() and not self._is_ready():
            await asyncio.wait([ended], timeout=_POLL_S)
        was_ready = not ended.done()
        if was_ready:
            number, self._killed = self._killed, 0
            if number:
                self._book.write(Back(time.time(), number, self.kind, self.name))
            self.ready_at = time.monotonic()
            self.ready.set()
        status = await ended
        self.ready.clear()
        if not self._killed:
            self._book.write(Fell(time.time(), self.name, status, was_ready))


class House:
    """All parts of a run."""

    def __init__(self, folder: Path, book: Book, *, seed: int, workers: int, durable: bool) -> None:
        """Prepares everything in `folder`; nothing runs yet.

        Without `durable` Postgres does not wait for the disk: what it has written outlives its
        processes all the same, only the machine may not fail.
        """
        self.folder = folder
        self._book = book
        self._seed = seed
        self._chance = random.Random(f"{seed}/house")
        self.postgres = Postgres(folder / "postgres", durable=durable)
        self.redis = Redis(folder / "redis")
        self.doors = [f"127.0.0.1:{free_port()}" for _ in range(REPLICAS)]
        self.parts: dict[str, Part] = {}
        self._workers = workers

    @property
    def database_url(self) -> str:
        """As the scheduler's own role."""
        return service_url(self.postgres.url, "scheduler", _PASSWORD)

    def of_kind(self, kind: str) -> list[Part]:
        """All parts of a kind: postgres, redis, scheduler, worker."""
        return [part for part in self.parts.values() if part.kind == kind]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts all, in order; ends all on leaving."""
        tasks: list[asyncio.Task[None]] = []

        async def begin(*parts: Part) -> None:
            for part in parts:
                self.parts[part.name] = part
                tasks.append(asyncio.create_task(part.run(), name=part.name))
            async with asyncio.timeout(_START_S):
                await asyncio.gather(*(part.ready.wait() for part in parts))

        try:
            await begin(*self._stores())
            await prepare_database(self.postgres.url, {"scheduler": _PASSWORD})
            await self._migrate()
            await begin(*(self._scheduler(number) for number in range(REPLICAS)))
            await begin(*(self._worker(number) for number in range(self._workers)))
            yield
        finally:
            for task in reversed(tasks):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def wait_ready(self) -> None:
        """Until everything runs."""
        async with asyncio.timeout(_START_S):
            for part in self.parts.values():
                await part.ready.wait()

    def _stores(self) -> list[Part]:
        async def postgres() -> Child:
            await self.postgres.start()
            assert self.postgres.child is not None
            return self.postgres.child

        async def redis() -> Child:
            await self.redis.start()
            assert self.redis.child is not None
            return self.redis.child

        return [
            self._part("postgres", "postgres", postgres, lambda: True),
            self._part("redis", "redis", redis, lambda: True),
        ]

    def _part(
        self,
        kind: str,
        name: str,
        start: Callable[[], Awaitable[Child]],
        is_ready: Callable[[], bool],
    ) -> Part:
        return Part(kind, name, start, is_ready, book=self._book, chance=self._chance)

    def _scheduler(self, number: int) -> Part:
        name, door = f"scheduler-{number}", self.doors[number]
        env = {
            **self._scheduler_env(),
            "SCHEDULER_LISTEN": door,
            **{f"SCHEDULER_{key}": str(value) for key, value in _TIMES.items()},
        }

        async def start() -> Child:
            return Child(
                [sys.executable, "-m", "scheduler"], log=self.folder / f"{name}.log", env=env
            )

        return self._part("scheduler", name, start, lambda: _listens(door))

    def _scheduler_env(self) -> dict[str, str]:
        return {
            **os.environ,  # noqa: TID251 (a child's environment)
            "SCHEDULER_DATABASE_URL": self.database_url,
            "SCHEDULER_REDIS_URL": self.redis.url,
            "SCHEDULER_MAX_ATTEMPTS": str(MAX_ATTEMPTS),
            "SCHEDULER_LOG_LEVEL": "warning",
        }

    def _worker(self, number: int) -> Part:
        name = f"worker-{number}"
        slots = 1 + number % 3
        argv = [sys.executable, "-m", "tests.chaos.worker", name, str(slots), str(self._seed)]
        folder = self.folder / "workers"
        folder.mkdir(exist_ok=True)

        async def start() -> Child:
            return Child([*argv, str(folder), *self.doors], log=self.folder / f"{name}.log")

        def has_begun() -> bool:
            return any(folder.glob(f"{name}-{part.pid}.jsonl"))

        part = self._part("worker", name, start, has_begun)
        return part

    async def _migrate(self) -> None:
        log = self.folder / "migrate.log"
        child = Child([sys.executable, "-m", "scheduler", "migrate"], log=log,
                      env=self._scheduler_env())  # fmt: skip
        if await asyncio.wait_for(child.wait(), _START_S):
            raise StartFailed(f"the schema was not made:\n{last_words(log)}")


def _listens(door: str) -> bool:
    host, _, port = door.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, int(port))) == 0
