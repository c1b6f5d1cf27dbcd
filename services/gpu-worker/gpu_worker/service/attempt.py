"""One attempt at work: draw, encode, store; how it ended is its only result."""

from __future__ import annotations

from collections.abc import Callable

from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown, InvalidInput
from easel_kit.ids import AttemptId, new_image_id
from gpu_worker.domain.drawing import (
    Drawn,
    Failed,
    FailureKind,
    Outcome,
    StepProgress,
    Stopped,
)
from gpu_worker.domain.generation import Limits, check_generation
from gpu_worker.domain.work import (
    Assign,
    AttemptFailed,
    AttemptFinished,
    AttemptStopped,
    Report,
    Running,
    StoredImage,
    picture_key,
)
from gpu_worker.ports import Engine, Gallery


class Attempt:
    """What this worker knows of one assignment, from `Assign` until its report is queued."""

    def __init__(self, work: Assign, engine: Engine, gallery: Gallery, clock: Clock) -> None:
        """Begins nothing; `run` does."""
        self.work = work
        self.progress = StepProgress(0, work.generation.steps * work.generation.image_count)
        self._engine = engine
        self._gallery = gallery
        self._clock = clock
        self._assigned_s = clock.monotonic()
        self._first_step_s: float | None = None
        self._cancelled = False

    @property
    def id(self) -> AttemptId:
        """Of the attempt."""
        return self.work.attempt_id

    @property
    def elapsed_s(self) -> float:
        """Seconds since the assignment."""
        return self._clock.monotonic() - self._assigned_s

    def running(self) -> Running:
        """For operators."""
        return Running(
            job_id=self.work.job_id,
            attempt_id=self.id,
            model_key=self.work.generation.model_key,
            step=self.progress.step,
            steps=self.progress.steps,
        )

    def cancel(self) -> None:
        """Stops at the next step, or before the next upload."""
        self._cancelled = True
        self._engine.cancel(self.id)

    async def run(self, limits: Limits, progressed: Callable[[StepProgress], None]) -> Report:
        """Works it off; cancelling the call stops the drawing and reports nothing.

        Args:
            limits: of this worker.
            progressed: hears the newest state, on the event loop.
        """

        def note(progress: StepProgress) -> None:
            if self._first_step_s is None:
                self._first_step_s = self.elapsed_s
            self.progress = StepProgress(progress.step, progress.steps)
            progressed(progress)

        outcome = await self._draw(limits, note)
        match outcome:
            case Drawn():
                return await self._store(outcome)
            case Stopped(steps_done):
                return AttemptStopped(self.id, steps_done)
            case Failed():
                return self._failed(outcome)

    async def _draw(self, limits: Limits, note: Callable[[StepProgress], None]) -> Outcome:
        asked = self.work.generation
        card = next((card for card in self._engine.models() if card.key == asked.model_key), None)
        if card is None or not card.usable:
            reason = "is not in the catalogue" if card is None else card.unavailable_reason
            return Failed(
                FailureKind.TRANSIENT, "model_unavailable", f"model {asked.model_key}: {reason}"
            )
        try:
            check_generation(asked, card, limits)
        except InvalidInput as error:
            return Failed(FailureKind.CALLER, "invalid_request", str(error))
        if self._cancelled:
            return Stopped(0)
        return await self._engine.draw(self.id, asked, {}, note)

    async def _store(self, drawn: Drawn) -> Report:
        images: list[StoredImage] = []
        for index, picture in enumerate(drawn.pictures):
            encoded = await self._gallery.encode(picture, self.work.generation)
            if self._cancelled:
                return AttemptStopped(self.id, drawn.steps_done)
            key = picture_key(self.work, index)
            try:
                await self._gallery.store(key, encoded)
            except DependencyDown as error:
                failure = Failed(FailureKind.TRANSIENT, "upload_failed", str(error))
                return self._failed(failure, drawn.steps_done)
            image = StoredImage(
                id=new_image_id(),
                object_key=key,
                width_px=picture.raster.width_px,
                height_px=picture.raster.height_px,
                media_type=encoded.media_type,
                size_bytes=len(encoded.data),
                sha256=encoded.sha256,
                seed=picture.seed,
            )
            images.append(image)
        return AttemptFinished(
            attempt_id=self.id,
            images=tuple(images),
            steps_done=drawn.steps_done,
            first_step_ms=_milliseconds(self._first_step_s or 0.0),
            total_ms=_milliseconds(self.elapsed_s),
            warnings=drawn.warnings,
        )

    def _failed(self, failure: Failed, steps_done: int | None = None) -> AttemptFailed:
        return AttemptFailed(
            attempt_id=self.id,
            kind=failure.kind,
            code=failure.code,
            message=failure.message,
            steps_done=failure.steps_done if steps_done is None else steps_done,
        )


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
