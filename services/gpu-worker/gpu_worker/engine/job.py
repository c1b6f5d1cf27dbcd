"""One job inside the engine: everything that makes its pictures its own.

Nothing here is shared between jobs, and nothing between pictures of a job: a picture has its own
scheduler object (they keep state), generator, latents and position. The model is shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import torch

from easel_kit.ids import AttemptId, ModelKey
from gpu_worker.domain.drawing import DrawnPicture, Figures, Outcome, Raster, StepProgress
from gpu_worker.domain.generation import SIZE_UNIT_PX, Generation
from gpu_worker.engine.model import Adaptation, Encoded, Model, Network, Tensors
from gpu_worker.engine.pixels import enlarged, pasted, to_pixels
from gpu_worker.engine.trajectory import Pass, Trajectory, begin
from gpu_worker.engine.whole import WholeModel, WholeRun


class Listener(Protocol):
    """Who asked for a job. Called on the engine's thread; must return at once."""

    def progressed(self, progress: StepProgress) -> None:
        """After each step."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Once, and nothing after it."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """A job as it is posted."""

    attempt_id: AttemptId
    asked: Generation
    inputs: Mapping[str, Raster]
    listener: Listener
    arrived_s: float
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """What pictures must share to take their steps in one forward.

    Not guidance, steps, seed, sampler or position: those are each row's own.
    """

    model: ModelKey
    dtype: torch.dtype
    width_px: int
    height_px: int
    adapters: tuple[tuple[ModelKey, float], ...]
    controls: tuple[ModelKey, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """Of all conditioning."""
    alone: AttemptId | None = None
    """Set where nothing else can share the forward."""


@dataclass(frozen=True, slots=True)
class Steer:
    """One control network on a job, and the picture that it reads."""

    key: ModelKey
    network: Network
    picture: Raster
    weight: float
    begin: float
    end: float

    def scale_at(self, position: int, steps: int) -> float:
        """Its weight at a step, 0 outside of its share of the steps (as diffusers cuts it)."""
        outside = position / steps < self.begin or (position + 1) / steps > self.end
        return 0.0 if outside else self.weight


@dataclass(slots=True)
class Conditioning:
    """Encoded prompts of one job; `negative` is None where no guidance uses it."""

    positive: Encoded
    negative: Encoded | None
    warnings: tuple[str, ...] = ()

    @property
    def prompts(self) -> tuple[Tensors, ...]:
        """One per row of a picture, the negative prompt first."""
        if self.negative is None:
            return (self.positive.tensors,)
        return (self.negative.tensors, self.positive.tensors)


@dataclass(slots=True)
class Tally:
    """A job's figures while they grow."""

    device_s: float = 0.0
    forwards: int = 0
    rows: int = 0
    first_step_s: float | None = None
    parked_s: float = 0.0

    def note_step(self, share_s: float, rows: int, since_arrival_s: float) -> None:
        """One step in a forward of `rows` rows, of whose time this is its share."""
        self.device_s += share_s
        self.forwards += 1
        self.rows += rows
        if self.first_step_s is None:
            self.first_step_s = since_arrival_s

    def total(self) -> Figures:
        """For the outcome."""
        mean = self.rows / self.forwards if self.forwards else 0.0
        return Figures(self.device_s, mean, self.first_step_s, self.parked_s)


@dataclass(slots=True, eq=False)
class Picture:
    """One of a job's pictures; what it is doing now is its `work`."""

    job: JobState
    seed: int
    generator: torch.Generator
    passes: tuple[Pass, ...]
    work: Trajectory | WholeRun
    key: BatchKey
    pass_number: int = 0
    raster: Raster | None = None
    """Set when it is done."""
    steers: tuple[torch.Tensor, ...] = ()
    """What each control network reads, (1, 3, height_px, width_px), 0 to 1, on the device."""

    @property
    def row_count(self) -> int:
        """Rows that it brings into a forward."""
        return len(self.job.conditioning.prompts)

    @property
    def steps_total(self) -> int:
        """Of all passes: of those begun what the scheduler really takes, of others the plan."""
        done = sum(one.steps_to_run for one in self.passes[: self.pass_number])
        left = sum(one.steps_to_run for one in self.passes[self.pass_number + 1 :])
        return done + self.work.steps_total + left


