"""The worker's conversation with the scheduler: dial, greet, work, and dial again when cut off.

A lost stream stops no work: attempts go on, and their results wait for the next stream.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from easel_kit.errors import DependencyDown
from easel_kit.ids import AttemptId, ModelKey
from easel_kit.log import get_logger
from gpu_worker.domain.drawing import StepProgress
from gpu_worker.domain.model import ModelCard
from gpu_worker.domain.pacing import redial_delay_s
from gpu_worker.domain.work import (
    Acknowledged,
    Assign,
    AttemptProgress,
    Cancel,
    Command,
    Drain,
    Heartbeat,
    Hello,
    Malformed,
    Park,
    Profile,
    Resume,
    Welcome,
    WorkerStatus,
)
from gpu_worker.ports import Engine, Gallery, Scheduler, WorkStream
from gpu_worker.service.bench import Bench
from gpu_worker.service.outbox import Outbox

_log = get_logger(__name__)

_HEARTBEAT_SHARE = 0.8
"""Of the interval that the scheduler asks for, so that a slow moment does not miss it."""

_WORK_SHARE = 0.8
"""Of the grace period; the rest is for saying how it ended."""

_FAREWELL_S = 1.0


class Worker:
    """One worker. `run` converses until `drain` has ended."""

    def __init__(
        self,
        profile: Profile,
        *,
        engine: Engine,
        scheduler: Scheduler,
        gallery: Gallery,
        bench: Bench,
        outbox: Outbox,
        leave: asyncio.Event,
    ) -> None:
        """`leave` is the process's stop event; a scheduler or operator that says drain sets it."""
        self._profile = profile
        self._engine = engine
        self._scheduler = scheduler
        self._gallery = gallery
        self._bench = bench
        self._outbox = outbox
        self._leave = leave
        self._leaving = asyncio.Event()
        self._left = asyncio.Event()
        self._welcomed = False

    # --- for operators ----------------------------------------------------------------------

    def status(self) -> WorkerStatus:
        """What it is and does right now."""
        device = self._engine.status()
        return WorkerStatus(
            profile=self._profile,
            device=device.device,
            memory_used_bytes=device.memory_used_bytes,
            memory_total_bytes=device.memory_total_bytes,
            models=self._engine.models(),
            running=self._bench.running(),
            draining=self._bench.draining,
        )

    async def load(self, key: ModelKey) -> ModelCard:
        """Loads a model and tells the scheduler. Raises as `Engine.load`."""
        try:
            return await self._engine.load(key)
        finally:
            self._bench.announce_models()

    async def unload(self, key: ModelKey) -> ModelCard:
        """Unloads a model and tells the scheduler. Raises as `Engine.unload`."""
        card = await self._engine.unload(key)
        self._bench.announce_models()
        return card

    def ask_to_drain(self) -> None:
        """Takes no new work from now on and has the process leave. Idempotent."""
        self._bench.stop_taking()
        self._leave.set()

    async def drain(self, grace_s: float) -> None:
        """Finishes or hands back what runs, has it confirmed, and ends `run`, within `grace_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        await self._bench.finish(grace_s * _WORK_SHARE)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._outbox.wait_settled()
        self._leaving.set()
        self._outbox.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._left.wait()

    # --- the conversation -------------------------------------------------------------------

    async def run(self, address: str) -> None:
        """Converses on one stream after the other until `drain` ends it.

        Args:
            address: host:port where others reach this worker's own face.
        """
        failures = 0
        while not self._leaving.is_set():
            try:
                hello = self._hello(address)
                async with self._scheduler.connect(hello) as stream:
                    failures = 0
                    await self._converse(stream, hello)
            except DependencyDown as error:
                _log.warning("stream.lost", reason=str(error), failures=failures)
            failures += 1
            delay_s = redial_delay_s(failures, random.random())  # noqa: S311 (jitter, no secret)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._leaving.wait()
        self._left.set()

    def _hello(self, address: str) -> Hello:
        return Hello(
            profile=self._profile,
            address=address,
            device=self._engine.status().device,
            models=self._bench.models(),
            held=self._bench.held,
            parked=self._bench.parked,
            returning=self._welcomed,
        )

    async def _converse(self, stream: WorkStream, hello: Hello) -> None:
        welcome = stream.welcome
        self._welcomed = True
        _log.info("stream.opened", kept=len(welcome.kept))
        self._bench.reconnect(welcome.kept, welcome.cancelled, told_parked=hello.parked)
        try:
            async with asyncio.TaskGroup() as both:
                reading = both.create_task(self._listen(stream))
                both.create_task(self._speak(stream, welcome, reading))
        except* DependencyDown as lost:
            if not self._leaving.is_set():
                raise DependencyDown(str(lost.exceptions[0])) from lost

    async def _listen(self, stream: WorkStream) -> None:
        while True:
            self._obey(await stream.receive())

    def _obey(self, command: Command) -> None:
        match command:
            case Assign():
                self._bench.take(command)
            case Malformed():
                self._bench.refuse(command)
            case Cancel(attempt_id):
                self._bench.cancel(attempt_id)
            case Park(attempt_id):
                self._bench.park(attempt_id)
            case Resume(attempt_id):
                self._bench.resume(attempt_id)
            case Acknowledged(attempt_id, accepted):
                self._bench.forget(attempt_id, accepted=accepted)
            case Drain():
                self.ask_to_drain()

    async def _speak(
        self, stream: WorkStream, welcome: Welcome, reading: asyncio.Task[None]
    ) -> None:
        loop = asyncio.get_running_loop()
        pause_s = welcome.heartbeat_interval_s * _HEARTBEAT_SHARE
        beat_at = loop.time() + pause_s
        while True:
            if loop.time() >= beat_at:  # also when there is always something to say
                await stream.send(Heartbeat())
                beat_at = loop.time() + pause_s
            try:
                async with asyncio.timeout_at(beat_at):
                    item = await self._outbox.take()
            except TimeoutError:
                continue
            if item is None:
                break
            if isinstance(item, tuple):
                await stream.send(await self._progress(*item))
            else:
                await stream.send(item)
        await stream.finish()
        reading.cancel()

    async def _progress(self, attempt_id: AttemptId, progress: StepProgress) -> AttemptProgress:
        if progress.preview is None:
            return AttemptProgress(attempt_id, progress.step, progress.steps)
        look = await self._gallery.preview(progress.preview)
        return AttemptProgress(
            attempt_id, progress.step, progress.steps, look.data, look.media_type
        )
