"""Encoded prompts that may come again: least recently used go first, by bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from easel_kit.ids import ModelKey
from gpu_worker.engine.metrics import EMBEDDING_BYTES
from gpu_worker.engine.model import Encoded


@dataclass(frozen=True, slots=True)
class PromptKey:
    """All that an encoded prompt depends on."""

    model: ModelKey
    adapters: tuple[tuple[ModelKey, float], ...]
    text: str
    negative: bool
    clip_skip: int


class EmbeddingCache:
    """An LRU of tensors on the device."""

    def __init__(self, capacity_bytes: int) -> None:
        """Starts empty; a prompt larger than all of it is not kept."""
        self._capacity_bytes = capacity_bytes
        self._kept: OrderedDict[PromptKey, Encoded] = OrderedDict()
        self.used_bytes = 0

    def get(self, key: PromptKey, encode: Callable[[], Encoded]) -> Encoded:
        """What is kept under the key, or what `encode` says now."""
        known = self._kept.get(key)
        if known is not None:
            self._kept.move_to_end(key)
            return known
        encoded = encode()
        if encoded.size_bytes <= self._capacity_bytes:
            self._kept[key] = encoded
            self.used_bytes += encoded.size_bytes
            while self.used_bytes > self._capacity_bytes:
                self._forget(next(iter(self._kept)))
            EMBEDDING_BYTES.set(self.used_bytes)
        return encoded

    def retain(self, models: Collection[ModelKey]) -> None:
        """Only these are in memory: whatever comes under another key next may encode otherwise."""
        for key in [key for key in self._kept if key.model not in models]:
            self._forget(key)

    def clear(self) -> bool:
        """Frees everything; whether there was anything."""
        had = bool(self._kept)
        self._kept.clear()
        self.used_bytes = 0
        return had

    def _forget(self, key: PromptKey) -> None:
        self.used_bytes -= self._kept.pop(key).size_bytes
