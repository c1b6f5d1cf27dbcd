"""What a job asks for, and what this worker takes at most."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from easel_kit.ids import ModelKey

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
    """What this worker takes at most, whatever the user's plan allows.

    Attributes:
        max_pixels: width times height, also after a second pass.
        max_images: of one job.
        max_prompt_chars: of each prompt.
        max_loras: of one job.
        max_controls: of one job.
        job_time_limit_s: seconds that a job may run, parked time aside; 0 for no limit.
    """

    max_pixels: int
    max_images: int
    max_prompt_chars: int = 2000
    max_loras: int = 16
    max_controls: int = 8
    job_time_limit_s: float = 0.0