@dataclass(slots=True, eq=False)
class JobState:
    """A job that the engine runs, until its listener has heard the outcome."""

    order: Order
    keys: tuple[ModelKey, ...]
    """All that it has pinned in the cache."""
    model: Model | WholeModel
    adaptations: tuple[Adaptation, ...]
    steers: tuple[Steer, ...]
    conditioning: Conditioning
    pictures: list[Picture] = field(default_factory=list)
    steps_done: int = 0
    alone: bool = False
    """It was part of a forward that failed: its next step is taken by itself."""
    parked_at_s: float | None = None
    last_preview_s: float = float("-inf")
    figures: Tally = field(default_factory=Tally)

    @property
    def stepper(self) -> Model:
        """Its model, which is none that runs whole."""
        return cast("Model", self.model)  # asking for a protocol's every property takes its time

    @property
    def listener(self) -> Listener:
        """Who asked for it."""
        return self.order.listener

    @property
    def attempt_id(self) -> AttemptId:
        """Its name."""
        return self.order.attempt_id

    @property
    def steps_total(self) -> int:
        """Steps of all pictures; what the samplers really take, not what was asked."""
        return sum(picture.steps_total for picture in self.pictures)

    def drawn(self) -> tuple[DrawnPicture, ...] | None:
        """The pictures in the order of their seeds, once all are there."""
        done = [
            DrawnPicture(picture.seed, picture.raster)
            for picture in self.pictures
            if picture.raster is not None
        ]
        return tuple(done) if len(done) == len(self.pictures) else None

    def add_picture(self, index: int) -> None:
        """Draws the noise of picture `index`.

        Raises:
            CannotDraw: the sampler cannot do that number of steps.
        """
        asked = self.order.asked
        seed = asked.seed_of(index)
        generator = torch.Generator("cpu").manual_seed(seed)
        work: Trajectory | WholeRun
        if isinstance(self.model, WholeModel):
            passes: tuple[Pass, ...] = (first_pass(asked, self.order.inputs),)
            work = self.model.begin(asked, self.order.inputs, generator)
        else:
            passes = (first_pass(asked, self.order.inputs), *_second_pass(asked))
            work = begin(passes[0], self.model, generator)
        picture = Picture(self, seed, generator, passes, work, self._key(work))
        picture.steers = self._control_pictures(passes[0])
        self.pictures.append(picture)

    def finish_pass(self, picture: Picture, raster: Raster) -> None:
        """The pass is decoded: the picture is done, or its next pass begins with it.

        Raises:
            CannotDraw: the sampler cannot do that number of steps.
        """
        work = picture.work
        asked = work.asked if isinstance(work, Trajectory) else picture.passes[0]
        if asked.start is not None and asked.mask is not None:
            raster = pasted(asked.start, raster, asked.mask)
        if picture.pass_number + 1 == len(picture.passes):
            picture.raster = raster
            return
        picture.pass_number += 1
        plan = picture.passes[picture.pass_number]
        following = replace(
            plan, start=enlarged(raster, plan.width_px, plan.height_px), mask=asked.mask
        )
        picture.work = begin(following, self.stepper, picture.generator)
        picture.key = self._key(picture.work)
        picture.steers = self._control_pictures(plan)

    def _key(self, work: Trajectory | WholeRun) -> BatchKey:
        asked = self.order.asked
        if isinstance(work, WholeRun):
            shapes: dict[str, tuple[int, ...]] = {}
            size = (asked.width_px, asked.height_px)
        else:
            tensors = {**self.conditioning.positive.tensors, **work.fixed}
            shapes = {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}
            size = (work.asked.width_px, work.asked.height_px)
        return BatchKey(
            model=asked.model_key,
            dtype=self.model.dtype,
            width_px=size[0],
            height_px=size[1],
            adapters=tuple((one.key, one.weight) for one in self.adaptations),
            controls=tuple(steer.key for steer in self.steers),
            shapes=tuple(sorted(shapes.items())),
            alone=self.attempt_id if isinstance(work, WholeRun) else None,
        )

    def _control_pictures(self, asked: Pass) -> tuple[torch.Tensor, ...]:
        return tuple(
            to_pixels(steer.picture, asked.width_px, asked.height_px).to(
                device=self.model.device, dtype=self.model.dtype
            )
            for steer in self.steers
        )


def first_pass(asked: Generation, inputs: Mapping[str, Raster]) -> Pass:
    """From noise, or from the picture that the job begins with."""
    init = asked.init_image
    return Pass(
        width_px=asked.width_px,
        height_px=asked.height_px,
        sampler=asked.sampler,
        steps=asked.steps,
        guidance=asked.guidance,
        strength=1.0 if init is None else init.strength,
        start=None if init is None else inputs[init.object_key],
        mask=inputs[init.mask_object_key] if init and init.mask_object_key else None,
    )


def _second_pass(asked: Generation) -> Sequence[Pass]:
    hires = asked.hires
    if hires is None:
        return ()
    blank = Raster(1, 1, bytes(3))  # stands for the first pass's picture, which is not there yet
    return (
        Pass(
            width_px=_grown(asked.width_px, hires.scale),
            height_px=_grown(asked.height_px, hires.scale),
            sampler=asked.sampler,
            steps=hires.steps,
            guidance=asked.guidance,
            strength=hires.strength,
            start=blank,
        ),
    )


def _grown(side_px: int, scale: float) -> int:
    return round(side_px * scale / SIZE_UNIT_PX) * SIZE_UNIT_PX
