"""What a job asks for, and whether a model of this worker can draw it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from easel_kit.errors import InvalidInput
from easel_kit.ids import ModelKey
from gpu_worker.domain.model import ModelCard, PictureSize

SIZE_UNIT_PX = 8
"""Pictures are whole multiples of this, as the contract says; one latent cell of most models."""

MAX_GUIDANCE = 100.0
"""Far beyond use (pictures burn above 20), near enough to keep numbers finite."""

_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class Lora:
    """A low-rank adapter of the catalogue; weight 1 is as trained."""

    model_key: ModelKey
    weight: float


@dataclass(frozen=True, slots=True)
class InitImage:
    """A picture to begin with; white parts of the mask are painted anew, black ones kept.

    Attributes:
        object_key: of the picture.
        strength: above 0 to 1, how much may change.
        mask_object_key: empty for none.
    """

    object_key: str
    strength: float
    mask_object_key: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """A control network and the prepared picture that it reads; it acts from `begin` to `end`.

    Both are shares of the steps, 0 to 1; weight 1 is as trained.
    """

    model_key: ModelKey
    object_key: str
    weight: float = 1.0
    begin: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, slots=True)
class Hires:
    """A second pass over the enlarged picture: each side times `scale`, to a multiple of 8."""

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
    """How pictures are kept; quality 1 to 100 where the format has one, 0 for our choice."""

    format: ImageFormat = ImageFormat.PNG
    quality: int = 0
    with_settings: bool = True


@dataclass(frozen=True, slots=True)
class Generation:
    """`image_count` pictures of one prompt."""

    model_key: ModelKey
    prompt: str
    negative_prompt: str
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
    output: Output = Output()
    clip_skip: int = 0

    @property
    def input_keys(self) -> tuple[str, ...]:
        """Object keys of all pictures that it reads, each once."""
        keys = [control.object_key for control in self.controls]
        if self.init_image is not None:
            keys += [self.init_image.object_key, self.init_image.mask_object_key]
        return tuple(dict.fromkeys(key for key in keys if key))

    def seed_of(self, index: int) -> int:
        """Seed of picture `index`, counted from 0."""
        return (self.seed + index) % _SEEDS


@dataclass(frozen=True, slots=True)
class Limits:
    """What this worker takes at most, whatever the user's plan allows."""

    max_pixels: int
    max_images: int
    max_prompt_chars: int = 2000


def check_generation(asked: Generation, card: ModelCard, limits: Limits) -> None:
    """Refuses what cannot be drawn before any memory is touched.

    Raises:
        InvalidInput: names the field and says what would be right.
    """
    if not 1 <= len(asked.prompt) <= limits.max_prompt_chars:
        raise InvalidInput("prompt", f"must have 1 to {limits.max_prompt_chars} characters")
    if len(asked.negative_prompt) > limits.max_prompt_chars:
        raise InvalidInput(
            "negative_prompt", f"must have at most {limits.max_prompt_chars} characters"
        )
    if not 1 <= asked.steps <= card.max_steps:
        raise InvalidInput("steps", f"must be 1 to {card.max_steps}")
    if not (math.isfinite(asked.guidance) and 0 <= asked.guidance <= MAX_GUIDANCE):
        raise InvalidInput("guidance", f"must be 0 to {MAX_GUIDANCE:g}")
    if asked.sampler not in card.samplers:
        raise InvalidInput("sampler", f"must be one of {', '.join(card.samplers)}")
    if not 1 <= asked.image_count <= limits.max_images:
        raise InvalidInput("image_count", f"must be 1 to {limits.max_images}")
    if not 0 <= asked.seed < _SEEDS:
        raise InvalidInput("seed", f"must be 0 to {_SEEDS - 1}")
    _check_size(asked, card, limits)


def _check_size(asked: Generation, card: ModelCard, limits: Limits) -> None:
    for field, value in (("width_px", asked.width_px), ("height_px", asked.height_px)):
        if value < SIZE_UNIT_PX or value % SIZE_UNIT_PX:
            raise InvalidInput(field, f"must be a multiple of {SIZE_UNIT_PX}")
    if asked.width_px * asked.height_px > limits.max_pixels:
        raise InvalidInput(
            "width_px", f"times height_px must be at most {limits.max_pixels} on this worker"
        )
    if card.sizes and PictureSize(asked.width_px, asked.height_px) not in card.sizes:
        known = ", ".join(f"{size.width_px}x{size.height_px}" for size in card.sizes)
        raise InvalidInput("width_px", f"and height_px must be one of {known} for this model")
