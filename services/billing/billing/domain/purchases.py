"""Credits that money bought, and what takes them back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class PurchaseSource(StrEnum):
    """Where a purchase comes from; names its lot together with the reference."""

    INVOICE_LINE = "invoice_line"
    CHECKOUT = "checkout"


@dataclass(frozen=True, slots=True)
class Purchase:
    """Credits to be granted once.

    Attributes:
        source: with `reference` unique over all accounts: the same purchase is granted once.
        reference: Stripe's id of the paid invoice line or of the paid Checkout Session.
        payment: Stripe's id of the payment, which refunds and disputes name; or empty.
        millicredits: above 0.
        expires_at: when what is left of them goes.
        description: for the user's ledger.
    """

    source: PurchaseSource
    reference: str
    payment: str
    millicredits: int
    expires_at: datetime
    description: str


@dataclass(frozen=True, slots=True)
class Clawback:
    """Credits of a purchase that are taken back once: refunded, disputed, or changed for others.

    Taken from what is free of the purchase's own lots; what of them expired unused needs no taking;
    the rest is taken from the account's other lots, and what is spent or reserved already becomes
    debt, which the next credits pay.

    Attributes:
        reference: unique per account, e.g. "re_…" or "dp_…".
        payment: whose purchases it takes back.
        millicredits: above 0; never more is taken than the purchases of the payment granted, less
            what earlier clawbacks took.
        description: for the user's ledger.
        may_owe: False takes from what is free of the purchase's own lots alone, and never more:
            time given back on an upgrade, not money.
    """

    reference: str
    payment: str
    millicredits: int
    description: str
    may_owe: bool = True


@dataclass(frozen=True, slots=True)
class Paid:
    """What is left of a payment's purchases, in millicredits."""

    granted: int
    clawed: int
    """Taken back by clawbacks that stand, whatever it was taken from."""
    free: int
    """In its lots, neither spent nor reserved."""
    lapsed: int
    """Expired unused, less what clawbacks have counted already."""


@dataclass(frozen=True, slots=True)
class Division:
    """Where the millicredits of a clawback come from."""

    lapsed: int
    own: int
    others: int
    owed: int

    @property
    def taken(self) -> int:
        """Out of lots."""
        return self.own + self.others


def divide(clawback: Clawback, paid: Paid, available: int) -> Division:
    """Divides a clawback.

    Args:
        clawback: asks for this much at most.
        paid: of its payment.
        available: the account's balance, the payment's lots included.
    """
    due = max(min(clawback.millicredits, paid.granted - paid.clawed), 0)
    own = min(due, paid.free)
    if not clawback.may_owe:
        return Division(lapsed=0, own=own, others=0, owed=0)
    lapsed = min(due - own, paid.lapsed)
    others = min(due - own - lapsed, available - own)
    return Division(lapsed, own, others, due - own - lapsed - others)
