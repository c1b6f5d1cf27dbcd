"""A whole worker in memory: real use cases between a scripted engine, gallery and scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from easel_kit.clock import SystemClock
from easel_kit.lifecycle import Supervisor
from gpu_worker.domain.generation import Limits
from gpu_worker.domain.work import Assign
from gpu_worker.service.bench import Bench
from gpu_worker.service.loop import Worker
from gpu_worker.service.outbox import Outbox
from tests.fakes.gpu_worker import (
    ABLE,
    EDGES,
    INK,
    PROFILE,
    Greeting,
    MemoryGallery,
    MemoryScheduler,
    ScriptedEngine,
    Talk,
    assign,
)

LIMITS = Limits(max_pixels=64 * 64, max_images=4)


@dataclass
class Scene:
    engine: ScriptedEngine
    gallery: MemoryGallery
    scheduler: MemoryScheduler
    worker: Worker
    bench: Bench
    leave: asyncio.Event
    running: asyncio.Task[None]

    async def opened(self) -> Talk:
        """The next stream, past its first Capacity."""
        talk = await self.scheduler.desk.dialled()
        await talk.hear("capacity", skip=("models_changed", "finished", "failed", "stopped"))
        return talk

    async def begun(self, talk: Talk, **changes: object) -> Assign:
        """An attempt that the engine draws."""
        work = assign(**changes)
        before = tuple(self.engine.asked)
        talk.say(work)
        await self.engine.drawing(*before, work.attempt_id)
        return work


@asynccontextmanager
async def staged(greeting: Greeting, limits: Limits = LIMITS) -> AsyncIterator[Scene]:
    """One that runs; it has a model that can do everything, an adapter and a control network."""
    engine = ScriptedEngine(ABLE, INK, EDGES)
    gallery, scheduler, leave, outbox = (
        MemoryGallery(),
        MemoryScheduler(),
        asyncio.Event(),
        Outbox(),
    )
    scheduler.desk.greeting = greeting
    async with Supervisor(leave) as tasks:
        bench = Bench(
            engine,
            gallery,
            outbox,
            tasks,
            SystemClock(),
            slots=PROFILE.slots,
            limits=limits,
        )
        worker = Worker(
            PROFILE,
            engine=engine,
            scheduler=scheduler,
            gallery=gallery,
            bench=bench,
            outbox=outbox,
            leave=leave,
        )
        running = tasks.start("work", worker.run("here:1"), may_end=True)
        yield Scene(engine, gallery, scheduler, worker, bench, leave, running)
