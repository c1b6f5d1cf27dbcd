"""The webhook inbox and what answers its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from billing.domain.inbox import CustomerLease, EventState, InboxFigures, KeptEvent
from billing.domain.payments import CustomerId, Notice


class Keeper(Protocol):
    """Where webhooks go."""

    async def keep(self, notice: Notice, now: datetime) -> bool:
        """Keeps an event; False when it is known already. Kept when it returns."""
        ...


class Inbox(Keeper, Protocol):
    """Events that Stripe has told of, each once."""

    async def kept(self, *, within_s: float) -> None:
        """Returns when this process has kept an event since the last lease, or after the time."""
        ...

    async def lease(
        self, owner: str, now: datetime, until: datetime, max_attempts: int
    ) -> CustomerLease | None:
        """The customer who waits longest, with all its due events; None when nothing is due.

        No two leases of a customer overlap. A lease whose time is over is lost: its events are due
        again, or dead when they have had `max_attempts`.
        """
        ...

    async def applied(self, lease: CustomerLease, now: datetime) -> int | None:
        """Ends the lease and its events, and those of the customer that wait for another try.

        Answers how many; None, and nothing changes, when the lease is lost.
        """
        ...

    async def ignored(self, lease: CustomerLease, error: str, now: datetime) -> bool:
        """As `applied`, for a customer who is none of ours; False when the lease is lost."""
        ...

    async def failed(
        self, lease: CustomerLease, error: str, tries: Mapping[str, datetime | None], now: datetime
    ) -> bool:
        """Ends the lease; each event is due again at its time, or dead where that is None.

        False, and nothing changes, when the lease is lost.
        """
        ...

    async def hand_back(self, lease: CustomerLease, now: datetime) -> None:
        """Ends the lease without a look: its events are due at once, this try is not counted."""
        ...

    async def list(self, state: EventState | None, limit: int) -> Sequence[KeptEvent]:
        """Events in a state or all, the newest first."""
        ...

    async def replay(self, event_ids: Sequence[str] | None, now: datetime) -> Sequence[str]:
        """Makes events due again with all their tries; None: all dead ones. Answers which.

        Open events and unknown ids are left out.
        """
        ...

    async def figures(self) -> InboxFigures:
        """For metrics."""
        ...

    async def stuck(self, before: datetime, limit: int) -> Sequence[KeptEvent]:
        """Dead events, and open ones that were received before then, the oldest first."""
        ...

    async def has_heard(self, customer_id: CustomerId, since: datetime) -> bool:
        """Whether an event of the customer is open or was received since then."""
        ...

    async def prune(self, before: datetime) -> int:
        """Forgets events that were applied or ignored before then; answers how many."""
        ...


class CustomerSync(Protocol):
    """Brings one customer's state here to what it is at Stripe."""

    async def sync(self, customer_id: CustomerId) -> bool:
        """Looks and applies, idempotently; whether that changed anything.

        Raises:
            NotFound: no account of ours belongs to the customer.
            DependencyDown: Stripe or the database does not answer.
            Conflict: the customer changed here while Stripe was asked, again and again.
        """
        ...
