"""Customers at the payment provider as they are kept here, and what a look at one comes to."""

from __future__ import annotations

from dataclasses import dataclass

from billing.domain.accounts import AccountId, Period
from billing.domain.effects import Effect
from billing.domain.payments import CustomerId
from billing.domain.plans import PlanVersion


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays for an account. `version` grows with each snapshot that is applied."""

    id: CustomerId
    account_id: AccountId
    version: int
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class PlanPeriod:
    """A plan and a period that it holds for."""

    plan: PlanVersion
    period: Period


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a snapshot makes of the account.

    Attributes:
        subscription_id: of the one that decides the plan; empty: none does.
        paid: what it pays for; None: nothing.
        otherwise: where an account goes whose subscription has ended.
        effects: on its credits, in their order.
    """

    subscription_id: str
    paid: PlanPeriod | None
    otherwise: PlanPeriod
    effects: tuple[Effect, ...]
