"""The webhook inbox: what becomes of an event, and when it is tried again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from billing.domain.payments import CustomerId, Notice

# What credits, plans or debts depend on; of other events only the count is of interest.
_TELLING = (
    "charge.dispute.",
    "charge.refund",
    "checkout.session.",
    "customer.created",
    "customer.deleted",
    "customer.subscription.",
    "invoice.",
    "invoice_payment.",
    "refund.",
)
_MAX_DOUBLINGS = 20
_MAX_ERROR_CHARS = 200


class EventState(StrEnum):
    """Open: pending, retry and leased. Ended: applied, ignored, and dead until it is replayed."""

    PENDING = "pending"
    LEASED = "leased"
    APPLIED = "applied"
    IGNORED = "ignored"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """A row of the inbox."""

    event_id: str
    type: str
    customer_id: CustomerId | None
    created_at: datetime
    received_at: datetime
    state: EventState
    attempts: int
    next_try_at: datetime | None
    error: str


@dataclass(frozen=True, slots=True)
class CustomerLease:
    """One worker's right to look at a customer, and the events that the look answers.

    Attributes:
        customer_id: whom to look at.
        owner: the worker.
        version: counts this customer's leases; with a later one this lease is lost.
        events: tries of each event by its id, this one included. All were kept before the lease
            began, so a look that begins later sees what they tell of.
    """

    customer_id: CustomerId
    owner: str
    version: int
    events: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class InboxFigures:
    """How many events are in each state, and since when the oldest open one waits."""

    counts: Mapping[EventState, int]
    oldest_open_at: datetime | None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits that double from `base` to `cap`, each a random half to whole of it, so often."""

    max_attempts: int
    base: timedelta
    cap: timedelta

    def retry_at(self, now: datetime, attempts: int, chance: float) -> datetime | None:
        """When to try again after so many tries; None: never. `chance` is in [0, 1)."""
        if attempts >= self.max_attempts:
            return None
        length = min(self.base * (1 << min(attempts - 1, _MAX_DOUBLINGS)), self.cap)
        return now + length * (0.5 + chance / 2)


def is_telling(kind: str) -> bool:
    """Whether anything depends on what events of a type tell of."""
    return kind.startswith(_TELLING)


def first_state(notice: Notice) -> EventState:
    """Pending, or ignored: an event that names no customer or that nothing depends on."""
    tells = notice.customer_id is not None and is_telling(notice.type)
    return EventState.PENDING if tells else EventState.IGNORED


def error_text(text: str) -> str:
    """As much of it as is kept, on one line."""
    return " ".join(text.split())[:_MAX_ERROR_CHARS] or "unknown"
