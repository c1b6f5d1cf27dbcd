"""One model of the catalogue: what is said of it, joined with what its files show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from easel_kit.errors import DomainError, InvalidState
from easel_kit.ids import ModelKey
from gpu_worker.domain.layout import PRESET_FILE
from gpu_worker.domain.model import ModelCard, ModelDefaults, PictureSize
from gpu_worker.domain.source import LocalSource, Wanted, parse_source
from gpu_worker.engine.catalogue_file import Record
from gpu_worker.engine.inspection import Seen, inspect, inspect_config
from gpu_worker.engine.preset import Preset, PresetError, merge, read_preset
from gpu_worker.engine.served import PIPELINES, served_as
from gpu_worker.ports import ModelFiles

_NO_STORE = "this worker fetches no models"
_NO_CONFIG = (
    "a single-file checkpoint needs `config`: a diffusers folder, or its source, that says how the "
    "parts are built and has the tokenizers (its weights are not needed)"
)


Locate = Callable[[Wanted], Path | None]
"""Where files are; None where they are not here."""


@dataclass(frozen=True, slots=True)
class LatentMap:
    """A linear look at latents: `rgb = weights @ latent + bias`, each colour in 0 to 1."""

    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model and where its files are.

    Attributes:
        card: what others see of it.
        path: a diffusers folder, or the one file of weights; `Path()` until a remote one has been
            brought here.
        latent_map: for looks at unfinished latents.
        pipeline: class of its diffusers pipeline; of a remote one a guess until it is here. Empty
            for what is no pipeline.
        config: of a single-file checkpoint: the folder that says how its parts are built.
        known_words: all words that it knows, in lower case; None: it knows any.
        weights: how many numbers its files hold; 0 where unknown.
        record: as it was listed.
        wanted, config_wanted: what of which source makes `path` and `config`.
    """

    card: ModelCard
    path: Path
    latent_map: LatentMap | None = None
    pipeline: str = ""
    config: Path | None = None
    known_words: frozenset[str] | None = None
    weights: int = 0
    record: Record | None = None
    wanted: Wanted | None = None
    config_wanted: Wanted | None = None

    def memory_bytes(self, bytes_per_number: int) -> int:
        """An estimate of what it takes once loaded; 0 where nothing is known yet."""
        return self.weights * bytes_per_number or self.card.size_bytes


class Reader:
    """Makes entries. Holds nothing that changes: any thread may call."""

    def __init__(self, samplers: tuple[str, ...], files: ModelFiles | None) -> None:
        """Takes what entries depend on.

        Args:
            samplers: names that the engine knows; a preset may list fewer.
            files: brings remote files; None: only folders and files of this machine are served.
        """
        self._samplers = samplers
        self._files = files

    def read(self, record: Record) -> Entry:
        """The entry for a record, unavailable with a reason where something is wrong."""
        try:
            return self._read(record, self._find)
        except PresetError as error:
            return _broken(record, str(error))

    @contextmanager
    def at_hand(self, entry: Entry) -> Iterator[Entry]:
        """The entry with its files on the disk, fetched if need be, for as long as the block lasts.

        Blocks, perhaps for minutes. An error of another kind than `DomainError` that leaves the
        block casts doubt on fetched files: they are checked before they are used again.

        Raises:
            InvalidState: the files are wrong; or anything that `ModelFiles.bring` raises.
        """
        if entry.record is None:
            yield entry
            return
        with ExitStack() as stack:

            def bring(wanted: Wanted) -> Path:
                if self._files is not None:
                    return stack.enter_context(self._files.bring(wanted))
                if isinstance(wanted.source, LocalSource):
                    return wanted.source.path
                raise InvalidState(_NO_STORE)

            try:
                found = self._read(entry.record, bring)
            except PresetError as error:
                raise InvalidState(str(error)) from error
            if found.card.unavailable_reason:
                self._doubt(entry)
                raise InvalidState(found.card.unavailable_reason)
            try:
                yield found
            except DomainError:
                raise
            except Exception:
                self._doubt(entry)
                raise

    def _doubt(self, entry: Entry) -> None:
        if self._files is not None:
            for wanted in (entry.wanted, entry.config_wanted):
                if wanted is not None:
                    self._files.doubt(wanted)

    def _find(self, wanted: Wanted) -> Path | None:
        if isinstance(wanted.source, LocalSource):
            return wanted.source.path
        return self._files.find(wanted) if self._files is not None else None

    def _read(self, record: Record, locate: Locate) -> Entry:
        if record.fault:
            return _broken(record, record.fault)
        return _with_samplers(self._look(record, locate), self._samplers, record.where)

    def _look(self, record: Record, locate: Locate) -> Entry:
        own: Mapping[str, Any] = {"name": record.key}
        source = record.source
        if isinstance(source, LocalSource):
            own = merge(own, _beside(source.path, needed=not record.said))
        preset = _check(record, merge(own, record.said))
        wanted = _wanted(record, preset)
        root: Path | None = locate(wanted)
        if root is not None and not isinstance(source, LocalSource):
            preset = _check(record, merge(own, _beside(root, needed=False), record.said))
        entry = _describe(record, preset, wanted)
        if root is None:
            return entry if self._files is not None else _unavailable(entry, _NO_STORE)
        seen = inspect(root, preset.type, preset.file)
        return self._with_config(_join(entry, seen), preset, locate)

    def _with_config(self, entry: Entry, preset: Preset, locate: Locate) -> Entry:
        """Adds the config of a single-file checkpoint, which alone has none."""
        if preset.type != "main" or entry.pipeline or entry.card.unavailable_reason:
            return entry
        if entry.config_wanted is None:
            return _unavailable(entry, _NO_CONFIG)
        config: Path | None = locate(entry.config_wanted)
        if config is None:
            return _with_pipeline(entry, preset.pipeline or PIPELINES.get(preset.base, ""))
        pipeline, fault = inspect_config(config)
        if fault:
            return _unavailable(entry, f"config: {fault}")
        return replace(_with_pipeline(entry, pipeline), config=config)


