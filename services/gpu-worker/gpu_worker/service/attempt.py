"""One attempt at work: fetch, draw, encode, store; how it ended is its only result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum

from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown, InvalidInput
from easel_kit.ids import AttemptId
from gpu_worker.domain.admission import check_generation, find_missing_model
from gpu_worker.domain.drawing import (
    Drawn,
    Failed,
    FailureKind,
    Outcome,
    Raster,
    StepProgress,
    Stopped,
)
from gpu_worker.domain.generation import Limits
from gpu_worker.domain.pacing import fits
from gpu_worker.domain.work import (
    Assign,
    AttemptFailed,
    AttemptFinished,
    AttemptStopped,
    Report,
    Running,
)
from gpu_worker.ports import Engine, Gallery
from gpu_worker.service.inputs import fetch_inputs
from gpu_worker.service.stopwatch import Stopwatch
from gpu_worker.service.summary import Summary
from gpu_worker.service.uploads import upload_pictures


class _Phase(Enum):
    """Where it is: the engine knows it in the middle one only."""

    BEFORE = "before"
    DRAWING = "drawing"
    AFTER = "after"


class Attempt:
    """What this worker knows of one assignment, from `Assign` until its report is queued."""

    def __init__(
        self, work: Assign, engine: Engine, gallery: Gallery, clock: Clock, limits: Limits
    ) -> None:
        """Begins nothing; `run` does."""
        self.work = work
        self.progress = StepProgress(0, work.generation.steps * work.generation.image_count)
        self.watch = Stopwatch(clock)
        self.summary = Summary(work.generation.model_key)
        self.parked_at: int | None = None
        """Steps done when it was set aside; None while it is not."""
        self._engine = engine
        self._gallery = gallery
        self._limits = limits
        self._phase = _Phase.BEFORE
        self._turning = asyncio.Lock()
        self._may_draw = asyncio.Event()
        self._may_draw.set()
        self._halted = asyncio.Event()
        self._cancelled = False
        self._overdue = False
        self._alarm: asyncio.TimerHandle | None = None
        self._paced_from: tuple[int, float] | None = None

    @property
    def id(self) -> AttemptId:
        """Of the attempt."""
        return self.work.attempt_id

    def running(self) -> Running:
        """For operators."""
        return Running(
            job_id=self.work.job_id,
            attempt_id=self.id,
            model_key=self.work.generation.model_key,
            step=self.progress.step,
            steps=self.progress.steps,
        )

    def fits(self, left_s: float) -> bool:
        """Whether it ends within `left_s` at its pace since its first step, parked time aside.

        What it waited for before (a model, pictures, its turn) says nothing of its pace.
        """
        if self._paced_from is None:
            return True
        step, began_s = self._paced_from
        return fits(
            step=self.progress.step - step,
            steps=self.progress.steps - step,
            elapsed_s=self.watch.running_s - began_s,
            left_s=left_s,
        )

    # --- orders -----------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stops at the next step, or before the next upload; also while it is parked."""
        self._cancelled = True
        self._halt()

    async def park(self) -> int | None:
        """Sets it aside at its next step boundary, or before its first step.

        Returns:
            Its steps done, also when it is parked already; None where nothing is left to draw.
        """
        async with self._turning:
            if self._halted.is_set() or self._phase is _Phase.AFTER:
                return None
            if self._phase is _Phase.BEFORE:
                self._may_draw.clear()
                self.parked_at = 0
            else:
                steps_done = await self._engine.park(self.id)
                if steps_done is None or not self._is_drawing:
                    return None
                self.parked_at = steps_done
            self.watch.pause()
            self._disarm()
            return self.parked_at

    async def resume(self) -> bool:
        """Goes on with it, also when it was not parked; false where its end is being reported."""
        async with self._turning:
            if self._is_drawing and not await self._engine.resume(self.id):
                return False
            self._go_on()
            if self._phase is not _Phase.AFTER:
                self._arm()
            return True

    # --- work -------------------------------------------------------------------------------

    async def run(self, progressed: Callable[[StepProgress], None]) -> Report:
        """Works it off; cancelling the call stops the drawing and reports nothing.

        Args:
            progressed: hears the newest state, on the event loop.
        """

        def note(progress: StepProgress) -> None:
            if self._paced_from is None:
                self._paced_from = (progress.step, self.watch.running_s)
                self.summary.first_step(self.watch.elapsed_s)
            self.summary.steps = progress.step
            self.progress = replace(progress, preview=None)
            progressed(progress)

        outcome = await self._outcome(note)
        self.summary.figures = outcome.figures
        self.summary.steps = outcome.steps_done
        match outcome:
            case Drawn():
                return await self._store(outcome)
            case Stopped(steps_done) if self._cancelled or not self._overdue:
                return AttemptStopped(self.id, steps_done)
            case Stopped(steps_done):
                return self._failed(self._too_long(steps_done))
            case Failed():
                return self._failed(outcome)

    async def _outcome(self, note: Callable[[StepProgress], None]) -> Outcome:
        asked, catalogue = self.work.generation, self._engine.models()
        if reason := find_missing_model(asked, catalogue):
            return Failed(FailureKind.TRANSIENT, "model_unavailable", reason)
        try:
            check_generation(asked, catalogue, self._limits)
            self._arm()
            inputs = await self._inputs()
            while not (self._may_draw.is_set() or self._halted.is_set()):
                await self._may_draw.wait()
            if self._halted.is_set():
                return Stopped(0)
            self._phase = _Phase.DRAWING
            return await self._engine.draw(self.id, asked, inputs, note)
        except InvalidInput as error:
            return Failed(FailureKind.CALLER, "invalid_request", str(error))
        except DependencyDown as error:
            return Failed(FailureKind.TRANSIENT, "fetch_failed", str(error))
        finally:
            self._phase = _Phase.AFTER
            self._go_on()
            self._disarm()

    async def _inputs(self) -> Mapping[str, Raster]:
        """The pictures that it reads; none once it is halted. Raises as `fetch_inputs`."""
        if not self.work.generation.input_keys or self._halted.is_set():
            return {}
        fetching = asyncio.ensure_future(fetch_inputs(self._gallery, self.work.generation))
        halted = asyncio.ensure_future(self._halted.wait())
        try:
            await asyncio.wait({fetching, halted}, return_when=asyncio.FIRST_COMPLETED)
            return {} if self._halted.is_set() else fetching.result()
        finally:
            fetching.cancel()
            halted.cancel()
            await asyncio.gather(fetching, halted, return_exceptions=True)

    async def _store(self, drawn: Drawn) -> Report:
        began_s = self.watch.elapsed_s
        try:
            uploaded = await upload_pictures(
                self._gallery, self.work, drawn.pictures, lambda: self._cancelled
            )
        except DependencyDown as error:
            return self._failed(
                Failed(FailureKind.TRANSIENT, "upload_failed", str(error), drawn.steps_done)
            )
        if uploaded is None:
            return AttemptStopped(self.id, drawn.steps_done)
        self.summary.uploaded(
            len(uploaded), sum(one.size_bytes for one in uploaded), self.watch.elapsed_s - began_s
        )
        return AttemptFinished(
            attempt_id=self.id,
            images=tuple(one.image for one in uploaded),
            steps_done=drawn.steps_done,
            first_step_ms=_milliseconds(self.summary.queue_s or 0.0),
            total_ms=_milliseconds(self.watch.running_s),
            warnings=drawn.warnings,
        )

    def _failed(self, failure: Failed) -> AttemptFailed:
        return AttemptFailed(
            attempt_id=self.id,
            kind=failure.kind,
            code=failure.code,
            message=failure.message,
            steps_done=failure.steps_done,
        )

    # --- stopping and standing still --------------------------------------------------------

    @property
    def _is_drawing(self) -> bool:
        return self._phase is _Phase.DRAWING

    def _halt(self) -> None:
        self._halted.set()
        self._may_draw.set()
        self._engine.cancel(self.id)

    def _go_on(self) -> None:
        self.parked_at = None
        self.watch.go_on()
        self._may_draw.set()

    def _arm(self) -> None:
        """Has it stopped once its time is up."""
        self._disarm()
        limit_s = self._limits.job_time_limit_s
        if limit_s > 0 and self.parked_at is None:
            left_s = max(0.0, limit_s - self.watch.running_s)
            self._alarm = asyncio.get_running_loop().call_later(left_s, self._expire)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _expire(self) -> None:
        self._overdue = True
        self._halt()

    def _too_long(self, steps_done: int) -> Failed:
        return Failed(
            FailureKind.CALLER,
            "deadline_exceeded",
            f"it took more than the {self._limits.job_time_limit_s:g} seconds that a job may run; "
            "ask for fewer steps, fewer pictures or a smaller size",
            steps_done,
        )


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
