"""Accounts, holds and the ledger, in billing's own database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from billing.domain.accounts import Account, AccountId, Period
from billing.domain.holds import Hold, HoldOrder, PlacedHolds, Settled, Settlement
from billing.domain.ledger import Line
from billing.domain.plans import PlanVersion
from billing.domain.statement import Excerpt
from billing.domain.usage import Usage, UsageQuery
from easel_kit.ids import JobId, UserId


class Accounts(Protocol):
    """Accounts with their plan, period and balance."""

    async def find(self, user_id: UserId, now: datetime) -> Account | None:
        """The user's account; None for a user never seen."""
        ...

    async def open(self, user_id: UserId, plan: PlanVersion, period: Period, now: datetime) -> None:
        """Opens the account with the plan's first grant; does nothing where there is one."""
        ...

    async def renew(
        self, account: Account, plan: PlanVersion, period: Period, now: datetime
    ) -> None:
        """Books expired credits off and, if `period` is a later one, moves there with its grant.

        Idempotent: of concurrent renewals one has an effect.
        """
        ...

    async def change_plan(self, account_id: AccountId, plan: PlanVersion, now: datetime) -> None:
        """Moves to another plan, with its grant for the running period unless it was had.

        Does nothing while a subscription pays for the plan.
        """
        ...

    async def due(self, now: datetime, limit: int) -> Sequence[Account]:
        """Accounts to renew."""
        ...


class Holds(Protocol):
    """The holds and the bookings that belong to them."""

    async def find(self, job_ids: Sequence[JobId]) -> Sequence[Hold]:
        """The jobs' holds or their tombstones; a job without is left out."""
        ...

    async def of_user(self, user_id: UserId, job_ids: Sequence[JobId]) -> Sequence[Hold]:
        """The user's holds among those of the jobs."""
        ...

    async def place(self, orders: Sequence[HoldOrder]) -> PlacedHolds | None:
        """Reserves all amounts; None, and nothing written, if a job has a hold or a tombstone.

        All orders are of one account.

        Raises:
            InsufficientCredits: fewer are available; nothing is written.
        """
        ...

    async def settle(self, job_id: JobId, settlement: Settlement, now: datetime) -> Settled | None:
        """Ends an open hold; one that has ended stays as it is. None: the job has no hold."""
        ...

    async def release(self, job_id: JobId, settlement: Settlement, now: datetime) -> Settled:
        """As `settle`; leaves a tombstone where the job has no hold yet."""
        ...

    async def extend(self, job_id: JobId, until: datetime) -> None:
        """Keeps an open hold at least until then."""
        ...

    async def expired(self, now: datetime, limit: int) -> Sequence[Hold]:
        """Open holds whose time is over, the oldest first."""
        ...


class Ledger(Protocol):
    """The ledger as users read it."""

    async def lines(
        self, account_id: AccountId, *, before: int | None, job_id: JobId | None, limit: int
    ) -> Sequence[Line]:
        """Newest first, only those with a sequence below `before`."""
        ...

    async def excerpt(self, account_id: AccountId, period: Period) -> Excerpt:
        """Where the ledger's lines of a period begin and end, and the balance there."""
        ...

    async def part(
        self, account_id: AccountId, *, after: int, up_to: int, limit: int
    ) -> Sequence[Line]:
        """Oldest first, those with a sequence above `after`, up to and with `up_to`."""
        ...

    async def usage(self, account_id: AccountId, query: UsageQuery) -> Usage:
        """What the account's jobs cost."""
        ...
