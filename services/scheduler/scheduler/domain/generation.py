"""What a job asks for: pictures of a prompt, and what a request may say beyond one.

The scheduler keeps it and passes it on; of all this it reads the model and the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from easel_kit.ids import ModelKey


@dataclass(frozen=True, slots=True)
class Lora:
    """A low-rank adapter; weight 1 is as trained."""

    model_key: ModelKey
    weight: float


@dataclass(frozen=True, slots=True)
class InitImage:
    """A picture to begin with and, empty for none, a mask: object keys and their library's ids."""

    object_key: str
    strength: float
    """Above 0 to 1: how much of it may change."""
    mask_object_key: str = ""
    image_id: str = ""
    mask_image_id: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """A control network and its picture; it acts between two shares of the steps, 0 to 1."""

    model_key: ModelKey
    object_key: str
    weight: float
    begin: float
    end: float
    image_id: str = ""


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
    """How pictures are kept; no format and quality 0 leave the choice to the worker."""

    format: ImageFormat | None = None
    quality: int = 0
    without_settings: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """What to draw: `image_count` pictures of one prompt. Prompts are never logged."""

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
    reckoned_steps: int = 0
    """Over all pictures and passes, as the caller reckons them; 0: steps x image_count."""
    loras: tuple[Lora, ...] = ()
    init_image: InitImage | None = None
    controls: tuple[Control, ...] = ()
    hires: Hires | None = None
    output: Output | None = None
    clip_skip: int = 0

    @property
    def total_steps(self) -> int:
        """Denoising steps over all pictures and passes; `total_steps` of the database agrees."""
        return self.reckoned_steps or self.steps * self.image_count
