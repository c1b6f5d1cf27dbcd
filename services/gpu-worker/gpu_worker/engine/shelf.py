"""What is in memory: models that were asked for, kept, measured, given up; and encoded prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch

from easel_kit.errors import DomainError, InvalidState, NotFound
from easel_kit.ids import ModelKey
from gpu_worker.domain.drawing import Failed
from gpu_worker.engine import failures, metrics
from gpu_worker.engine.cache import ModelCache, Waiter
from gpu_worker.engine.catalogue import Catalogue, Entry
from gpu_worker.engine.commands import Load, Loaded, Measure, Reread, Unload
from gpu_worker.engine.cost import CostCurve
from gpu_worker.engine.device import release_cached_memory
from gpu_worker.engine.embeddings import EmbeddingCache
from gpu_worker.engine.measuring import measure
from gpu_worker.engine.model import Model, Part

MakeCache = Callable[[Callable[[ModelKey], None], Callable[[], None]], ModelCache[Part]]
"""A cache, given how a load is started and who hears that other models are in memory."""


class Shelf:
    """Of the engine's thread only."""

    def __init__(
        self,
        catalogue: Catalogue,
        device: torch.device,
        curves: Mapping[Hashable, CostCurve],
        *,
        cache: MakeCache,
        embedding_bytes: int,
        load: Callable[[Entry], None],
        changed: Callable[[frozenset[ModelKey]], None],
    ) -> None:
        """Starts empty.

        Args:
            catalogue: what can be had.
            device: where models go.
            curves: learn what forwards cost; one is made for each key that is asked for.
            cache: makes the cache of loaded models.
            embedding_bytes: for encoded prompts.
            load: begins a load, whose end comes back as `Loaded`.
            changed: hears what is in memory after each change of it or of the catalogue.
        """
        self._catalogue = catalogue
        self._device = device
        self._curves = curves
        self._load = load
        self._changed = changed
        self.embeddings = EmbeddingCache(embedding_bytes)
        self.cache = cache(self._start_load, self._tell)

    def obey(self, command: Load | Unload | Loaded | Measure | Reread) -> None:
        """Does it, or begins to."""
        match command:
            case Load(key, done):
                self._load_on_request(key, done)
            case Unload(key, done):
                self._unload(key, done)
            case Loaded():
                self._loaded(command)
            case Measure(key, done):
                self._measure(key, done)
            case Reread(entry):
                self._catalogue.put(entry)
                self._tell()

    def make_room(self) -> bool:
        """Gives up what nobody uses; whether there was anything."""
        freed_bytes = self.cache.evict_idle()
        had_prompts = self.embeddings.clear()
        release_cached_memory(self._device)
        return freed_bytes > 0 or had_prompts

    def close(self, error: DomainError) -> None:
        """Fails everybody who waits for a load."""
        self.cache.abandon_loads(error)

    def _start_load(self, key: ModelKey) -> None:
        self._load(self._catalogue.find(key))

    def _loaded(self, answer: Loaded) -> None:
        if answer.part is None:
            self._catalogue.mark_unavailable(answer.key, answer.reason)
            self._tell()
            error = InvalidState(f"model {answer.key} is unavailable: {answer.reason}")
            self.cache.load_failed(answer.key, error)
            return
        failure: Failed | None = None
        try:
            answer.part.move_to(self._device)
        except Exception as error:  # noqa: BLE001 (a model that does not fit is not the end)
            failure = failures.judge(error, None)
        if failure is None:
            self._catalogue.loaded(answer.entry)
            self.cache.arrived(answer.key, answer.part)
        else:
            self.make_room()
            self.cache.load_failed(answer.key, InvalidState(failure.message))

    def _load_on_request(self, key: ModelKey, done: Callable[[DomainError | None], None]) -> None:
        try:
            if key not in self.cache.keys:
                self._catalogue.refresh(key)  # a person asks: the files may have been repaired
                self._tell()
            self._catalogue.check_usable(key)
        except DomainError as error:
            done(error)
            return
        self.cache.want(key, Waiter(ready=lambda _part: done(None), failed=done))

    def _unload(self, key: ModelKey, done: Callable[[DomainError | None], None]) -> None:
        try:
            self._catalogue.find(key)
            self.cache.drop(key)
        except (NotFound, InvalidState) as error:
            done(error)
            return
        release_cached_memory(self._device)
        done(None)

    def _measure(self, key: ModelKey, done: Callable[[DomainError | None], None]) -> None:
        """With default settings and made-up numbers; what fails here fails nobody's job."""
        self.cache.want(
            key, Waiter(ready=lambda part: done(self._measured(key, part)), failed=done)
        )

    def _measured(self, key: ModelKey, part: Part) -> DomainError | None:
        failure: Failed | None = None
        try:
            if isinstance(part, Model):
                measure(part, self._catalogue.find(key).card, self._curves)
        except Exception as error:  # noqa: BLE001 (judged, and raised again where it is fatal)
            failure = failures.judge(error, None)
        return InvalidState(f"model {key} cannot draw: {failure.message}") if failure else None

    def _tell(self) -> None:
        self.embeddings.retain(self.cache.keys)
        metrics.CACHE_BYTES.set(self.cache.used_bytes)
        self._changed(self.cache.keys)
