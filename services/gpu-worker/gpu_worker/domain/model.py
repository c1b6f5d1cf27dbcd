"""Models as the catalogue shows them; what their weights do belongs to the engine."""

from __future__ import annotations

from dataclasses import dataclass

from easel_kit.ids import ModelKey


@dataclass(frozen=True, slots=True)
class PictureSize:
    """A width and height, in pixels, that a model was trained for."""

    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What a request that names none of these gets."""

    steps: int
    guidance: float
    width_px: int
    height_px: int
    sampler: str


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model of the catalogue; field by field the `Model` of the contract."""

    key: ModelKey
    name: str
    base: str
    type: str
    description: str
    licence: str
    defaults: ModelDefaults
    sizes: tuple[PictureSize, ...]
    max_steps: int
    max_prompt_tokens: int
    samplers: tuple[str, ...]
    loaded: bool = False
    unavailable_reason: str = ""
    features: tuple[str, ...] = ()
    """What requests may ask of it beyond a prompt; names as in the contract's `Model`."""
    size_bytes: int = 0
    """Of its files; 0 where unknown."""

    @property
    def usable(self) -> bool:
        """Whether jobs can name it."""
        return not self.unavailable_reason
