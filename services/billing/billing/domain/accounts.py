"""Accounts and their monthly periods."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

from billing.domain.payments import SubscriptionSnapshot
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


class PlanSource(StrEnum):
    """Who decides an account's plan."""

    DEFAULT = "default"
    """Nobody: it is what new accounts get."""
    GRANTED = "granted"
    """An operator, without payment."""
    SUBSCRIPTION = "subscription"
    """A subscription pays for it: its periods are Stripe's, its credits come with paid lines."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Millicredits that can be spent, that open holds reserve, and that are owed.

    None is ever negative, and nothing is available while something is owed.
    """

    available: int
    held: int
    debt: int = 0


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
    plan_source: PlanSource
    period_anchor: datetime
    """What monthly periods are counted from."""
    subscription: SubscriptionSnapshot | None = None
    """The one that pays for the plan."""

    def is_due(self, now: datetime) -> bool:
        """Whether the period is over or expired credits must be booked off."""
        return self.has_expired_lots or self.is_over(now)

    def is_over(self, now: datetime) -> bool:
        """Whether the next period may begin; that of a subscription begins when Stripe says so."""
        return self.plan_source is not PlanSource.SUBSCRIPTION and now >= self.period.end


@dataclass(frozen=True, slots=True)
class EntitlementsChange:
    """What a user's plan allows from now on; a greater version is newer."""

    account_id: AccountId
    user_id: UserId
    version: int
    plan: PlanVersion


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
