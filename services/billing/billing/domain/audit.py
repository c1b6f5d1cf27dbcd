"""What billing keeps an audit row of, and who can have done it. Nothing here names a person."""

from __future__ import annotations

from enum import StrEnum


class Actor(StrEnum):
    """Who did it."""

    USER = "user"
    """Through the gateway, on their own behalf."""
    OPERATOR = "operator"
    """By a command, or by a call that users have no way to."""
    STRIPE = "stripe"
    """Seen there and followed here."""
    BILLING = "billing"
    """By itself, as time passes or after a restore."""


class Action(StrEnum):
    """What was done to an account."""

    ACCOUNT_OPENED = "account.opened"
    ACCOUNT_EXPORTED = "account.exported"
    PLAN_CHANGED = "plan.changed"
    SUBSCRIPTION_CHANGED = "subscription.changed"
    CUSTOMER_LINKED = "customer.linked"
    PURCHASE_GRANTED = "purchase.granted"
    PURCHASE_CLAWED_BACK = "purchase.clawed_back"
    PURCHASE_GIVEN_BACK = "purchase.given_back"
    REFUND_ASKED = "refund.asked"
    """Before Stripe is asked, so that it stands there whatever is killed."""
    ERASURE_REQUESTED = "erasure.requested"
    ERASURE_SETTLED = "erasure.settled"
    ERASURE_CANCELLED = "erasure.cancelled"
    ERASURE_FINISHED = "erasure.finished"
    EVENTS_REPLAYED = "events.replayed"
