"""What operators say of a model: in `easel.json` beside its files, or in the catalogue file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

_Row = Annotated[list[float], Field(min_length=1)]
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _sums(value: dict[str, str]) -> dict[str, str]:
    lower = {name: digest.lower() for name, digest in value.items()}
    for name, digest in lower.items():
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"{name}: must be 64 hexadecimal digits")
    return lower


Key = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sums = Annotated[dict[str, str], AfterValidator(_sums)]
ModelType = Literal["main", "lora", "controlnet"]


class PresetError(ValueError):
    """A preset is wrong; the text names the field."""


class Defaults(BaseModel):
    """What a request that names none of these gets."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    steps: int = Field(1, ge=1)
    guidance: float = Field(1.0, ge=0)
    width_px: int = Field(64, ge=8, multiple_of=8)
    height_px: int = Field(64, ge=8, multiple_of=8)
    sampler: str = ""


class Preset(BaseModel):
    """All that is said of one model; fields that only other services read are passed over.

    Attributes:
        file: the one file of the source that counts, e.g. one LoRA of many.
        variant: weights of this variant (`fp16`) are fetched where there are such.
        config: of a single-file checkpoint: a diffusers folder (or its source) that says how the
            parts are built, with tokenizers; its weights are not needed.
        sha256: of files, by their path inside the source.
        pipeline: class that a remote model is taken for until its files are here; empty: by base.
        size_bytes: of the weights of a remote model until its files are here.
        known_words: all words that the model knows, in lower case.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: Key
    name: str = Field(min_length=1)
    base: str = Field(min_length=1)
    type: ModelType = "main"
    description: str = ""
    licence: str = ""
    defaults: Defaults = Defaults()
    sizes: list[tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]]] = []
    max_steps: int = Field(150, ge=1)
    max_prompt_tokens: int = Field(75, ge=1)
    samplers: list[str] = []
    latent_rgb: list[_Row] | None = Field(None, min_length=3, max_length=3)
    latent_rgb_bias: list[float] | None = Field(None, min_length=3, max_length=3)
    known_words: list[str] | None = None
    file: str = ""
    variant: str = Field("", pattern=r"^[a-z0-9_]{0,32}$")
    config: str = ""
    sha256: Sums = {}
    pipeline: str = ""
    size_bytes: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _main_models_say_their_defaults(self) -> Self:
        if self.type == "main":
            for name in Defaults.model_fields:
                if name not in self.defaults.model_fields_set:
                    raise ValueError(f"defaults.{name}: a main model says it")
        return self


class Listed(BaseModel):
    """What only an entry of the catalogue file says; its other fields are those of `Preset`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: Key
    source: str = Field(min_length=1)
    allow_moving: bool = False
    """Whether the revision of a hub may be a branch or tag, whose files can change."""


PASSED_OVER = frozenset({"price_factor", "commercial_use", "homepage"})
"""Fields of a preset that others may read: known, so that a misspelt one can be told."""

KNOWN = frozenset({*Preset.model_fields, *Listed.model_fields, *PASSED_OVER})


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One preset of several; later ones win, field by field also inside of `defaults`."""
    merged: dict[str, Any] = {}
    for part in parts:
        both = (merged.get("defaults"), part.get("defaults"))
        merged |= part
        if isinstance(both[0], dict) and isinstance(both[1], dict):
            merged["defaults"] = both[0] | both[1]
    return merged


def read_preset(data: Mapping[str, Any]) -> Preset:
    """Checks a preset.

    Raises:
        PresetError: some field is missing or wrong.
    """
    try:
        return Preset.model_validate(data)
    except ValidationError as error:
        raise PresetError(tell(error)) from None


def tell(error: ValidationError) -> str:
    """The first thing that is wrong, as `field.of.field: what`."""
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {message}" if where else message
