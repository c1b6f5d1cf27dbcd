"""Ending each hold as its job ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta

from billing.domain.feed import Applied, Finding, JobEvent, Outcome, applied
from billing.domain.holds import Extension, Hold, effect_of
from billing.ports.jobs import EventFeed, Feed, JobResolver
from billing.ports.ledger import Holds
from easel_kit.clock import Clock


class JobFollower:
    """Ends each hold as its job ends: by the scheduler's feed, or by asking when a hold expires."""

    def __init__(
        self,
        holds: Holds,
        feed: Feed,
        events: EventFeed,
        resolver: JobResolver,
        clock: Clock,
        *,
        hold_ttl: timedelta,
    ) -> None:
        """`hold_ttl` is how long a hold stands on after a sign of life of its job."""
        self._holds = holds
        self._feed = feed
        self._events = events
        self._resolver = resolver
        self._clock = clock
        self._hold_ttl = hold_ttl

    async def events(self) -> AsyncGenerator[JobEvent, None]:
        """Events that are not applied yet, one by one.

        Raises:
            OutOfRange: some are lost; `restart`, then read again.
            DependencyDown: the scheduler is away.
        """
        async for batch in self._events.subscribe(await self._feed.cursor()):
            for event in batch:
                yield event

    async def apply(self, event: JobEvent) -> Applied:
        """The event's effect and the cursor in one transaction; a repeated event has none.

        What cannot be applied becomes a finding and the cursor moves on.
        """
        now = self._clock.now()
        return await self._feed.apply(event, now, now + self._hold_ttl)

    async def restart(self) -> Finding:
        """Records that events after the cursor are lost, and begins with the first again.

        Events that were applied before change nothing; holds whose events are lost end by expiry.
        """
        cursor = await self._feed.cursor()
        finding = Finding(
            "feed_gap", f"{cursor.generation}/{cursor.transaction_id}/{cursor.sequence}", {}
        )
        await self._feed.restart(finding, self._clock.now())
        return finding

    async def expired(self, limit: int) -> Sequence[Hold]:
        """Open holds whose time is over."""
        return await self._holds.expired(self._clock.now(), limit)

    async def resolve(self, hold: Hold) -> Applied:
        """Asks about the job of an expired hold: alive, the hold stays; ended, it is settled.

        A job that the scheduler does not know is refused by it from now on, so the hold is freed.

        Raises:
            DependencyDown: the scheduler is away; the hold stays as it is.
            DeadlineExceeded: as DependencyDown.
        """
        effect = effect_of(await self._resolver.resolve(hold.job_id))
        now = self._clock.now()
        if isinstance(effect, Extension):
            await self._holds.extend(hold.job_id, now + self._hold_ttl)
            return Applied(Outcome.EXTENDED, hold)
        return applied(await self._holds.settle(hold.job_id, effect, now))
