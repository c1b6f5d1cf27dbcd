"""The payment provider, and what is kept of it.

Every call of `Payments` may raise `DependencyDown` or `DeadlineExceeded`; only what it raises
besides is named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol

from billing.domain.accounts import AccountId
from billing.domain.customers import Customer, Outcome
from billing.domain.payments import (
    Checkout,
    CustomerId,
    CustomerSnapshot,
    Notice,
    SubscriptionSnapshot,
)
from billing.domain.plans import PackVersion, PlanVersion


class Payments(Protocol):
    """Stripe, or its stand-in. Keys name a request: the same key is carried out once."""

    async def create_customer(self, account_id: AccountId, *, key: str) -> CustomerId:
        """A customer that carries the account's pseudonymous id and nothing else."""
        ...

    async def plan_checkout(
        self,
        customer_id: CustomerId,
        plan: PlanVersion,
        *,
        success_url: str,
        cancel_url: str,
        key: str,
    ) -> Checkout:
        """A page that starts a subscription to a paid plan."""
        ...

    async def pack_checkout(
        self,
        customer_id: CustomerId,
        pack: PackVersion,
        *,
        success_url: str,
        cancel_url: str,
        key: str,
    ) -> Checkout:
        """A page that sells a pack once."""
        ...

    async def portal(self, customer_id: CustomerId, *, return_url: str) -> str:
        """The URL of a page where the customer manages cards, invoices and subscription."""
        ...

    async def change_plan(self, subscription_id: str, plan: PlanVersion, *, key: str) -> None:
        """Moves a subscription to another paid plan now; an upgrade's difference is paid now.

        A cheaper plan gives no money back: the credits of the month that was paid stay.

        Raises:
            InvalidState: the payment was declined; the subscription is as before.
        """
        ...

    async def cancel_at_period_end(self, subscription_id: str, *, cancel: bool, key: str) -> None:
        """Lets a subscription end with its period, or takes that back."""
        ...

    async def delete_customer(self, customer_id: CustomerId) -> None:
        """Ends all subscriptions at once and deletes the customer; no error when gone."""
        ...

    async def refund(self, payment: str, amount_cents: int | None, *, key: str) -> str:
        """Gives money back, all of it or a part; answers the refund's id.

        Raises:
            NotFound: no such payment.
            InvalidState: it is refunded or disputed already.
        """
        ...

    async def snapshot(self, customer_id: CustomerId) -> CustomerSnapshot:
        """Everything of the customer, as it is now.

        Raises:
            NotFound: there was never such a customer.
        """
        ...

    async def customer_of(self, payment: str) -> CustomerId | None:
        """Who made a payment; None: no customer did.

        Raises:
            NotFound: no such payment.
        """
        ...

    def customers(self, *, changed_since: datetime | None) -> AsyncIterator[CustomerId]:
        """Customers with our account id: all, or those with an event since then."""
        ...


class WebhookVerifier(Protocol):
    """Who says that a webhook comes from Stripe."""

    def verify(self, payload: bytes, signature: str, now: datetime) -> Notice:
        """The event, checked.

        Raises:
            Unauthenticated: no valid signature of the current or the previous secret, or one older
                or younger than 300 s.
            InvalidInput: signed, but no event of this mode (livemode) or none at all.
        """
        ...


class Customers(Protocol):
    """Customers and their subscriptions as last looked at."""

    async def of_account(self, account_id: AccountId) -> Customer | None:
        """The account's newest customer."""
        ...

    async def find(self, customer_id: CustomerId) -> Customer | None:
        """The customer; None: none of ours."""
        ...

    async def of_payment(self, payment: str) -> CustomerId | None:
        """Whose credits a payment bought; None: none that are known."""
        ...

    async def note_refund(self, payment: str, amount_cents: int | None, now: datetime) -> None:
        """Keeps an audit row of a refund that an operator is about to ask for; None: of all."""
        ...

    async def add(self, account_id: AccountId, customer_id: CustomerId, now: datetime) -> Customer:
        """Keeps the account's customer; where it has one that is not deleted, answers that."""
        ...

    async def apply(
        self, customer: Customer, snapshot: CustomerSnapshot, outcome: Outcome, now: datetime
    ) -> bool | None:
        """Subscriptions, plan and credits in one transaction; whether that changed anything.

        None, and nothing written, when a snapshot was applied since `customer` was read.
        """
        ...

    async def subscription(self, account_id: AccountId) -> SubscriptionSnapshot | None:
        """The one that decides the account's plan; None: none is live."""
        ...


class Versions(Protocol):
    """Plan and pack versions, on offer or not."""

    async def get(self, key: str, version: int) -> PlanVersion:
        """A plan version.

        Raises:
            NotFound: it was never published.
        """
        ...

    async def pack(self, key: str, version: int) -> PackVersion:
        """A pack version.

        Raises:
            NotFound: it was never published.
        """
        ...
