"""How far the comparison of the queue with the database has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SETTLE = timedelta(seconds=60)
"""Longer than any transaction that gives out places: deadlines end those within seconds."""

_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Survey:
    """Jobs above `floor` are compared in every pass, those below in slices.

    A place may be given out long before its job is committed, so the floor follows the last place
    given out only once all transactions of that time have ended.
    """

    floor: int = 0
    next_floor: int = 0
    next_floor_at: datetime = _NEVER
    cursor: int = 0
    """The slice that comes next begins above this place."""

    def advanced(self, *, last_place: int, now: datetime, cursor: int) -> Survey:
        """After a pass that began at `now`, when `last_place` had been given out."""
        if self.next_floor_at == _NEVER:
            return Survey(self.floor, last_place, now, cursor)
        if now - self.next_floor_at < SETTLE:
            return Survey(self.floor, self.next_floor, self.next_floor_at, cursor)
        return Survey(self.next_floor, last_place, now, cursor)
