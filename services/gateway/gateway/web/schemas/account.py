"""Accounts, plans and packs as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from gateway.domain.account import Account, Balance, Plan, Subscription
from gateway.domain.money import Offers, Pack
from gateway.domain.privacy import Erasure
from gateway.web.schemas.base import TIME_EXAMPLE, Credits, Out, credits_text


class PlanOut(Out):
    """What a plan costs and allows."""

    key: str = Field(examples=["pro"])
    version: int
    name: str = Field(examples=["Pro"])
    price_cents: int = Field(description="A month.", examples=[1900])
    currency: str = Field(examples=["usd"])
    monthly_millicredits: int = Field(examples=[1_000_000])
    monthly_credits: Credits
    priority: int = Field(description="Higher goes first.")
    weight: int = Field(description="The plan's share of busy machines.")
    max_running: int = Field(description="Jobs that run at once.")
    max_waiting: int = Field(description="Jobs that wait besides.")
    queue_time_s: int = Field(description="Seconds that a job may wait for its first worker.")
    max_pixels: int = Field(description="Of one picture.")
    max_images: int = Field(description="Of one job.")
    requests_per_minute: int
    storage_bytes: int = Field(description="Of pictures that you may keep.")
    models: tuple[str, ...] = Field(description="Empty: all models.")

    @classmethod
    def of(cls, plan: Plan) -> PlanOut:
        """From the domain."""
        return cls(
            key=plan.key,
            version=plan.version,
            name=plan.name,
            price_cents=plan.price_cents,
            currency=plan.currency,
            monthly_millicredits=plan.monthly_millicredits,
            monthly_credits=credits_text(plan.monthly_millicredits),
            priority=plan.priority,
            weight=plan.weight,
            max_running=plan.max_running,
            max_waiting=plan.max_waiting,
            queue_time_s=plan.queue_time_s,
            max_pixels=plan.max_pixels,
            max_images=plan.max_images,
            requests_per_minute=plan.requests_per_minute,
            storage_bytes=plan.storage_bytes,
            models=plan.model_keys,
        )


class PackOut(Out):
    """Credits that can be bought once, on any plan."""

    key: str = Field(examples=["small"])
    name: str = Field(examples=["Small pack"])
    price_cents: int = Field(examples=[500])
    currency: str = Field(examples=["usd"])
    millicredits: int = Field(examples=[200_000])
    credits: Credits
    valid_days: int = Field(
        description="Days from the purchase until what is left expires.", examples=[365]
    )

    @classmethod
    def of(cls, pack: Pack) -> PackOut:
        """From the domain."""
        return cls(
            key=pack.key,
            name=pack.name,
            price_cents=pack.price_cents,
            currency=pack.currency,
            millicredits=pack.millicredits,
            credits=credits_text(pack.millicredits),
            valid_days=pack.valid_days,
        )


class PlansOut(Out):
    """Plans and packs on offer, cheapest first."""

    items: tuple[PlanOut, ...]
    packs: tuple[PackOut, ...]

    @classmethod
    def of(cls, offers: Offers) -> PlansOut:
        """From the domain."""
        return cls(
            items=tuple(PlanOut.of(plan) for plan in offers.plans),
            packs=tuple(PackOut.of(pack) for pack in offers.packs),
        )


class CreditsOut(Out):
    """What can be spent, what waiting and running jobs have set aside, and what is owed."""

    available_millicredits: int = Field(examples=[99959])
    held_millicredits: int = Field(examples=[41])
    debt_millicredits: int = Field(
        description="Owed after a refund or a dispute of spent credits; the next credits pay it.",
        examples=[0],
    )
    available_credits: Credits
    held_credits: Credits
    debt_credits: Credits

    @classmethod
    def of(cls, balance: Balance) -> CreditsOut:
        """From the domain."""
        return cls(
            available_millicredits=balance.available_millicredits,
            held_millicredits=balance.held_millicredits,
            debt_millicredits=balance.debt_millicredits,
            available_credits=credits_text(balance.available_millicredits),
            held_credits=credits_text(balance.held_millicredits),
            debt_credits=credits_text(balance.debt_millicredits),
        )


class SubscriptionOut(Out):
    """What pays for the plan."""

    status: str = Field(description="As Stripe says it.", examples=["active", "past_due"])
    plan: str = Field(description="Key of the plan that it pays for.", examples=["pro"])
    period_end: datetime | None = Field(
        description="When it renews, or ends.", examples=[TIME_EXAMPLE]
    )
    cancel_at_period_end: bool = Field(description="It ends then.")

    @classmethod
    def of(cls, subscription: Subscription) -> SubscriptionOut:
        """From the domain."""
        return cls(
            status=subscription.status,
            plan=subscription.plan_key,
            period_end=subscription.period_end,
            cancel_at_period_end=subscription.cancel_at_period_end,
        )


class MeOut(Out):
    """The caller's account."""

    user_id: str
    plan: PlanOut
    credits: CreditsOut
    subscription: SubscriptionOut | None = Field(description="Null where none pays for the plan.")
    opened_at: datetime | None
    renews_at: datetime | None = Field(description="When the next monthly credits are due.")

    @classmethod
    def of(cls, account: Account) -> MeOut:
        """From the domain."""
        subscription = account.subscription
        return cls(
            user_id=account.user_id,
            plan=PlanOut.of(account.entitlements.plan),
            credits=CreditsOut.of(account.balance),
            subscription=SubscriptionOut.of(subscription) if subscription else None,
            opened_at=account.opened_at,
            renews_at=account.renews_at,
        )


class ErasureOut(Out):
    """How far the erasure of an account is."""

    state: Literal["requested", "stopped", "done"] = Field(
        description="requested: jobs are stopped, the subscription ends; stopped: pictures that "
        "are still on their way are waited for; done: nothing leads to you any more."
    )
    requested_at: datetime = Field(examples=[TIME_EXAMPLE])
    finished_at: datetime | None = Field(examples=[TIME_EXAMPLE])

    @classmethod
    def of(cls, erasure: Erasure) -> ErasureOut:
        """From the domain."""
        return cls(
            state=erasure.state.value,
            requested_at=erasure.requested_at,
            finished_at=erasure.finished_at,
        )
