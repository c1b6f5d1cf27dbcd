"""A complete order, the passes that it takes, and what they cost the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from easel_kit.ids import ImageId, ModelKey

# Milliseconds that one step at one megapixel takes on the reference GPU, guidance off. Only the
# ratios between jobs matter; the scheduler corrects the figure by what a job really took.
_REFERENCE_STEP_MS = 100
_FLOW = "flow_"
"""How the names of samplers for flow-matching models begin."""
_PIXELS_PER_MEGAPIXEL = 1_000_000
GRAIN_PX = 8
"""Sides are multiples of this many pixels (the grain of latents)."""


@dataclass(frozen=True, slots=True)
class Lora:
    """A low-rank adapter; weight 1 is as trained."""

    model_key: ModelKey
    weight: float


@dataclass(frozen=True, slots=True)
class Source:
    """A picture of the caller's library that a job reads, and where its bytes are."""

    image_id: ImageId
    object_key: str


@dataclass(frozen=True, slots=True)
class InitImage:
    """A picture to begin with; white parts of the mask are painted anew."""

    picture: Source
    strength: float
    """Above 0 to 1: how much may change."""
    mask: Source | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """A control network and what it reads; it acts between two shares of the steps, 0 to 1."""

    model_key: ModelKey
    picture: Source
    weight: float
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Hires:
    """A second pass over the picture, each side times `scale`."""

    scale: float
    steps: int
    strength: float


class ImageFormat(StrEnum):
    """What files pictures become."""

    PNG = "png"
    WEBP = "webp"
    JPEG = "jpeg"


@dataclass(frozen=True, slots=True)
class Output:
    """How pictures are kept; no quality leaves the choice to the worker."""

    format: ImageFormat = ImageFormat.PNG
    quality: int | None = None
    with_settings: bool = True


USUAL_OUTPUT = Output()
"""Where a request says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A complete order: `image_count` pictures of one prompt. Sizes in pixels."""

    model_key: ModelKey
    prompt: str = field(repr=False)
    negative_prompt: str = field(repr=False)
    width_px: int
    height_px: int
    steps: int
    guidance: float
    seed: int
    sampler: str
    image_count: int
    loras: tuple[Lora, ...] = ()
    init_image: InitImage | None = None
    controls: tuple[Control, ...] = ()
    hires: Hires | None = None
    output: Output = USUAL_OUTPUT
    clip_skip: int = 0

    @property
    def sources(self) -> dict[str, Source]:
        """What it reads of the library, by the field that names it."""
        found = {f"controls.{n}.image": one.picture for n, one in enumerate(self.controls)}
        if self.init_image is not None:
            found["init_image.image"] = self.init_image.picture
            if self.init_image.mask is not None:
                found["init_image.mask"] = self.init_image.mask
        return found


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of denoising: so many steps at this size, for each picture."""

    width_px: int
    height_px: int
    steps: int

    @property
    def pixel_steps(self) -> int:
        """Pixels x steps."""
        return self.width_px * self.height_px * self.steps


def passes(order: Generation) -> tuple[Pass, ...]:
    """What is run for each picture of an order, in turn; the last one has the finished size."""
    init, hires = order.init_image, order.hires
    first = order.steps if init is None else _begun(order, order.steps, init.strength)
    found = (Pass(order.width_px, order.height_px, first),)
    if hires is None:
        return found
    second = Pass(
        enlarged(order.width_px, hires.scale),
        enlarged(order.height_px, hires.scale),
        _begun(order, hires.steps, hires.strength),
    )
    return (*found, second)


def _begun(order: Generation, steps: int, strength: float) -> int:
    """Steps that run on a picture begun with: diffusers' `get_timesteps`, but at least one.

    Its pipelines for flow-matching models round a part of a step up, all others down.
    """
    exact = min(steps * strength, steps)
    run = steps - int(steps - exact) if order.sampler.startswith(_FLOW) else int(exact)
    return max(1, run)


def enlarged(side_px: int, scale: float) -> int:
    """A side after the second pass: to the nearest multiple of 8, as workers round it."""
    return round(side_px * scale / GRAIN_PX) * GRAIN_PX


def total_steps(order: Generation) -> int:
    """Denoising steps over all passes and pictures: what progress counts to."""
    return sum(one.steps for one in passes(order)) * order.image_count


def pixel_steps(order: Generation) -> int:
    """Pixels x steps over all passes and pictures: what is paid for."""
    return sum(one.pixel_steps for one in passes(order)) * order.image_count


def is_plain(order: Generation) -> bool:
    """Whether its work is size x steps x pictures."""
    return order.init_image is None and order.hires is None


def cost_ms(order: Generation) -> int:
    """Estimated work in reference GPU-milliseconds, at least 1; guidance doubles it."""
    forwards = 2 if order.guidance > 1 else 1
    work = pixel_steps(order) * forwards * _REFERENCE_STEP_MS
    return max(1, round(work / _PIXELS_PER_MEGAPIXEL))
