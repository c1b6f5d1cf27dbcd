"""One pass of one picture, from noise (or a noised picture) to finished latents.

Each function does what diffusers' text-to-image, image-to-image and inpainting pipelines do between
their first random number and their last step, in the same order, so that a picture alone comes out
bitwise equal to theirs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.flow import FLOW_SAMPLERS
from gpu_worker.engine.model import Model, Scheduler, Tensors
from gpu_worker.engine.pixels import to_mask, to_pixels
from gpu_worker.engine.samplers import begin_at


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass shall do.

    Attributes:
        width_px: of the picture.
        height_px: of the picture.
        sampler: a name of the table.
        steps: of the whole schedule.
        guidance: classifier-free guidance scale.
        strength: how much of `start` may change; about `steps * strength` steps run.
        start: what to begin with; None: noise alone.
        mask: where `start` is painted anew; None: everywhere.
    """

    width_px: int
    height_px: int
    sampler: str
    steps: int
    guidance: float
    strength: float = 1.0
    start: Raster | None = None
    mask: Raster | None = None

    @property
    def steps_to_run(self) -> int:
        """Steps that will really run, for samplers that take one forward a step."""
        if self.start is None:
            return self.steps
        if self.sampler in FLOW_SAMPLERS:  # these pipelines round a part of a step up
            return self.steps - int(
                max(self.steps - min(self.steps * self.strength, self.steps), 0)
            )
        return max(1, min(int(self.steps * self.strength), self.steps))


@dataclass(frozen=True, slots=True)
class Blend:
    """What inpainting puts back after each step, outside of the mask; all shaped as latents."""

    mask: torch.Tensor
    clean: torch.Tensor
    noise: torch.Tensor


@dataclass(slots=True)
class Trajectory:
    """Latents (1, ...) of one pass and where they stand."""

    asked: Pass
    scheduler: Scheduler
    timesteps: torch.Tensor
    options: Mapping[str, object]
    latents: torch.Tensor
    fixed: Tensors
    """Conditioning by size and guidance."""
    blend: Blend | None = None
    extra: torch.Tensor | None = None
    """Channels that the denoiser sees besides, for inpainting models that read the mask."""
    position: int = 0

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.position >= len(self.timesteps)

    @property
    def steps_total(self) -> int:
        """What the sampler really takes."""
        return len(self.timesteps)

    @property
    def timestep(self) -> torch.Tensor:
        """Of the next step, 0-dimensional, on the CPU."""
        return self.timesteps[self.position]

    def scaled(self) -> torch.Tensor:
        """The latents as the denoiser wants to see them at the next step."""
        scale = getattr(self.scheduler, "scale_model_input", None)  # flow matching needs none
        scaled: torch.Tensor = scale(self.latents, self.timestep) if scale else self.latents
        return scaled

    def sample(self) -> torch.Tensor:
        """All that the denoiser sees at the next step."""
        scaled = self.scaled()
        return scaled if self.extra is None else torch.cat([scaled, self.extra], dim=1)

    def advance(self, prediction: torch.Tensor) -> None:
        """Takes the next step with the (guided) prediction."""
        latents = self.scheduler.step(
            prediction, self.timestep, self.latents, **self.options, return_dict=False
        )[0]
        self.position += 1
        self.latents = latents if self.blend is None else self._blended(self.blend, latents)

    def _blended(self, blend: Blend, latents: torch.Tensor) -> torch.Tensor:
        clean = blend.clean
        if not self.finished:
            clean = self.scheduler.add_noise(clean, blend.noise, self.timestep[None])
        return (1 - blend.mask) * clean + blend.mask * latents


def begin(asked: Pass, model: Model, generator: torch.Generator) -> Trajectory:
    """Everything before the first step.

    Raises:
        CannotDraw: the sampler cannot do that number of steps.
    """
    size = (asked.width_px, asked.height_px)
    scheduler = model.schedule(asked.sampler, asked.steps, *size)
    trajectory = Trajectory(
        asked=asked,
        scheduler=scheduler,
        timesteps=scheduler.timesteps,
        options=step_options(scheduler, generator),
        latents=torch.empty(0),
        fixed=model.place(*size, asked.guidance),
    )
    if asked.start is None:
        noise = model.noise(*size, generator)
        trajectory.latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    else:
        _skip_to_strength(trajectory)
        _start_from_picture(trajectory, asked.start, model, generator)
    if model.reads_masks and asked.mask is None:
        _paint_everywhere(trajectory, model, generator)
    return trajectory


def _skip_to_strength(trajectory: Trajectory) -> None:
    scheduler, asked = trajectory.scheduler, trajectory.asked
    skipped = (asked.steps - asked.steps_to_run) * getattr(scheduler, "order", 1)
    trajectory.timesteps = scheduler.timesteps[skipped:]
    begin_at(scheduler, skipped)


def _start_from_picture(
    trajectory: Trajectory, start: Raster, model: Model, generator: torch.Generator
) -> None:
    # the order in which random numbers are drawn is diffusers': picture, noise, masked picture
    asked, scheduler = trajectory.asked, trajectory.scheduler
    size = (asked.width_px, asked.height_px)
    pixels = to_pixels(start, *size) * 2 - 1
    from_noise = asked.mask is not None and asked.strength >= 1
    clean = torch.empty(0)
    if not (from_noise and model.reads_masks):
        clean = model.encode_image(pixels, *size, generator)
        if asked.mask is not None or model.reads_masks:
            clean = clean.contiguous()  # as diffusers' inpainting has it: strides choose kernels
    noise = model.noise(*size, generator)
    if from_noise:
        trajectory.latents = noise * scheduler.init_noise_sigma
    else:
        trajectory.latents = _add_noise(scheduler, clean, noise, trajectory.timestep[None])
    if asked.mask is None:
        return
    mask = to_mask(asked.mask, *size)
    hidden = model.encode_image(pixels * (mask < 0.5), *size, generator)  # noqa: PLR2004 (half)
    shrunk = model.shrink_mask(mask, *size)
    if model.reads_masks:
        trajectory.extra = torch.cat([shrunk, hidden], dim=1)
    else:
        trajectory.blend = Blend(shrunk, clean, noise)


def _paint_everywhere(trajectory: Trajectory, model: Model, generator: torch.Generator) -> None:
    """What a denoiser that reads masks sees where nobody gave one: nothing is kept."""
    size = (trajectory.asked.width_px, trajectory.asked.height_px)
    anew = torch.ones(1, 1, size[1], size[0])
    nothing = torch.zeros(1, size[1], size[0], 3).permute(0, 3, 1, 2)  # strides as `to_pixels`
    hidden = model.encode_image(nothing, *size, generator)
    trajectory.extra = torch.cat([model.shrink_mask(anew, *size), hidden], dim=1)


def _add_noise(
    scheduler: Scheduler, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    # flow-matching schedulers name their interpolation differently
    mix = getattr(scheduler, "scale_noise", None)
    mixed: torch.Tensor = (
        mix(clean, timestep, noise) if mix else scheduler.add_noise(clean, noise, timestep)
    )
    return mixed


def step_options(scheduler: Scheduler, generator: torch.Generator) -> dict[str, object]:
    """What `scheduler.step` takes beside the usual, decided as the stock pipelines decide it."""
    known = _step_parameters(scheduler.__class__)
    options: dict[str, object] = {}
    if "eta" in known:
        options["eta"] = 0.0
    if "generator" in known:
        options["generator"] = generator
    return options


@cache
def _step_parameters(scheduler: Any) -> frozenset[str]:  # noqa: ANN401 (see Scheduler)
    return frozenset(inspect.signature(scheduler.step).parameters)
