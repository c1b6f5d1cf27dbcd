"""What goes beyond a prompt, as JSON: asked for and shown back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from easel_kit.ids import ImageId
from gateway.domain.generation import Control, Hires, ImageFormat, InitImage, Lora, Output
from gateway.domain.wish import ControlWish, HiresWish, InitWish, LoraWish
from gateway.web.schemas.base import IMAGE_EXAMPLE, Out

Key = Annotated[str, Field(min_length=1, max_length=100)]
Format = Literal["png", "webp", "jpeg"]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_LoraWeight = Annotated[_Number, Field(ge=-4, le=4, description="1 is as trained.")]
_ControlWeight = Annotated[_Number, Field(ge=0, le=2, description="1 is as trained.")]
_Share = Annotated[_Number, Field(ge=0, le=1)]
_Strength = Annotated[
    _Number,
    Field(gt=0, le=1, description="How much may change; about steps x strength steps run."),
]
_LibraryId = Annotated[
    str,
    Field(
        pattern=r"^img_[0-9a-f]{32}$",
        description="Id of a picture of your library, generated or uploaded.",
        examples=[IMAGE_EXAMPLE],
    ),
]


class In(BaseModel):
    """Base of requests: nothing unknown, nothing converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LoraIn(In):
    """A low-rank adapter of the catalogue, of the model's base."""

    model: Key = Field(description="Key of a model of type lora.")
    weight: _LoraWeight = 1.0

    def wish(self) -> LoraWish:
        """As the service takes it."""
        return LoraWish(self.model, self.weight)


class LoraOut(Out):
    """A low-rank adapter."""

    model: str
    weight: float

    @classmethod
    def of(cls, lora: Lora) -> LoraOut:
        """From the domain."""
        return cls(model=lora.model_key, weight=lora.weight)


class InitImageIn(In):
    """A picture to begin with; it is brought to width x height."""

    image: _LibraryId
    strength: _Strength
    mask: _LibraryId | None = Field(None, description="White is painted anew, black is kept.")

    def wish(self) -> InitWish:
        """As the service takes it."""
        mask = None if self.mask is None else ImageId(self.mask)
        return InitWish(ImageId(self.image), self.strength, mask)


class InitImageOut(Out):
    """What the picture began with."""

    image: str = Field(examples=[IMAGE_EXAMPLE])
    strength: float = Field(examples=[0.6])
    mask: str | None

    @classmethod
    def of(cls, init: InitImage) -> InitImageOut:
        """From the domain."""
        mask = init.mask.image_id if init.mask else None
        return cls(image=init.picture.image_id, strength=init.strength, mask=mask)


class ControlIn(In):
    """A control network of the catalogue and a picture prepared for it: edges, depth, a pose."""

    model: Key = Field(description="Key of a model of type controlnet.")
    image: _LibraryId
    weight: _ControlWeight = 1.0
    begin: _Share = Field(0.0, description="It acts from this share of the steps.")
    end: _Share = Field(1.0, description="It acts up to this share of the steps.")

    def wish(self) -> ControlWish:
        """As the service takes it."""
        return ControlWish(self.model, ImageId(self.image), self.weight, self.begin, self.end)


class ControlOut(Out):
    """A control network and what it read."""

    model: str
    image: str = Field(examples=[IMAGE_EXAMPLE])
    weight: float
    begin: float
    end: float

    @classmethod
    def of(cls, control: Control) -> ControlOut:
        """From the domain."""
        return cls(
            model=control.model_key,
            image=control.picture.image_id,
            weight=control.weight,
            begin=control.begin,
            end=control.end,
        )


class HiresIn(In):
    """A second pass: the finished picture is enlarged and denoised once more."""

    scale: float = Field(
        gt=1,
        le=4,
        allow_inf_nan=False,
        description="Of each side, to a multiple of 8; the plan bounds the result.",
    )
    steps: int | None = Field(None, ge=1, le=1000, description="Default: as the first pass.")
    strength: _Strength | None = Field(None, description="Default: 0.5.")

    def wish(self) -> HiresWish:
        """As the service takes it."""
        return HiresWish(self.scale, self.steps, self.strength)


class HiresOut(Out):
    """The second pass."""

    scale: float
    steps: int
    strength: float

    @classmethod
    def of(cls, hires: Hires) -> HiresOut:
        """From the domain."""
        return cls(scale=hires.scale, steps=hires.steps, strength=hires.strength)


class OutputIn(In):
    """How the pictures are kept."""

    format: Format = "png"
    quality: int | None = Field(
        None, ge=1, le=100, description="Of webp and jpeg; default: a good one."
    )
    settings: bool = Field(
        default=True, description="Write into the file what it was made with, prompt included."
    )

    def wish(self) -> Output:
        """As the service takes it."""
        return Output(ImageFormat(self.format), self.quality, self.settings)


class OutputOut(Out):
    """How the pictures are kept."""

    format: Format
    quality: int | None
    settings: bool

    @classmethod
    def of(cls, output: Output) -> OutputOut:
        """From the domain."""
        return cls(
            format=output.format.value, quality=output.quality, settings=output.with_settings
        )
