"""The thread that owns the device: takes commands, steps jobs, decodes pictures, tells listeners.

Between any two steps jobs join and leave. Others talk to it through `post` only.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from prometheus_client import Counter, Gauge, Histogram

from easel_kit.errors import DomainError, InvalidState, NotFound
from easel_kit.ids import AttemptId, ModelKey
from easel_kit.log import get_logger
from gpu_worker.domain.drawing import (
    Drawn,
    Failed,
    FailureKind,
    Outcome,
    Raster,
    StepProgress,
    Stopped,
)
from gpu_worker.domain.generation import Generation
from gpu_worker.engine.cache import ModelCache, Waiter
from gpu_worker.engine.catalogue import Catalogue, Entry
from gpu_worker.engine.device import is_out_of_memory, release_cached_memory
from gpu_worker.engine.job import JobState, Listener, Model, Trajectory
from gpu_worker.engine.policy import Policy
from gpu_worker.engine.rows import build_rows, split_predictions

_log = get_logger(__name__)
_steps = Counter("easel_worker_steps", "Denoising steps that jobs took.")
_step_seconds = Histogram(
    "easel_worker_step_seconds",
    "Duration of one forward with its scheduler steps, in seconds.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
_rows = Histogram(
    "easel_worker_step_rows", "Rows of one forward.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
_cache_bytes = Gauge("easel_worker_model_cache_bytes", "Bytes of all model weights in memory.")

_NOT_FINITE = Failed(
    FailureKind.CALLER,  # the same request gives the same numbers everywhere
    "non_finite",
    "the numbers left their range; try less guidance or another sampler",
)
STOPPED = Failed(FailureKind.WORKER, "worker_stopped", "the worker stopped")


@dataclass(frozen=True, slots=True)
class Begin:
    """Draw a job and tell its listener."""

    attempt_id: AttemptId
    asked: Generation
    listener: Listener


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a job before its next step."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Load:
    """Bring a model into memory; `done` hears None or what went wrong."""

    key: ModelKey
    done: Callable[[DomainError | None], None]


@dataclass(frozen=True, slots=True)
class Unload:
    """Free a model's memory; `done` hears None or what went wrong."""

    key: ModelKey
    done: Callable[[DomainError | None], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load has ended, with a model or with a reason for the catalogue."""

    key: ModelKey
    model: Model | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Close:
    """End all jobs and leave the thread."""


Command = Begin | Stop | Load | Unload | Loaded | Close


class StepEngine:
    """All state of running jobs. `run` is the thread's body; other threads may only `post`."""

    def __init__(
        self,
        catalogue: Catalogue,
        policy: Policy,
        device: torch.device,
        *,
        cache_bytes: int,
        preview_interval_s: float,
        load: Callable[[Entry, Callable[[Loaded], None]], None],
        catalogue_changed: Callable[[frozenset[ModelKey]], None],
    ) -> None:
        """Starts nothing.

        Args:
            catalogue: touched by this thread only, once it runs.
            policy: chooses the jobs of each forward.
            device: where models and latents are.
            cache_bytes: for the weights of all loaded models.
            preview_interval_s: a job is looked at no more often than this.
            load: reads a model's files, here or elsewhere, and gives the answer to its second
                argument, which may be called from any thread.
            catalogue_changed: hears what is in memory after each change of it or of the catalogue.
        """
        self._catalogue = catalogue
        self._policy = policy
        self._device = device
        self._preview_interval_s = preview_interval_s
        self._load = load
        self._catalogue_changed = catalogue_changed
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._cache = ModelCache(cache_bytes, self._start_load, self._tell_catalogue)
        self._awaiting_model: dict[AttemptId, Begin] = {}
        self._jobs: dict[AttemptId, JobState] = {}
        self._to_decode: deque[tuple[JobState, Trajectory]] = deque()
        self._turn = 0
        self._closing = False

    def post(self, command: Command) -> None:
        """Leaves a command for the next step boundary; from any thread, never blocks."""
        self._inbox.put(command)

    def run(self) -> None:
        """Works until `Close`; whatever happens, every listener hears an outcome."""
        try:
            with torch.no_grad():
                while not self._closing:
                    self._take_commands()
                    self._take_turn()
        finally:
            for begin in self._awaiting_model.values():
                begin.listener.ended(STOPPED)
            for job in self._jobs.values():
                job.listener.ended(STOPPED)
            self._awaiting_model.clear()
            self._cache.abandon_loads(InvalidState(STOPPED.message))

    def turn_away(self) -> None:
        """Answers what was posted too late; for after the end of `run`, from any thread."""
        with suppress(queue.Empty):
            while True:
                match self._inbox.get_nowait():
                    case Begin(_, _, listener):
                        listener.ended(STOPPED)
                    case Load(_, done) | Unload(_, done):
                        done(InvalidState(STOPPED.message))
                    case _:
                        pass

    # --- commands ---------------------------------------------------------------------------

    def _take_commands(self) -> None:
        idle = not self._jobs
        try:
            while True:
                self._obey(self._inbox.get(block=idle))
                idle = False
        except queue.Empty:
            return

    def _obey(self, command: Command) -> None:
        match command:
            case Begin():
                self._begin(command)
            case Stop(attempt_id):
                self._stop(attempt_id)
            case Load(key, done):
                self._load_on_request(key, done)
            case Unload(key, done):
                self._unload(key, done)
            case Loaded():
                self._loaded(command)
            case Close():
                self._closing = True

    def _begin(self, begin: Begin) -> None:
        self._awaiting_model[begin.attempt_id] = begin
        self._want(
            begin.asked.model_key,
            Waiter(
                ready=lambda model: self._admit(begin, model),
                failed=lambda error: self._refuse(begin, error),
            ),
        )

    def _want(self, key: ModelKey, waiter: Waiter) -> None:
        try:
            reason = self._catalogue.find(key).card.unavailable_reason
        except NotFound as error:
            waiter.failed(error)
            return
        if reason:
            waiter.failed(InvalidState(f"model {key} is unavailable: {reason}"))
            return
        self._cache.want(key, waiter)

    def _admit(self, begin: Begin, model: Model) -> None:
        if self._awaiting_model.pop(begin.attempt_id, None) is None:
            return  # stopped while the model was loading
        failure: Failed
        try:
            job = JobState.begin(begin.attempt_id, begin.asked, begin.listener, model)
        except ValueError as error:  # how schedulers refuse a number of steps
            failure = Failed(FailureKind.CALLER, "invalid_request", f"sampler: {error}")
        except Exception as error:  # noqa: BLE001 (one job's trouble is not its neighbours')
            failure = self._judge(error, begin.attempt_id)
        else:
            self._cache.pin(begin.asked.model_key)
            self._jobs[begin.attempt_id] = job
            return
        begin.listener.ended(failure)

    def _refuse(self, begin: Begin, error: DomainError) -> None:
        if self._awaiting_model.pop(begin.attempt_id, None) is not None:
            failure = Failed(FailureKind.TRANSIENT, "model_unavailable", str(error))
            begin.listener.ended(failure)

    def _stop(self, attempt_id: AttemptId) -> None:
        waiting = self._awaiting_model.pop(attempt_id, None)
        if waiting is not None:
            waiting.listener.ended(Stopped(0))
        elif attempt_id in self._jobs:
            job = self._jobs[attempt_id]
            self._end(job, Stopped(job.steps_done))

    # --- models -----------------------------------------------------------------------------

    def _start_load(self, key: ModelKey) -> None:
        self._load(self._catalogue.find(key), self.post)

    def _loaded(self, answer: Loaded) -> None:
        if answer.model is None:
            self._catalogue.mark_unavailable(answer.key, answer.reason)
            self._tell_catalogue()
            error = InvalidState(f"model {answer.key} is unavailable: {answer.reason}")
            self._cache.load_failed(answer.key, error)
        else:
            failure: Failed | None = None
            try:
                answer.model.move_to(self._device)
            except Exception as error:  # noqa: BLE001 (a model that does not fit is not the end)
                failure = self._judge(error, None)
            if failure is None:
                self._cache.arrived(answer.key, answer.model)
            else:
                self._cache.load_failed(answer.key, InvalidState(failure.message))

    def _load_on_request(self, key: ModelKey, done: Callable[[DomainError | None], None]) -> None:
        try:
            if key not in self._cache.keys:
                self._catalogue.refresh(key)  # a person asks: the files may have been repaired
                self._tell_catalogue()
        except NotFound as error:
            done(error)
            return
        self._want(key, Waiter(ready=lambda _: done(None), failed=done))

    def _unload(self, key: ModelKey, done: Callable[[DomainError | None], None]) -> None:
        try:
            self._catalogue.find(key)
            self._cache.drop(key)
        except (NotFound, InvalidState) as error:
            done(error)
            return
        release_cached_memory(self._device)
        done(None)

    def _tell_catalogue(self) -> None:
        _cache_bytes.set(self._cache.used_bytes)
        self._catalogue_changed(self._cache.keys)

    # --- steps ------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        stepping = [job for job in self._jobs.values() if not job.denoised]
        if stepping:
            self._step(self._policy.select(stepping))
        if self._to_decode:  # one a turn: many decodes must not hold up everybody's steps
            self._decode(*self._to_decode.popleft())

    def _step(self, jobs: Sequence[JobState]) -> None:
        began = time.monotonic()
        self._turn += 1
        failure: Failed | None = None
        predictions = torch.empty(0)
        try:
            rows = build_rows(jobs)
            predictions = jobs[0].model.denoise(rows)
        except Exception as error:  # noqa: BLE001 (judged, and raised again where it is fatal)
            failure = self._judge(error, jobs[0].attempt_id)
        if failure is not None:  # outside the except block: its traceback would hold the memory
            release_cached_memory(self._device)
            for job in jobs:
                self._end(job, replace(failure, steps_done=job.steps_done))
            return
        for job, prediction in split_predictions(jobs, predictions):
            self._advance(job, prediction)
        _rows.observe(sum(job.row_count for job in jobs))
        _step_seconds.observe(time.monotonic() - began)

    def _advance(self, job: JobState, prediction: torch.Tensor) -> None:
        picture = job.current
        job.last_turn = self._turn
        failure: Failed | None = None
        preview: Raster | None = None
        try:
            if self._preview_due(job):
                preview = job.model.look(picture.estimate(prediction))
            picture.advance(prediction)
            if not torch.isfinite(picture.latents).all():
                failure = _NOT_FINITE
        except Exception as error:  # noqa: BLE001 (judged, and raised again where it is fatal)
            failure = self._judge(error, job.attempt_id)
        if failure is not None:
            self._end(job, replace(failure, steps_done=job.steps_done))
            return
        job.steps_done += 1
        _steps.inc()
        if picture.finished:
            self._to_decode.append((job, picture))
        job.listener.progressed(StepProgress(job.steps_done, job.steps_total, preview))

    def _preview_due(self, job: JobState) -> bool:
        now = time.monotonic()
        if now - job.last_preview_s < self._preview_interval_s:
            return False
        job.last_preview_s = now
        return True

    def _decode(self, job: JobState, picture: Trajectory) -> None:
        if job.attempt_id not in self._jobs:
            return  # ended while it waited here
        failure: Failed | None = None
        try:
            picture.raster = job.model.decode(picture.latents, picture.generator)
        except Exception as error:  # noqa: BLE001 (judged, and raised again where it is fatal)
            failure = self._judge(error, job.attempt_id)
        if failure is not None:
            release_cached_memory(self._device)
            self._end(job, replace(failure, steps_done=job.steps_done))
            return
        drawn = job.drawn()
        if len(drawn) == len(job.pictures):
            self._end(job, Drawn(drawn, job.steps_done, job.conditioning.warnings))

    def _end(self, job: JobState, outcome: Outcome) -> None:
        del self._jobs[job.attempt_id]
        self._cache.unpin(job.asked.model_key)
        job.listener.ended(outcome)

    def _judge(self, error: Exception, attempt_id: AttemptId | None) -> Failed:
        """Classes an error of torch or diffusers; one that leaves the device unusable is raised."""
        if is_out_of_memory(error):
            _log.warning("memory.exhausted", attempt_id=attempt_id, jobs=len(self._jobs))
            if len(self._jobs) > 1:
                return Failed(
                    FailureKind.TRANSIENT, "out_of_memory", "the worker ran out of memory"
                )
            return Failed(
                FailureKind.CALLER, "out_of_memory", "there is not enough memory for this"
            )
        if isinstance(error, FloatingPointError):
            return _NOT_FINITE
        if isinstance(error, torch.AcceleratorError):
            raise error
        _log.error("engine.faulted", attempt_id=attempt_id, exc_info=error)
        return Failed(FailureKind.TRANSIENT, "engine_error", "drawing failed unexpectedly")
