"""Erasures: how far the house is with removing a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from easel_kit.erasure import UserHash
from easel_kit.ids import UserId


class ErasureState(StrEnum):
    """The steps, in order."""

    REQUESTED = "requested"
    """Barred; jobs are cancelled and waited for, and so is billing's own part."""
    STOPPED = "stopped"
    """No job is open, and none can be; pictures that are still on their way are waited for."""
    DONE = "done"
    """Nothing leads to the person any more, but bookings that name nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A user's erasure; `user_id` is None once it is done."""

    user_hash: UserHash
    user_id: UserId | None
    state: ErasureState
    requested_at: datetime
    stopped_at: datetime | None = None
    finished_at: datetime | None = None
    failures: int = 0

    @property
    def id(self) -> str:
        """Names it in logs; leads to nobody."""
        return self.user_hash.hex()[:16]


def folder_of(user_id: UserId) -> str:
    """Below it are all objects of the user: what workers draw, and uploads."""
    return f"users/{user_id}"
