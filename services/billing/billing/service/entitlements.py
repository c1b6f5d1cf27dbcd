"""Telling the scheduler what users' plans allow."""

from __future__ import annotations

from collections.abc import Sequence

from billing.domain.accounts import AccountId, EntitlementsChange
from billing.ports.entitlements import EntitlementsOutbox, Queue


class EntitlementsPublisher:
    """Tells the scheduler of each changed plan at least once; versions make once enough."""

    def __init__(self, outbox: EntitlementsOutbox, queue: Queue) -> None:
        """`queue` is told what `outbox` keeps."""
        self._outbox = outbox
        self._queue = queue

    async def pending(self, after: AccountId | None, limit: int) -> Sequence[EntitlementsChange]:
        """Changes to publish, by account id."""
        return await self._outbox.pending(after, limit)

    async def publish(self, change: EntitlementsChange) -> None:
        """Tells the scheduler, then forgets the change if it is still the newest.

        Raises:
            DependencyDown: the scheduler is away; the change is kept.
            DeadlineExceeded: as DependencyDown.
        """
        await self._queue.set_entitlements(change)
        await self._outbox.remove(change)
