"""The event feed, read by whoever reacts to jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from easel_kit.errors import DependencyDown
from scheduler.domain.job import Cursor, Event
from scheduler.ports import FeedBell, FeedStore

_BATCH = 200
# Events of a transaction that committed behind an older one still running wait for that one,
# which may end without a ring.
_HELD_BACK_S = 0.01
_HELD_BACK_MAX_S = 0.5


class Feed:
    """Follows the feed for one reader at a time."""

    def __init__(self, store: FeedStore, bell: FeedBell, *, recheck_s: float) -> None:
        """Reads at each ring, and after `recheck_s` without one."""
        self._store = store
        self._bell = bell
        self._recheck_s = recheck_s
        self._shut = False

    def shut(self) -> None:
        """The process stops: readers are told to come again."""
        self._shut = True
        self._bell.ring()

    async def follow(self, after: Cursor) -> AsyncIterator[list[Event]]:
        """All events after the cursor in commit order, then each new one; never ends by itself.

        Raises:
            OutOfRange: the cursor lies below what is kept, or beyond this database.
            DependencyDown: the database does not answer, or this process stops; follow again
                from the last event.
        """
        held_back_s = _HELD_BACK_S
        async with self._bell.wait() as bell:
            while not self._shut:
                events, held_back = await self._store.events(after, limit=_BATCH)
                if events:
                    yield events
                    after = events[-1].cursor
                    held_back_s = _HELD_BACK_S
                elif held_back:
                    await bell.rung(within_s=held_back_s)
                    held_back_s = min(2 * held_back_s, _HELD_BACK_MAX_S)
                else:
                    await bell.rung(within_s=self._recheck_s)
        raise DependencyDown("the scheduler is stopping")