def _beside(path: Path, *, needed: bool) -> Mapping[str, Any]:
    """What stands in the `easel.json` of a folder.

    Raises:
        PresetError: it is no JSON object, or is missing where it is needed.
    """
    file = path / PRESET_FILE
    try:
        found = json.loads(file.read_bytes())
    except OSError:
        if needed:
            raise PresetError(f"{PRESET_FILE} is missing or unreadable") from None
        return {}
    except ValueError as error:
        raise PresetError(f"{PRESET_FILE}: it is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise PresetError(f"{PRESET_FILE}: it is no JSON object")
    return found


def _check(record: Record, data: Mapping[str, Any]) -> Preset:
    try:
        return read_preset(data)
    except PresetError as error:
        raise PresetError(f"{record.where}: {error}") from None


def _wanted(record: Record, preset: Preset) -> Wanted:
    sums = tuple(sorted(preset.sha256.items()))
    return Wanted(record.source, preset.type, preset.file, preset.variant, sums)


def _config_wanted(record: Record, preset: Preset) -> Wanted | None:
    if not preset.config:
        return None
    try:
        return Wanted(parse_source(preset.config, record.folder), "config")
    except ValueError as error:
        raise PresetError(f"{record.where}: config: {error}") from None


def _describe(record: Record, preset: Preset, wanted: Wanted) -> Entry:
    """What the preset alone says."""
    card = ModelCard(
        key=ModelKey(preset.key),
        name=preset.name,
        base=preset.base,
        type=preset.type,
        description=preset.description,
        licence=preset.licence,
        defaults=ModelDefaults(**preset.defaults.model_dump()),
        sizes=tuple(PictureSize(width, height) for width, height in preset.sizes),
        max_steps=preset.max_steps,
        max_prompt_tokens=preset.max_prompt_tokens,
        samplers=tuple(preset.samplers) if preset.type == "main" else (),
        size_bytes=preset.size_bytes,
    )
    words = preset.known_words
    entry = Entry(
        card,
        Path(),
        _latent_map(preset),
        known_words=None if words is None else frozenset(word.lower() for word in words),
        record=record,
        wanted=wanted,
        config_wanted=_config_wanted(record, preset),
    )
    guess = preset.pipeline or PIPELINES.get(preset.base, "")
    return _with_pipeline(entry, guess) if preset.type == "main" else entry


def _join(entry: Entry, seen: Seen) -> Entry:
    """The entry with what its files show, which is truer than what was guessed."""
    found = replace(
        entry,
        path=seen.path,
        weights=seen.weights,
        card=replace(entry.card, size_bytes=seen.size_bytes or entry.card.size_bytes),
    )
    found = _with_pipeline(found, seen.pipeline)
    return _unavailable(found, seen.fault) if seen.fault else found


def _with_pipeline(entry: Entry, pipeline: str) -> Entry:
    card = replace(entry.card, features=served_as(pipeline).features)
    return replace(entry, card=card, pipeline=pipeline)


def _with_samplers(entry: Entry, known: tuple[str, ...], where: str) -> Entry:
    """The entry with the samplers that its preset names, or else all, of those that it can have."""
    card = entry.card
    if card.type != "main":
        return entry
    own = served_as(entry.pipeline).samplers if entry.pipeline else known
    offered = tuple(name for name in (card.samplers or own) if name in own and name in known)
    found = replace(entry, card=replace(card, samplers=offered))
    if card.unavailable_reason or card.defaults.sampler in offered:
        return found
    return _unavailable(found, f"{where}: the default sampler must be one of {', '.join(offered)}")


def _unavailable(entry: Entry, reason: str) -> Entry:
    return replace(entry, card=replace(entry.card, unavailable_reason=reason))


def _latent_map(preset: Preset) -> LatentMap | None:
    if preset.latent_rgb is None:
        return None
    bias = preset.latent_rgb_bias or [0.0, 0.0, 0.0]
    return LatentMap(tuple(tuple(row) for row in preset.latent_rgb), tuple(bias))


def _broken(record: Record, reason: str) -> Entry:
    """An entry of which nothing but its key and its fault is known."""
    card = ModelCard(
        key=record.key,
        name=record.key,
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
    path = record.source.path if isinstance(record.source, LocalSource) else Path()
    return Entry(card, path, record=record)
