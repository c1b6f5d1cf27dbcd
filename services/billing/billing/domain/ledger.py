"""Double entry: every change of credits is a transfer whose entries sum to zero.

Books `available`, `held` and `debt` (what is owed, below zero) are the user's balance; `granted`,
`spent`, `expired` and `clawed` are where credits come from and go to. A transfer is written once
and never changed.

While something is owed nothing is available: of what a transfer makes available, a second one right
after it (`repay`) pays what is owed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from billing.domain.accounts import AccountId, Period
from billing.domain.pricing import Work
from easel_kit.errors import InvalidState
from easel_kit.ids import JobId


class Book(StrEnum):
    """What an entry changes."""

    AVAILABLE = "available"
    HELD = "held"
    GRANTED = "granted"
    SPENT = "spent"
    EXPIRED = "expired"
    CLAWED = "clawed"
    DEBT = "debt"


class Kind(StrEnum):
    """Why credits moved."""

    GRANT = "grant"
    HOLD = "hold"
    CAPTURE = "capture"
    RELEASE = "release"
    EXPIRE = "expire"
    PURCHASE = "purchase"
    CLAWBACK = "clawback"
    GIVE_BACK = "give_back"
    REPAY = "repay"


@dataclass(frozen=True, slots=True)
class Entry:
    """One book's change in millicredits, never 0."""

    book: Book
    millicredits: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """One move of credits inside one account. `reference` is unique per account and kind."""

    account_id: AccountId
    kind: Kind
    reference: str
    description: str
    entries: tuple[Entry, ...]
    job_id: JobId | None = None

    def change(self, book: Book) -> int:
        """Millicredits that a book gains."""
        return sum(entry.millicredits for entry in self.entries if entry.book is book)


@dataclass(frozen=True, slots=True)
class Line:
    """A transfer as the user reads it."""

    id: str
    sequence: int
    kind: Kind
    reference: str
    description: str
    available_change: int
    available_after: int
    booked_at: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """Millicredits of one lot."""

    lot_id: str
    millicredits: int


def take(parts: Sequence[Part], millicredits: int) -> tuple[Part, ...]:
    """Takes an amount from parts in their order: the first ones whole, the last one in part.

    Raises:
        InvalidState: the parts hold less; the books contradict each other.
    """
    taken: list[Part] = []
    missing = millicredits
    for part in parts:
        if missing == 0:
            break
        amount = min(part.millicredits, missing)
        if amount:
            taken.append(Part(part.lot_id, amount))
            missing -= amount
    if missing:
        raise InvalidState("the lots hold less than the balance says")
    return tuple(taken)


def grant(account_id: AccountId, period: Period, plan_name: str, ref: str, amount: int) -> Transfer:
    """Credits of a plan for a period."""
    return Transfer(
        account_id,
        Kind.GRANT,
        ref,
        f"Credits of the plan {plan_name} until {period.end.date().isoformat()}",
        _entries((Book.GRANTED, -amount), (Book.AVAILABLE, amount)),
    )


def hold(account_id: AccountId, job_id: JobId, work: Work, amount: int) -> Transfer:
    """The price of a job, reserved."""
    pictures = "picture" if work.image_count == 1 else "pictures"
    return Transfer(
        account_id,
        Kind.HOLD,
        job_id,
        f"Reserved for {work.image_count} {pictures} of {work.width_px} x {work.height_px}, "
        f"{work.steps} steps, {work.model_key}",
        _entries((Book.AVAILABLE, -amount), (Book.HELD, amount)),
        job_id,
    )


def settle(
    account_id: AccountId, job_id: JobId, amount: int, captured: int, reason: str
) -> Transfer:
    """The end of a hold: what is charged is spent, the rest is available again."""
    freed = amount - captured
    if captured == 0:
        kind, text = Kind.RELEASE, f"Nothing charged: {reason}"
    elif freed == 0:
        kind, text = Kind.CAPTURE, f"Charged {credits_text(captured)}: {reason}"
    else:
        kind = Kind.CAPTURE
        text = f"Charged {credits_text(captured)} of {credits_text(amount)}: {reason}"
    return Transfer(
        account_id,
        kind,
        job_id,
        text,
        _entries((Book.HELD, -amount), (Book.SPENT, captured), (Book.AVAILABLE, freed)),
        job_id,
    )


def expire(account_id: AccountId, reference: str, amount: int, expired_at: datetime) -> Transfer:
    """Credits whose time is over."""
    return Transfer(
        account_id,
        Kind.EXPIRE,
        reference,
        f"Unused credits expired on {expired_at.date().isoformat()}",
        _entries((Book.AVAILABLE, -amount), (Book.EXPIRED, amount)),
    )


def purchase(account_id: AccountId, reference: str, amount: int, description: str) -> Transfer:
    """Credits that were paid for."""
    return Transfer(
        account_id,
        Kind.PURCHASE,
        reference,
        description,
        _entries((Book.GRANTED, -amount), (Book.AVAILABLE, amount)),
    )


def clawback(
    account_id: AccountId, reference: str, taken: int, owed: int, description: str
) -> Transfer:
    """Credits taken back: out of lots, and as debt."""
    if owed:
        description = f"{description}; {credits_text(owed)} of it spent already, and owed"
    return Transfer(
        account_id,
        Kind.CLAWBACK,
        reference,
        description,
        _entries((Book.AVAILABLE, -taken), (Book.DEBT, -owed), (Book.CLAWED, taken + owed)),
    )


def give_back(account_id: AccountId, reference: str, amount: int) -> Transfer:
    """Credits that were taken back and come again."""
    return Transfer(
        account_id,
        Kind.GIVE_BACK,
        reference,
        f"Given back: {reference}",
        _entries((Book.CLAWED, -amount), (Book.AVAILABLE, amount)),
    )


def credits_text(millicredits: int) -> str:
    """For people: "0.410 credits"."""
    return f"{decimal_credits(millicredits)} credits"


def decimal_credits(millicredits: int) -> str:
    """Whole credits with three places: "-0.410"."""
    whole, places = divmod(abs(millicredits), 1000)
    return f"{'-' if millicredits < 0 else ''}{whole}.{places:03}"


def _entries(*changes: tuple[Book, int]) -> tuple[Entry, ...]:
    return tuple(Entry(book, amount) for book, amount in changes if amount)
