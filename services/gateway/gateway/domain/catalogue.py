"""Models on offer, and what each of them can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from easel_kit.errors import InvalidInput, Overloaded
from easel_kit.ids import ModelKey


class ModelType(StrEnum):
    """The kinds of models that requests name."""

    MAIN = "main"
    LORA = "lora"
    CONTROLNET = "controlnet"


class Feature(StrEnum):
    """What a request may ask of a main model beyond a prompt, as the contract's `Model` says."""

    IMAGE_TO_IMAGE = "image_to_image"
    INPAINT = "inpaint"
    HIRES = "hires"
    LORAS = "loras"
    CONTROLS = "controls"
    CLIP_SKIP = "clip_skip"


@dataclass(frozen=True, slots=True)
class Size:
    """A width and height in pixels."""

    width_px: int
    height_px: int

    def __str__(self) -> str:
        """As in `64x64`."""
        return f"{self.width_px}x{self.height_px}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefaults:
    """What a wish gets that names none of these."""

    steps: int
    guidance: float
    size: Size
    sampler: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the catalogue; no `sizes` means any multiple of 8 within the plan."""

    key: ModelKey
    name: str
    base: str
    type: str
    description: str
    licence: str
    defaults: ModelDefaults
    sizes: tuple[Size, ...]
    max_steps: int
    max_prompt_tokens: int
    samplers: tuple[str, ...]
    loaded: bool
    unavailable_reason: str
    features: tuple[str, ...] = ()
    size_bytes: int = 0

    def must_offer(self, feature: Feature, field: str) -> None:
        """Refuses `field` where the model does not do this.

        Raises:
            InvalidInput: it does not.
        """
        if feature not in self.features:
            offered = ", ".join(self.features) or "nothing beyond a prompt"
            raise InvalidInput(field, f"is not offered by {self.key}; it offers: {offered}")


def main_model(key: str | None, models: Sequence[Model]) -> Model:
    """The main model of that key; without one the first that can be used.

    Raises:
        InvalidInput: `model` is unknown, or cannot be used.
        Overloaded: no model can be used at this moment.
    """
    mains = [model for model in models if model.type == ModelType.MAIN]
    if key is not None:
        return _named(key, mains, "model")
    for model in mains:
        if not model.unavailable_reason:
            return model
    raise Overloaded("no model is ready at this moment")


def companion(
    key: str, kind: ModelType, main: Model, models: Sequence[Model], field: str
) -> ModelKey:
    """The key of an adapter or control network that goes with a main model.

    Raises:
        InvalidInput: `field` is unknown, of another kind or base, or cannot be used.
    """
    fitting = [model for model in models if model.type == kind and model.base == main.base]
    for model in models:
        if model.key == key and model.type != kind:
            raise InvalidInput(field, f"is of type {model.type}, not {kind}")
        if model.key == key and model.base != main.base:
            raise InvalidInput(field, f"is for {model.base}; {main.key} is {main.base}")
    return _named(key, fitting, field).key


def _named(key: str, among: Sequence[Model], field: str) -> Model:
    for model in among:
        if model.key == key:
            if model.unavailable_reason:
                raise InvalidInput(field, f"cannot be used: {model.unavailable_reason}")
            return model
    usable = [model.key for model in among if not model.unavailable_reason]
    offered = ", ".join(usable) or "nothing at this moment"
    raise InvalidInput(field, f"is unknown; on offer: {offered}")
