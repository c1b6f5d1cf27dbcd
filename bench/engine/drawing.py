"""Our engine behind its port, asked for the requests of a trace."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from PIL import Image

from bench.engine.trace import SAMPLERS, Request
from easel_kit.errors import DomainError
from easel_kit.ids import AttemptId, ModelKey, new_attempt_id
from gpu_worker.domain.drawing import Drawn, Outcome, Raster, StepProgress
from gpu_worker.domain.generation import Generation
from gpu_worker.engine.face import EngineOptions, open_engine
from gpu_worker.ports import Engine

Progressed = Callable[[StepProgress], None]


class NotDrawn(DomainError):
    """The engine's outcome of a request is no picture."""


class Artist:
    """The engine with as many jobs at a time as a worker has slots; the others wait their turn."""

    def __init__(self, engine: Engine, slots: int) -> None:
        """`slots` as in the worker's settings."""
        self.engine = engine
        self._slots = asyncio.Semaphore(slots)

    @property
    def parks(self) -> bool:
        """Whether this engine can set jobs aside."""
        return hasattr(self.engine, "park")

    async def picture(self, asked: Request) -> Image.Image:
        """One picture.

        Raises:
            NotDrawn: the engine says why.
        """
        async with self._slots:
            outcome = await self.draw(new_attempt_id(), asked)
        return image_of(outcome)

    async def draw(
        self, attempt_id: AttemptId, asked: Request, progressed: Progressed = lambda _: None
    ) -> Outcome:
        """One job under a name of its own, whatever the slots."""
        draw: Any = self.engine.draw
        # an engine that reads no pictures yet takes none
        inputs: tuple[Any, ...] = ({},) if "inputs" in inspect.signature(draw).parameters else ()
        outcome: Outcome = await draw(attempt_id, generation_of(asked), *inputs, progressed)
        return outcome


def generation_of(asked: Request) -> Generation:
    """The request in the worker's words."""
    return Generation(
        model_key=ModelKey(asked.model),
        prompt=asked.prompt,
        negative_prompt="",
        width_px=asked.size_px,
        height_px=asked.size_px,
        steps=asked.steps,
        guidance=asked.guidance,
        seed=asked.seed,
        sampler=asked.sampler,
        image_count=1,
    )


def image_of(outcome: Outcome) -> Image.Image:
    """The one picture of a finished job.

    Raises:
        NotDrawn: the job came to another end.
    """
    if not isinstance(outcome, Drawn):
        raise NotDrawn(str(outcome))
    (picture,) = outcome.pictures
    return _image(picture.raster)


def _image(raster: Raster) -> Image.Image:
    return Image.frombytes("RGB", (raster.width_px, raster.height_px), raster.rgb)


@asynccontextmanager
async def opened(models_dir: Path, keys: Iterable[str], slots: int) -> AsyncIterator[Artist]:
    """The engine with its default settings on one CPU thread, all models loaded and warm."""
    options = EngineOptions(models_dir=models_dir, device="cpu", dtype="float32", threads=1)
    async with open_engine(options) as engine:
        artist = Artist(cast("Engine", engine), slots)
        for key in keys:
            await engine.warm_up(ModelKey(key))
            for sampler in SAMPLERS:
                await artist.picture(Request(key, "a red circle", 2, 2.5, sampler, 0))
        yield artist
