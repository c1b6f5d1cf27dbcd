"""The models that this worker knows: children of one folder, and entries of one file.

Read at start. Later a model is read again only when somebody asks, or when it is unavailable and
its back-off is over: never for a job. Nothing here loads weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from easel_kit.errors import InvalidInput, InvalidState, NotFound
from easel_kit.ids import ModelKey
from easel_kit.log import get_logger
from gpu_worker.domain.layout import INDEX_FILE, PRESET_FILE
from gpu_worker.domain.source import LocalSource
from gpu_worker.engine.catalogue_file import Record, read_catalogue_file
from gpu_worker.engine.entry import Entry, LatentMap, Reader
from gpu_worker.ports import ModelFiles

__all__ = ["Catalogue", "Entry", "LatentMap"]

_FIRST_RETRY_S = 30.0
_LAST_RETRY_S = 900.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Trouble:
    """How often in a row a model could not be served, and when it is worth another look."""

    times: int
    due_s: float


class Catalogue:
    """All models by key. The engine's thread changes it; `at_hand`, `read` and `due` suit any."""

    def __init__(
        self,
        models_dir: Path,
        samplers: tuple[str, ...],
        *,
        catalogue_file: Path | None = None,
        files: ModelFiles | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads everything; what is broken becomes an entry that says why.

        An entry of the file comes before a child of the folder with the same key, and instead of
        a child that is its source.

        Args:
            models_dir: each direct child with an `easel.json` or `model_index.json` is a model; it
                may be absent.
            samplers: names that the engine knows; a preset may list fewer.
            catalogue_file: TOML with more models; None: there is none.
            files: brings remote files here; None: only those of this machine are served.
            now: seconds of a clock that never goes back.

        Raises:
            InvalidInput: the file as a whole cannot be read.
        """
        self._file = catalogue_file
        self._reader = Reader(samplers, files)
        self._now = now
        self._entries: dict[ModelKey, Entry] = {}
        self._troubles: dict[ModelKey, _Trouble] = {}
        listed = read_catalogue_file(catalogue_file) if catalogue_file else ()
        for record in listed:
            self._add(self._reader.read(record))
        taken = {
            record.source.path.resolve()
            for record in listed
            if isinstance(record.source, LocalSource)
        }
        for path in sorted(models_dir.iterdir()) if models_dir.is_dir() else ():
            is_model = (path / PRESET_FILE).is_file() or (path / INDEX_FILE).is_file()
            if is_model and path.resolve() not in taken:
                self._add(self._reader.read(_child(path)))

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

    def at_hand(self, entry: Entry) -> AbstractContextManager[Entry]:
        """The entry with its files on the disk, as `Reader.at_hand`: blocks, from any thread."""
        return self._reader.at_hand(entry)

    def read(self, key: ModelKey) -> Entry:
        """What the model's files and its place in the catalogue say now; from any thread.

        Raises:
            NotFound: no such key.
        """
        entry = self.find(key)
        if entry.record is None:
            return entry
        record = self._record_again(key, entry.record)
        found = self._reader.read(record)
        if found.card.key == key:
            return found
        card = replace(
            found.card, key=key, unavailable_reason=f"its {PRESET_FILE} now names another key"
        )
        return replace(found, card=card)

    def put(self, entry: Entry) -> None:
        """Takes what `read` found instead of what was known."""
        self._entries[entry.card.key] = entry
        if entry.card.unavailable_reason:
            self._note_trouble(entry)

    def refresh(self, key: ModelKey) -> Entry:
        """Reads the model again because somebody asks: what was repaired serves at once.

        Raises:
            NotFound: no such key.
        """
        found = self.read(key)
        self._troubles.pop(key, None)
        self.put(found)
        return found

    def loaded(self, entry: Entry) -> None:
        """Notes what `at_hand` gave for a load that went well: true class, features and size."""
        self._troubles.pop(entry.card.key, None)
        self._entries[entry.card.key] = entry

    def mark_unavailable(self, key: ModelKey, reason: str) -> None:
        """Notes that the model's files could not be had or used.

        Raises:
            NotFound: no such key.
        """
        entry = self.find(key)
        self.put(replace(entry, card=replace(entry.card, unavailable_reason=reason)))

    def due(self) -> tuple[ModelKey, ...]:
        """Unavailable models that are worth another look.

        That is 30 s after the first failure in a row, then twice as long each time, up to 15 min.
        """
        now = self._now()
        return tuple(key for key, trouble in tuple(self._troubles.items()) if trouble.due_s <= now)

    def _add(self, entry: Entry) -> None:
        key = entry.card.key
        if key in self._entries:
            where = entry.record.where if entry.record else ""
            _log.warning("model.duplicated", model=key, place=where)
            return
        self.put(entry)

    def _note_trouble(self, entry: Entry) -> None:
        key = entry.card.key
        times = self._troubles[key].times + 1 if key in self._troubles else 1
        wait_s = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2 ** min(times - 1, 10))
        self._troubles[key] = _Trouble(times, self._now() + wait_s)
        _log.warning("model.refused", model=key, reason=entry.card.unavailable_reason)

    def _record_again(self, key: ModelKey, known: Record) -> Record:
        """The model's record as it stands in the catalogue file now."""
        if known.where == PRESET_FILE or self._file is None:
            return known
        try:
            listed = read_catalogue_file(self._file)
        except InvalidInput as error:
            return replace(known, fault=error.reason)
        for record in listed:
            if record.key == key:
                return record
        return replace(known, fault=f"{self._file.name} does not list it any more")


def _child(path: Path) -> Record:
    return Record(ModelKey(path.name), LocalSource(path), {}, PRESET_FILE, path)
