"""A bounded memory of recent answers, for what may be a little old."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from easel_kit.clock import Clock

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Values by key with the time they were put; the least recently put one goes first."""

    def __init__(self, clock: Clock, *, size: int) -> None:
        """Keeps at most `size` values."""
        self._clock = clock
        self._size = size
        self._values: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def put(self, key: Key, value: Value) -> None:
        """Remembers a value as of now."""
        self._values[key] = (self._clock.monotonic(), value)
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def get(self, key: Key, *, max_age_s: float | None = None) -> Value | None:
        """The value, unless it was put longer ago than `max_age_s`; None where there is none."""
        found = self._values.get(key)
        if found is None:
            return None
        at, value = found
        too_old = max_age_s is not None and self._clock.monotonic() - at > max_age_s
        return None if too_old else value
