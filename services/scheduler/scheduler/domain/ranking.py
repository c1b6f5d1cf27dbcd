"""Members in order of keys that move: what a sorted set is to the scripts in Redis."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

_Member = TypeVar("_Member", bound=Hashable)
_Key = TypeVar("_Key", bound="int | tuple[Any, ...]")

_SLACK = 8
"""Outdated entries that even a small heap may hold."""


class Ranking(Generic[_Member, _Key]):
    """Members by key, each once; every call costs O(log n), amortised.

    A heap in which an entry that was moved or dropped stays behind until it comes to the top or
    until such entries are the greater part. Keys must differ.
    """

    __slots__ = ("_heap", "_keys")

    def __init__(self) -> None:
        """Nobody."""
        self._keys: dict[_Member, _Key] = {}
        self._heap: list[tuple[_Key, _Member]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, member: _Member) -> bool:
        return member in self._keys

    def __iter__(self) -> Iterator[_Member]:
        return iter(self._keys)

    def put(self, member: _Member, key: _Key) -> None:
        """Adds a member, or moves it."""
        self._keys[member] = key
        heappush(self._heap, (key, member))
        if len(self._heap) > 2 * len(self._keys) + _SLACK:
            self._heap = [(key, member) for member, key in self._keys.items()]
            heapify(self._heap)

    def drop(self, member: _Member) -> None:
        """Removes a member, if it is there."""
        self._keys.pop(member, None)

    def lowest(self) -> tuple[_Key, _Member] | None:
        """The member with the lowest key, after its key."""
        while self._heap:
            key, member = self._heap[0]
            if self._keys.get(member) == key:
                return key, member
            heappop(self._heap)
        return None
