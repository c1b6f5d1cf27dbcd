"""Loaded models: least recently used go first, by bytes; pinned ones never.

Used by the engine's thread only, so nothing is locked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from easel_kit.errors import DomainError, InvalidState, Overloaded
from easel_kit.ids import ModelKey
from easel_kit.log import get_logger
from gpu_worker.engine.metrics import EVICTIONS
from gpu_worker.engine.model import Part

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waiter:
    """Who wants a model: exactly one of both is called, once."""

    ready: Callable[[Part], None]
    failed: Callable[[DomainError], None]


@dataclass(slots=True)
class _Held:
    model: Part
    pins: int = 0


class ModelCache:
    """Models in memory, and the loads under way: one per model however many ask."""

    def __init__(
        self,
        capacity_bytes: int,
        start_load: Callable[[ModelKey], None],
        changed: Callable[[], None],
    ) -> None:
        """Starts empty.

        Args:
            capacity_bytes: of all weights together.
            start_load: begins a load that ends in a call of `arrived` or `load_failed`.
            changed: called when other models are in memory than before, ahead of any waiter.
        """
        self._capacity_bytes = capacity_bytes
        self._start_load = start_load
        self._changed = changed
        self._held: OrderedDict[ModelKey, _Held] = OrderedDict()
        self._loading: dict[ModelKey, list[Waiter]] = {}

    @property
    def keys(self) -> frozenset[ModelKey]:
        """What is in memory."""
        return frozenset(self._held)

    @property
    def used_bytes(self) -> int:
        """Bytes of all weights in memory."""
        return sum(held.model.size_bytes for held in self._held.values())

    def want(self, key: ModelKey, waiter: Waiter) -> None:
        """Calls the waiter at once when the model is here, else after the load it now shares."""
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            waiter.ready(held.model)
            return
        waiting = self._loading.get(key)
        if waiting is not None:
            waiting.append(waiter)
            return
        self._loading[key] = [waiter]
        self._start_load(key)

    def arrived(self, key: ModelKey, model: Part) -> None:
        """A load ended well: makes room, keeps the model, calls everybody who waits."""
        if not self._make_room(model.size_bytes):
            self.load_failed(key, Overloaded("the memory for models is full of models in use"))
            return
        self._held[key] = _Held(model)
        self._changed()
        for waiter in self._loading.pop(key):
            waiter.ready(model)

    def load_failed(self, key: ModelKey, error: DomainError) -> None:
        """A load ended badly; the next `want` tries again."""
        for waiter in self._loading.pop(key):
            waiter.failed(error)

    def abandon_loads(self, error: DomainError) -> None:
        """Fails everybody who waits for a load."""
        for key in tuple(self._loading):
            self.load_failed(key, error)

    def pin(self, key: ModelKey) -> Part:
        """Keeps a loaded model until as many `unpin`.

        Raises:
            KeyError: it is not loaded.
        """
        held = self._held[key]
        held.pins += 1
        self._held.move_to_end(key)
        return held.model

    def evict_idle(self) -> bool:
        """Frees everything that is not pinned; whether there was anything."""
        idle = [key for key, held in self._held.items() if not held.pins]
        for key in idle:
            del self._held[key]
            EVICTIONS.inc()
        if idle:
            self._changed()
        return bool(idle)

    def unpin(self, key: ModelKey) -> None:
        """Takes one pin away."""
        self._held[key].pins -= 1

    def drop(self, key: ModelKey) -> None:
        """Frees a model; nothing happens when it is not loaded.

        Raises:
            InvalidState: a job uses it.
        """
        held = self._held.get(key)
        if held is None:
            return
        if held.pins:
            raise InvalidState(f"model {key} is in use")
        del self._held[key]
        self._changed()

    def _make_room(self, size_bytes: int) -> bool:
        if size_bytes > self._capacity_bytes:
            return False
        idle = [key for key, held in self._held.items() if not held.pins]
        while self.used_bytes + size_bytes > self._capacity_bytes:
            if not idle:
                return False
            key = idle.pop(0)
            del self._held[key]
            EVICTIONS.inc()
            self._changed()
            _log.info("model.evicted", model=key)
        return True
