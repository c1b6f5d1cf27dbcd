"""Faults that the kills must find: billing as it would be if somebody had been careless."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from billing.domain.feed import Applied, JobEvent, Outcome
from billing.storage import feed
from easel_kit.db import connection, transaction


def cursor_first() -> None:
    """The feed's cursor moves before the effect, in a transaction of its own."""

    async def apply(
        self: feed.PostgresFeed, event: JobEvent, now: datetime, extend_until: datetime
    ) -> Applied:
        place = event.cursor
        async with connection(self._pool) as lent:
            if not await lent.fetchval(
                feed._ADVANCE, place.generation, place.transaction_id, place.sequence
            ):
                return Applied(Outcome.REPEATED)
        async with transaction(self._pool) as lent:
            return await feed._apply(lent, event, now, extend_until)

    feed.PostgresFeed.apply = apply  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {"cursor-first": cursor_first}
