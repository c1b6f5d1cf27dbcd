"""Stripe's objects as billing sees them: a customer's whole state, looked at as one.

Nothing here is an event: an event only says which customer to look at again. Events come late,
twice and out of order; a fresh look never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

CustomerId = NewType("CustomerId", str)
"""`cus_…`"""


class SubscriptionStatus(StrEnum):
    """As Stripe says it: https://docs.stripe.com/api/subscriptions/object#status."""

    INCOMPLETE = "incomplete"
    INCOMPLETE_EXPIRED = "incomplete_expired"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELED = "canceled"
    UNPAID = "unpaid"
    PAUSED = "paused"

    @property
    def is_live(self) -> bool:
        """Whether it gives the plan: paid for, or in the days in which a payment is tried again."""
        return self in {self.ACTIVE, self.TRIALING, self.PAST_DUE}


@dataclass(frozen=True, slots=True)
class SubscriptionSnapshot:
    """One subscription. The plan version is what its price was made for."""

    id: str
    status: SubscriptionStatus
    plan_key: str
    plan_version: int
    period_start: datetime
    period_end: datetime
    cancel_at_period_end: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PaidLine:
    """A line of a paid invoice for a plan. `amount_cents` is negative for time given back."""

    id: str
    invoice_id: str
    payment: str
    plan_key: str
    plan_version: int
    amount_cents: int
    is_proration: bool
    period_start: datetime
    period_end: datetime
    paid_at: datetime


@dataclass(frozen=True, slots=True)
class PaidPack:
    """A paid Checkout Session for a pack."""

    session_id: str
    payment: str
    pack_key: str
    pack_version: int
    amount_cents: int
    paid_at: datetime


@dataclass(frozen=True, slots=True)
class Refund:
    """Money given back, or on its way; one that failed has not moved any."""

    id: str
    payment: str
    amount_cents: int
    paid_cents: int
    """Of the payment as a whole."""
    created_at: datetime
    has_failed: bool = False


class DisputeStatus(StrEnum):
    """What it means for credits: the money is away, back, or was never away."""

    WITHDRAWN = "withdrawn"
    WON = "won"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Dispute:
    """A payment that the card's owner contests."""

    id: str
    payment: str
    status: DisputeStatus
    amount_cents: int
    paid_cents: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CustomerSnapshot:
    """Everything of one customer that credits and plans depend on, oldest first."""

    customer_id: CustomerId
    is_deleted: bool
    subscriptions: tuple[SubscriptionSnapshot, ...]
    lines: tuple[PaidLine, ...]
    packs: tuple[PaidPack, ...]
    refunds: tuple[Refund, ...]
    disputes: tuple[Dispute, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """A verified webhook: which customer to look at.

    `customer_id` is None where none is named; then `payment` may lead to one (a dispute names its
    payment alone), or is empty.
    """

    event_id: str
    type: str
    customer_id: CustomerId | None
    created_at: datetime
    payment: str = ""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A page where the user pays."""

    session_id: str
    url: str
    expires_at: datetime
