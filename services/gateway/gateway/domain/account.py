"""Accounts as billing tells them: plans, balances, holds, ledger lines. Credits in millicredits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from easel_kit.ids import JobId, ModelKey, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a plan costs and allows."""

    key: str
    version: int
    name: str
    price_cents: int
    currency: str
    monthly_millicredits: int
    priority: int
    weight: int
    max_running: int
    max_waiting: int
    queue_time_s: int
    max_pixels: int
    max_images: int
    requests_per_minute: int
    storage_bytes: int
    """Of pictures that the user may keep."""
    model_keys: tuple[ModelKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Entitlements:
    """A plan as it holds for one user; the version grows with each change of it."""

    version: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Balance:
    """What can be spent, what open holds have set aside, and what the next credits pay first."""

    available_millicredits: int
    held_millicredits: int
    debt_millicredits: int = 0


@dataclass(frozen=True, slots=True)
class Subscription:
    """What pays for a plan, as the payment provider had it when billing last looked."""

    status: str
    plan_key: str
    period_end: datetime | None
    cancel_at_period_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user's account."""

    user_id: UserId
    entitlements: Entitlements
    balance: Balance
    opened_at: datetime | None
    renews_at: datetime | None
    subscription: Subscription | None = None


class HoldState(StrEnum):
    """Captured and released are ends."""

    OPEN = "open"
    CAPTURED = "captured"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The price of a job, set aside."""

    job_id: JobId
    state: HoldState
    amount_millicredits: int
    captured_millicredits: int

    @property
    def charged_millicredits(self) -> int | None:
        """What the job has cost in the end; None until that is settled."""
        if self.state is HoldState.OPEN:
            return None
        return self.captured_millicredits if self.state is HoldState.CAPTURED else 0


@dataclass(frozen=True, slots=True)
class PlacedHolds:
    """The answer to holds: each job's, and what the user's plan allows."""

    holds: Mapping[JobId, Hold]
    entitlements: Entitlements


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One change of the available balance."""

    id: str
    booked_at: datetime
    kind: str
    reference: str
    millicredits: int
    available_after_millicredits: int
    description: str


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """Ledger lines, newest first; an empty token says that this is the last page."""

    lines: tuple[LedgerLine, ...]
    next_page_token: str
