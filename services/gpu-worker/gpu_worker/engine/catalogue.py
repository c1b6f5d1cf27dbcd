"""The models on disk: which directories hold one, what they say of themselves, what is wrong.

A model directory is a saved diffusers pipeline (`model_index.json`, weights in safetensors) with
an `easel.json` beside it that holds the preset. Nothing here loads weights or torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import diffusers.pipelines
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from easel_kit.errors import InvalidState, NotFound
from easel_kit.ids import ModelKey
from easel_kit.log import get_logger
from gpu_worker.domain.model import ModelCard, ModelDefaults, PictureSize
from gpu_worker.engine.served import served_as

PRESET_FILE = "easel.json"
INDEX_FILE = "model_index.json"

_MODEL_FILE = "config.json"
"""Lies in a part's folder where the part has weights."""

_Row = Annotated[list[float], Field(min_length=1)]

_log = get_logger(__name__)


class _Defaults(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    steps: int = Field(ge=1)
    guidance: float = Field(ge=0)
    width_px: int = Field(ge=8, multiple_of=8)
    height_px: int = Field(ge=8, multiple_of=8)
    sampler: str


class _Preset(BaseModel):
    """What stands in `easel.json`; fields that only other services read are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    name: str = Field(min_length=1)
    base: str = Field(min_length=1)
    type: str = "main"
    description: str = ""
    licence: str = ""
    defaults: _Defaults
    sizes: list[tuple[int, int]] = []
    max_steps: int = Field(150, ge=1)
    max_prompt_tokens: int = Field(75, ge=1)
    samplers: list[str] = []
    latent_rgb: list[_Row] | None = Field(None, min_length=3, max_length=3)
    latent_rgb_bias: list[float] | None = Field(None, min_length=3, max_length=3)


@dataclass(frozen=True, slots=True)
class LatentMap:
    """A linear look at latents: `rgb = weights @ latent + bias`, each colour in 0 to 1."""

    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue and where its files are."""

    card: ModelCard
    path: Path
    latent_map: LatentMap | None = None
    known_words: frozenset[str] | None = None
    """Lower-case; None where the model has no fixed vocabulary."""


class Catalogue:
    """What `models_dir` holds, read at start and again for a model that is asked for anew."""

    def __init__(self, models_dir: Path, samplers: tuple[str, ...]) -> None:
        """Reads every directory; a broken one becomes an entry that says why.

        Args:
            models_dir: its direct children are the models; it may be absent.
            samplers: names that the engine knows; a preset may list fewer.
        """
        self._samplers = samplers
        self._entries: dict[ModelKey, Entry] = {}
        children = sorted(models_dir.iterdir()) if models_dir.is_dir() else []
        for path in children:
            if (path / PRESET_FILE).is_file() or (path / INDEX_FILE).is_file():
                self._admit(read_entry(path, samplers))

    def entries(self) -> tuple[Entry, ...]:
        """All models, by key."""
        return tuple(self._entries[key] for key in sorted(self._entries))

    def find(self, key: ModelKey) -> Entry:
        """One model.

        Raises:
            NotFound: no such key.
        """
        try:
            return self._entries[key]
        except KeyError:
            raise NotFound("model", key) from None

    def check_usable(self, key: ModelKey) -> None:
        """Whether a model can be had at all.

        Raises:
            NotFound: no such key.
            InvalidState: it is unavailable; says why.
        """
        reason = self.find(key).card.unavailable_reason
        if reason:
            raise InvalidState(f"model {key} is unavailable: {reason}")

    def refresh(self, key: ModelKey) -> Entry:
        """Reads the model's files again, so that a repaired directory serves without a restart.

        Raises:
            NotFound: no such key.
        """
        found = read_entry(self.find(key).path, self._samplers)
        if found.card.key != key:
            found = _broken(found.path, key, f"its {PRESET_FILE} now names another key")
        self._entries[key] = found
        return found

    def mark_unavailable(self, key: ModelKey, reason: str) -> None:
        """Notes that the model's files turned out unusable.

        Raises:
            NotFound: no such key.
        """
        entry = self.find(key)
        self._entries[key] = replace(entry, card=replace(entry.card, unavailable_reason=reason))
        _log.warning("model.refused", model=key, reason=reason)

    def _admit(self, entry: Entry) -> None:
        key = entry.card.key
        if entry.card.unavailable_reason:
            _log.warning("model.refused", model=key, reason=entry.card.unavailable_reason)
        if key in self._entries:
            _log.warning("model.duplicated", model=key, directory=entry.path.name)
            return
        self._entries[key] = entry


def read_entry(path: Path, samplers: tuple[str, ...]) -> Entry:
    """The entry for one directory, unavailable with a reason where something is wrong."""
    try:
        preset = _Preset.model_validate_json((path / PRESET_FILE).read_bytes())
    except OSError:
        return _broken(path, ModelKey(path.name), f"{PRESET_FILE} is missing or unreadable")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        return _broken(path, ModelKey(path.name), f"{PRESET_FILE}: {where}: {first['msg']}")
    index = _read_index(path / INDEX_FILE)
    reason = index if isinstance(index, str) else _find_fault(path, index)
    own = served_as("" if isinstance(index, str) else index["_class_name"]).samplers
    offered = tuple(name for name in (preset.samplers or own) if name in own and name in samplers)
    if not reason and preset.defaults.sampler not in offered:
        reason = f"{PRESET_FILE}: the default sampler is not among its samplers"
    defaults = preset.defaults
    card = ModelCard(
        key=ModelKey(preset.key),
        name=preset.name,
        base=preset.base,
        type=preset.type,
        description=preset.description,
        licence=preset.licence,
        defaults=ModelDefaults(
            steps=defaults.steps,
            guidance=defaults.guidance,
            width_px=defaults.width_px,
            height_px=defaults.height_px,
            sampler=defaults.sampler,
        ),
        sizes=tuple(PictureSize(width, height) for width, height in preset.sizes),
        max_steps=preset.max_steps,
        max_prompt_tokens=preset.max_prompt_tokens,
        samplers=offered,
        unavailable_reason=reason,
    )
    return Entry(card, path, _latent_map(preset))


def _latent_map(preset: _Preset) -> LatentMap | None:
    if preset.latent_rgb is None:
        return None
    bias = preset.latent_rgb_bias or [0.0, 0.0, 0.0]
    return LatentMap(tuple(tuple(row) for row in preset.latent_rgb), tuple(bias))


def _broken(path: Path, key: ModelKey, reason: str) -> Entry:
    card = ModelCard(
        key=key,
        name=path.name,
        base="",
        type="main",
        description="",
        licence="",
        defaults=ModelDefaults(1, 1.0, 64, 64, ""),
        sizes=(),
        max_steps=1,
        max_prompt_tokens=0,
        samplers=(),
        unavailable_reason=reason,
    )
    return Entry(card, path)


def _find_fault(path: Path, index: dict[str, Any]) -> str:
    """Why the saved pipeline cannot be served; empty when nothing is wrong at a glance."""
    for part, named in index.items():
        if part.startswith("_") or not isinstance(named, list) or named[0] is None:
            continue
        if not (path / part).is_dir():
            return f"{part} is missing"
        if not (path / part / _MODEL_FILE).is_file():
            continue
        files = sorted((path / part).glob("*.safetensors"))
        if not files:
            return f"{part} has no safetensors weights"
        for file in files:
            if fault := _weight_fault(file):
                return f"{part}/{file.name} {fault}"
    return ""


def _read_index(file: Path) -> dict[str, Any] | str:
    """What the saved pipeline is made of, or what is wrong with that."""
    try:
        index: Any = json.loads(file.read_bytes())
    except OSError:
        return f"{INDEX_FILE} is missing or unreadable"
    except ValueError:
        return f"{INDEX_FILE} is no JSON"
    family = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(index, dict) or family not in diffusers.pipelines.__all__:
        return f"pipelines of class {family} are not served"
    return index


def _weight_fault(file: Path) -> str:
    # opening reads the header and compares it with the file's length: a cut file shows here
    try:
        with safe_open(file, framework="np"):
            return ""
    except (SafetensorError, OSError):
        return "is damaged"
