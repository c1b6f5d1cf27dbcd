"""Changed entitlements on their way to the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from billing.domain.accounts import AccountId, EntitlementsChange


class EntitlementsOutbox(Protocol):
    """Changes that the scheduler may not have heard of, kept with the change itself."""

    async def pending(self, after: AccountId | None, limit: int) -> Sequence[EntitlementsChange]:
        """By account id, those after one; as they hold now. Changes of erased users are dropped."""
        ...

    async def remove(self, change: EntitlementsChange) -> None:
        """Forgets a change that was heard, unless there is a newer one by now."""
        ...


class Queue(Protocol):
    """Whoever lets jobs wait by their users' plans."""

    async def set_entitlements(self, change: EntitlementsChange) -> None:
        """Makes them hold, for waiting jobs too; an older version changes nothing.

        Raises:
            DependencyDown: the scheduler is away.
            DeadlineExceeded: it did not answer in time.
        """
        ...
