"""What the gateway needs of billing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from easel_kit.ids import JobId, UserId
from gateway.domain.account import Account, Entitlements, Hold, LedgerPage, PlacedHolds
from gateway.domain.generation import Generation
from gateway.domain.money import Checkout, Month, Offers, Purchase, UsagePage


class Holds(Protocol):
    """Billing, for the price of a job."""

    async def place_holds(
        self, user_id: UserId, generations: Mapping[JobId, Generation]
    ) -> PlacedHolds:
        """Sets the prices of all jobs aside, or none. Idempotent by job id.

        Raises:
            InsufficientCredits: nothing was set aside.
            Forbidden: the plan does not allow this.
        """
        ...

    async def release_holds(self, job_ids: Sequence[JobId], reason: str) -> None:
        """Frees the whole of each hold. Idempotent."""
        ...

    async def get_holds(self, user_id: UserId, job_ids: Sequence[JobId]) -> dict[JobId, Hold]:
        """The holds of at most 100 jobs; a job without one is left out."""
        ...


class Quotes(Protocol):
    """Billing, for a price that nobody pays yet."""

    async def quote(self, user_id: UserId, generation: Generation) -> int:
        """What a hold for this would set aside, in millicredits.

        Raises:
            Forbidden: the plan does not allow this.
        """
        ...


class Ledger(Protocol):
    """Billing, for the account."""

    async def get_account(self, user_id: UserId) -> Account:
        """The account, opened when the user is new."""
        ...

    async def get_entitlements(self, user_id: UserId) -> Entitlements:
        """The plan's numbers for this user."""
        ...

    async def change_plan(self, user_id: UserId, plan_key: str) -> Account:
        """Moves the user to another plan. Idempotent.

        Raises:
            NotFound: no such plan.
            InvalidState: a subscription pays for the user's plan.
        """
        ...

    async def list_offers(self) -> Offers:
        """Plans and packs on offer, cheapest first."""
        ...

    async def list_ledger(
        self, user_id: UserId, *, page_size: int, page_token: str, job_id: JobId | None
    ) -> LedgerPage:
        """Ledger lines, newest first; only those of one job where it is named."""
        ...


class Usage(Protocol):
    """Billing, for what jobs have cost."""

    async def list_usage(
        self,
        user_id: UserId,
        *,
        since: datetime | None,
        until: datetime | None,
        page_size: int,
        page_token: str,
    ) -> UsagePage:
        """Jobs that ended from `since` up to before `until`, newest first."""
        ...

    def statement(self, user_id: UserId, month: Month) -> AsyncGenerator[bytes, None]:
        """The ledger lines of a month as CSV (UTF-8), in parts that end anywhere.

        Raises:
            InvalidInput: there can be no such month.
        """
        ...


class Payments(Protocol):
    """Billing, for what is paid with money."""

    async def checkout(
        self, user_id: UserId, purchase: Purchase, *, success_url: str, cancel_url: str, key: str
    ) -> Checkout:
        """A page to pay on; the same user and key answer with the same page.

        Raises:
            NotFound: no such plan or pack.
            InvalidState: a subscription is there already, or no payments are set up.
            Conflict: the key was used for something else.
        """
        ...

    async def portal(self, user_id: UserId, *, return_url: str) -> str:
        """The URL of a page to manage cards, invoices and the subscription.

        Raises:
            InvalidState: the user has never paid, or no payments are set up.
        """
        ...

    async def change_subscription(self, user_id: UserId, plan_key: str) -> Account:
        """Moves the subscription to another paid plan now.

        Raises:
            NotFound: no such plan.
            InvalidState: no subscription, a declined card, or no payments are set up.
        """
        ...

    async def cancel_subscription(self, user_id: UserId, *, resume: bool) -> Account:
        """Lets the subscription end with its period, or takes that back. Idempotent.

        Raises:
            InvalidState: no subscription, or no payments are set up.
        """
        ...


class Webhooks(Protocol):
    """Billing, for what the payment provider tells it."""

    async def ingest(self, payload: bytes, signature: str) -> None:
        """Returns once billing has kept it; what is said again changes nothing.

        Raises:
            BadSignature: it does not come from the payment provider, or too late.
            InvalidInput: it does, but it is no event of this mode.
            InvalidState: no payments are set up.
        """
        ...
