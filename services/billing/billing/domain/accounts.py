"""Accounts and their monthly periods."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from billing.domain.plans import PlanVersion
from easel_kit.ids import UserId

_MONTHS = 12

AccountId = NewType("AccountId", str)
"""Names an account in all bookkeeping; only one erasable row leads from it to a user."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` up to, not including, `end`."""

    start: datetime
    end: datetime

    @property
    def name(self) -> str:
        """The day that it starts, e.g. "2026-11-23"; unique among the periods of an account."""
        return self.start.date().isoformat()


@dataclass(frozen=True, slots=True)
class Balance:
    """Millicredits that can be spent and that open holds reserve; neither is ever negative."""

    available: int
    held: int


@dataclass(frozen=True, slots=True)
class Account:
    """A user's account as it stands."""

    id: AccountId
    user_id: UserId
    opened_at: datetime
    plan: PlanVersion
    entitlements_version: int
    period: Period
    balance: Balance
    has_expired_lots: bool
    """Credits whose time is over are still in the balance: renew before use."""
    is_barred: bool = False
    """An erasure was asked for: nothing new begins."""

    def is_due(self, now: datetime) -> bool:
        """Whether the period is over or expired credits must be booked off."""
        return self.has_expired_lots or now >= self.period.end


def months_after(anchor: datetime, months: int) -> datetime:
    """The same day and time `months` later; in a shorter month its last day."""
    years, month = divmod(anchor.month - 1 + months, _MONTHS)
    year = anchor.year + years
    last_day = calendar.monthrange(year, month + 1)[1]
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, last_day))


def period_at(anchor: datetime, now: datetime) -> Period:
    """The monthly period that holds `now`, counted from `anchor`; the first one before that."""
    months = (now.year - anchor.year) * _MONTHS + now.month - anchor.month
    if months_after(anchor, months) > now:
        months -= 1
    months = max(months, 0)
    return Period(months_after(anchor, months), months_after(anchor, months + 1))
