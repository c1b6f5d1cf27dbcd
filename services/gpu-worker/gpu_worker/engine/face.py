"""The engine as the rest of the worker sees it: a port of asyncio before a thread of torch.

Only messages pass between them: commands by a thread-safe queue one way, callbacks on the event
loop the other way.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from easel_kit.errors import DomainError
from easel_kit.ids import AttemptId, ModelKey
from easel_kit.log import get_logger
from gpu_worker.domain.drawing import (
    DeviceStatus,
    Outcome,
    Raster,
    StepProgress,
)
from gpu_worker.domain.generation import Generation
from gpu_worker.domain.model import ModelCard
from gpu_worker.engine import metrics
from gpu_worker.engine.cache import ModelCache
from gpu_worker.engine.catalogue import Catalogue, Entry
from gpu_worker.engine.commands import (
    Begin,
    Close,
    Command,
    Load,
    Loaded,
    Measure,
    Park,
    Perform,
    Reread,
    Resume,
    Stop,
    Unload,
)
from gpu_worker.engine.device import (
    choose_device,
    choose_dtype,
    default_threads,
    describe,
    device_status,
)
from gpu_worker.engine.families.loading import load_part
from gpu_worker.engine.job import Order
from gpu_worker.engine.model import CannotLoad, Part
from gpu_worker.engine.served import SAMPLER_NAMES
from gpu_worker.engine.step_engine import StepEngine
from gpu_worker.engine.switches import Switches, apply_switches, check_switches
from gpu_worker.ports import ModelFiles

_log = get_logger(__name__)

_LOADERS = 4
"""Models that are fetched at the same time; they are read one after the other."""

_TEND_EVERY_S = 15.0

LoadPart = Callable[[Entry, torch.dtype], Part]

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine runs.

    Attributes:
        models_dir: its children are model directories.
        device: a torch device, or `auto`.
        dtype: a number format by its torch name, or `auto`.
        threads: of one CPU operation; 0 chooses.
        catalogue_file: TOML that lists more models; None: there is none.
        cache_bytes: for the weights of all loaded models.
        reserve_bytes: of it, what stays free as working memory of the steps.
        embedding_bytes: for encoded prompts that may come again.
        max_rows: of one forward; a picture brings two with guidance, else one.
        preview_interval_s: a job sends looks no more often than this.
        switches: trades of exactness, memory and speed.
    """

    models_dir: Path
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    catalogue_file: Path | None = None
    cache_bytes: int = 4 * 2**30
    reserve_bytes: int = 0
    embedding_bytes: int = 64 * 2**20
    max_rows: int = 64
    preview_interval_s: float = 0.1
    switches: Switches = field(default_factory=Switches)


