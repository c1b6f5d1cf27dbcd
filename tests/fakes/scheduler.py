"""The scheduler's signals, bell, locks and observer in memory; a lane of a real Redis, opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from redis.asyncio import Redis

from easel_kit.errors import DependencyDown
from easel_kit.ids import JobId, WorkerId
from scheduler.domain.job import Job
from scheduler.domain.lease import Claim, Settled
from scheduler.domain.line import Depth
from scheduler.domain.load import Load, Reading
from scheduler.domain.worker import Worker
from scheduler.storage.epoch import RedisEpoch
from scheduler.storage.scripts import Scripts


class MemorySignals:
    """`Signals`: the queue in memory tells everything anyway."""

    def __init__(self) -> None:
        self.watched: list[JobId] = []

    async def watch(self, job_id: JobId) -> None:
        """See `ports.Signals`."""
        self.watched.append(job_id)

    async def unwatch(self, job_id: JobId) -> None:
        """See `ports.Signals`."""
        self.watched.remove(job_id)


class MemoryBell:
    """`FeedBell` of one process."""

    def __init__(self) -> None:
        self._ears: list[asyncio.Event] = []

    def ring(self) -> None:
        """See `ports.FeedBell`."""
        for ear in self._ears:
            ear.set()

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[_Ear]:
        """See `ports.FeedBell`."""
        ear = asyncio.Event()
        self._ears.append(ear)
        try:
            yield _Ear(ear)
        finally:
            self._ears.remove(ear)


@dataclass(slots=True)
class _Ear:
    event: asyncio.Event

    async def rung(self, *, within_s: float) -> None:
        """See `ports.Bell`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.event.wait()
        self.event.clear()


class MemoryLocks:
    """`Locks` of one process."""

    def __init__(self) -> None:
        self._held: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def hold(self, name: str, *, wait_s: float = 0) -> AsyncIterator[bool]:
        """See `ports.Locks`."""
        lock = self._held.setdefault(name, asyncio.Lock())
        try:
            async with asyncio.timeout(wait_s):
                await lock.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


async def open_lane(redis: Redis, scripts: Scripts) -> None:
    """Opens the queue of an empty Redis, as a scheduler does at its start."""
    epoch = RedisEpoch(redis, scripts, lease_ttl_s=1)
    if (token := await epoch.begin(alone=True)) is not None:
        await epoch.open(token)


class RecordingObserver:
    """`Observer`: a list of what happened."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def names(self) -> list[str]:
        """What happened, in order."""
        return [name for name, _ in self.seen]

    def queued(self, job: Job) -> None:
        """See `ports.Observer`."""
        self.seen.append(("queued", job.id))

    def claimed(self, claim: Claim, *, waited_s: float, traceparent: str) -> None:
        """See `ports.Observer`."""
        self.seen.append(("claimed", (claim, waited_s, traceparent)))

    def settled(self, settled: Settled) -> None:
        """See `ports.Observer`."""
        self.seen.append(("settled", settled))

    def cancel_requested(self, job: Job) -> None:
        """See `ports.Observer`."""
        self.seen.append(("cancel_requested", job.id))

    def parked(self, claim: Claim) -> None:
        """See `ports.Observer`."""
        self.seen.append(("parked", claim))

    def resumed(self, claim: Claim) -> None:
        """See `ports.Observer`."""
        self.seen.append(("resumed", claim))

    def worker_joined(self, worker: Worker, *, kept: int) -> None:
        """See `ports.Observer`."""
        self.seen.append(("worker_joined", (worker.id, kept)))

    def worker_left(self, worker_id: WorkerId, *, lost: int) -> None:
        """See `ports.Observer`."""
        self.seen.append(("worker_left", (worker_id, lost)))

    def worker_rests(self, worker_id: WorkerId, *, pause_s: float) -> None:
        """See `ports.Observer`."""
        self.seen.append(("worker_rests", (worker_id, pause_s)))

    def trouble(self, what: str, error: Exception) -> None:
        """See `ports.Observer`."""
        self.seen.append((f"trouble {what}", error))

    def rebuilt(self, count: int, *, took_s: float) -> None:
        """See `ports.Observer`."""
        assert took_s >= 0
        self.seen.append(("rebuilt", count))

    def repaired(self, what: str, count: int) -> None:
        """See `ports.Observer`."""
        self.seen.append((f"repaired {what}", count))

    def depth(self, depth: Depth) -> None:
        """See `ports.Observer`."""
        self.seen.append(("depth", depth))

    def measured(self, load: Load, readings: Sequence[Reading]) -> None:
        """See `ports.Observer`."""
        self.seen.append(("measured", (load, tuple(readings))))


class RecordingPublisher:
    """`Publisher`; `away` makes it fail."""

    def __init__(self) -> None:
        self.away = False
        self.told: list[Sequence[Reading]] = []

    async def publish(self, readings: Sequence[Reading]) -> None:
        """See `ports.Publisher`."""
        if self.away:
            raise DependencyDown("the publisher does not answer")
        self.told.append(readings)
