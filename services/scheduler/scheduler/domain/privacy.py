"""What became of a user's data when its erasure was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Erasure(Enum):
    """Of one user."""

    DONE = auto()
    """Something was kept, and now is not."""
    BUSY = auto()
    """Jobs wait or run: nothing has happened."""
    ABSENT = auto()
    """Nothing was kept."""


@dataclass(frozen=True, slots=True)
class Erased:
    """Of all users of a call: how many."""

    erased: int
    busy: int