class _Drawing:
    """One job's listener: hears the engine's thread, speaks on the event loop."""

    def __init__(self, progressed: Callable[[StepProgress], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell = progressed
        self._lock = threading.Lock()
        self._newest: StepProgress | None = None
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()

    def progressed(self, progress: StepProgress) -> None:
        """Keeps the newest progress (and the last look) until the loop has time for it."""
        with self._lock:
            waiting = self._newest
            if waiting is not None and progress.preview is None:
                progress = replace(progress, preview=waiting.preview)
            self._newest = progress
        if waiting is None:
            self._on_loop(self._deliver)

    def ended(self, outcome: Outcome) -> None:
        """Passes the outcome on."""
        self._on_loop(lambda: self._settle(outcome))

    def _deliver(self) -> None:
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            self._tell(newest)

    def _settle(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def _on_loop(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(call)


class AsyncEngine:
    """Port `Engine` over a `StepEngine` on a thread of its own."""

    def __init__(
        self,
        options: EngineOptions,
        loader: Executor,
        load: LoadPart,
        files: ModelFiles | None = None,
    ) -> None:
        """Reads the catalogue; nothing runs before `start`.

        Args:
            options: how it runs.
            loader: threads that may wait for files.
            load: reads a model's files.
            files: brings models from elsewhere to this machine; None: only those here are served.

        Raises:
            InvalidInput: no such device or number format, a switch that cannot work here, or the
                catalogue's file cannot be read.
        """
        self._device = choose_device(options.device)
        check_switches(options.switches, self._device)
        self._switches = options.switches
        self._dtype = choose_dtype(options.dtype, self._device)
        self._threads = options.threads or default_threads()
        self._device_name = describe(self._device)
        metrics.MEMORY_BYTES.set_function(lambda: self.status().memory_used_bytes)
        self._loader = loader
        self._load_part = load
        self._reading = threading.Lock()
        self._catalogue = Catalogue(
            options.models_dir,
            SAMPLER_NAMES,
            catalogue_file=options.catalogue_file,
            files=files,
        )
        self._cards: tuple[ModelCard, ...] = ()
        self._show_catalogue(frozenset())
        self._thread: Future[None] | None = None
        self._engine = StepEngine(
            self._catalogue,
            self._device,
            cache=partial(_make_cache, self._catalogue, options, item_bytes=self._dtype.itemsize),
            embedding_bytes=options.embedding_bytes,
            max_rows=options.max_rows,
            preview_interval_s=options.preview_interval_s,
            load=self._start_load,
            catalogue_changed=self._show_catalogue,
        )

    def models(self) -> tuple[ModelCard, ...]:
        """The catalogue as it is now."""
        return self._cards

    def status(self) -> DeviceStatus:
        """Device and memory."""
        return device_status(self._device, self._device_name)

    async def load(self, key: ModelKey) -> ModelCard:
        """See the port."""
        await self._demand(lambda done: Load(key, done))
        return self._card(key)

    async def unload(self, key: ModelKey) -> ModelCard:
        """See the port."""
        await self._demand(lambda done: Unload(key, done))
        return self._card(key)

    async def draw(
        self,
        attempt_id: AttemptId,
        generation: Generation,
        inputs: Mapping[str, Raster],
        progressed: Callable[[StepProgress], None],
    ) -> Outcome:
        """See the port."""
        drawing = _Drawing(progressed)
        self._post(Begin(Order(attempt_id, generation, inputs, drawing, time.monotonic())))
        try:
            return await drawing.outcome
        except asyncio.CancelledError:
            self._engine.post(Stop(attempt_id))
            raise

    def cancel(self, attempt_id: AttemptId) -> None:
        """See the port."""
        self._engine.post(Stop(attempt_id))

    async def park(self, attempt_id: AttemptId) -> int | None:
        """See the port."""
        return await self._ask(lambda done: Park(attempt_id, done))

    async def resume(self, attempt_id: AttemptId) -> bool:
        """See the port."""
        return await self._ask(lambda done: Resume(attempt_id, done))

    async def warm_up(self, key: ModelKey) -> None:
        """Loads a model and measures its forwards, so that the first job finds all warm.

        Raises:
            NotFound, InvalidState: as `load`; also when it cannot step.
        """
        await self.load(key)
        await self._demand(lambda done: Measure(key, done))

    def start(self, executor: Executor) -> None:
        """Starts the engine's thread, as the only user of `executor`."""
        self._thread = executor.submit(self._run)
        self._thread.add_done_callback(lambda _: self._engine.turn_away())

    def close(self) -> None:
        """Ends the engine's thread at its next step boundary; waits for nothing."""
        self._engine.post(Close())

    async def tend(self) -> None:
        """Looks again at models that are unavailable, each after a while; a task to supervise."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TEND_EVERY_S)
            for key in self._catalogue.due():
                entry = await loop.run_in_executor(self._loader, self._catalogue.read, key)
                self._post(Reread(entry))

    async def watch(self) -> None:
        """Ends when the engine's thread ends; a task to supervise.

        Raises:
            Exception: what the thread died of, e.g. a device that cannot be used any more.
        """
        if self._thread is not None:
            await asyncio.shield(asyncio.wrap_future(self._thread))

    def _post(self, command: Command) -> None:
        self._engine.post(command)
        if self._thread is None or self._thread.done():
            self._engine.turn_away()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        self._engine.run()

    def _card(self, key: ModelKey) -> ModelCard:
        return next(card for card in self._cards if card.key == key)

    def _show_catalogue(self, loaded: frozenset[ModelKey]) -> None:
        self._cards = tuple(
            replace(entry.card, loaded=entry.card.key in loaded)
            for entry in self._catalogue.entries()
        )

    def _start_load(self, entry: Entry, answer: Callable[[Command], None]) -> None:
        self._loader.submit(self._bring, entry, answer)

    def _bring(self, entry: Entry, answer: Callable[[Command], None]) -> None:
        """Has the files on this machine and in memory; on a thread that may wait."""
        key = entry.card.key
        try:
            with self._catalogue.at_hand(entry) as local:
                part = self._read(local)
        except CancelledError:
            return  # the engine has ended, and with it whoever waited
        except (DomainError, CannotLoad) as error:
            answer(Loaded(entry, None, str(error)))
        except Exception as error:  # noqa: BLE001 (whatever is wrong with files, the worker lives)
            _log.warning("model.unreadable", model=key, exc_info=error)
            reason = f"its files cannot be loaded ({type(error).__name__})"
            answer(Loaded(entry, None, reason))
        else:
            _log.info("model.loaded", model=key, size_bytes=part.size_bytes)
            answer(Loaded(local, part))

    def _read(self, entry: Entry) -> Part:
        if self._dtype is torch.float32:
            with self._reading:  # the libraries' loaders are not made for several threads
                return self._made(entry)
        # diffusers and transformers switch torch's process-wide default number format while they
        # read weights: beside a running step that could change a neighbour's numbers
        reading: Future[Part] = Future()
        self._post(Perform(reading, lambda: self._made(entry)))
        return reading.result()

    def _made(self, entry: Entry) -> Part:
        part = self._load_part(entry, self._dtype)
        apply_switches(part, self._switches, self._device, self._dtype)
        return part

    async def _ask(self, command: Callable[[Callable[[_Answer], None]], Command]) -> _Answer:
        """Posts a command and waits for what it is answered with."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()

        def settle(found: _Answer) -> None:
            if not answer.done():
                answer.set_result(found)

        def done(found: _Answer) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(settle, found)

        self._post(command(done))
        return await answer

    async def _demand(
        self, command: Callable[[Callable[[DomainError | None], None]], Command]
    ) -> None:
        error = await self._ask(command)
        if error is not None:
            raise error


def _make_cache(
    catalogue: Catalogue,
    options: EngineOptions,
    start_load: Callable[[ModelKey], None],
    changed: Callable[[], None],
    *,
    item_bytes: int,
) -> ModelCache[Part]:
    return ModelCache[Part](
        options.cache_bytes,
        start_load,
        changed,
        estimate=lambda key: catalogue.find(key).memory_bytes(item_bytes),
        reserve_bytes=options.reserve_bytes,
    )


@asynccontextmanager
async def open_engine(
    options: EngineOptions, load: LoadPart = load_part, *, files: ModelFiles | None = None
) -> AsyncIterator[AsyncEngine]:
    """An engine with its thread running inside the block; leaving it ends what still runs.

    Raises:
        InvalidInput: no such device or number format.
    """
    with (
        ThreadPoolExecutor(_LOADERS, thread_name_prefix="load") as loader,
        ThreadPoolExecutor(1, thread_name_prefix="engine") as executor,
    ):
        engine = AsyncEngine(options, loader, load, files)
        engine.start(executor)
        try:
            yield engine
        finally:
            engine.close()
