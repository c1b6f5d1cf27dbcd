"""Accounts, plans and ledgers as JSON."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gateway.domain.account import Account, LedgerLine, LedgerPage, Plan
from gateway.web.schemas.base import JOB_EXAMPLE, TIME_EXAMPLE, Credits, Out, credits_text


class PlanOut(Out):
    """What a plan costs and allows."""

    key: str = Field(examples=["pro"])
    version: int
    name: str = Field(examples=["Pro"])
    price_cents: int = Field(description="A month.", examples=[1900])
    currency: str = Field(examples=["usd"])
    monthly_millicredits: int
    priority: int = Field(description="Higher goes first.")
    max_running: int
    max_waiting: int
    queue_time_s: int
    max_pixels: int
    max_images: int
    requests_per_minute: int
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
            priority=plan.priority,
            max_running=plan.max_running,
            max_waiting=plan.max_waiting,
            queue_time_s=plan.queue_time_s,
            max_pixels=plan.max_pixels,
            max_images=plan.max_images,
            requests_per_minute=plan.requests_per_minute,
            models=plan.model_keys,
        )


class PlansOut(Out):
    """Plans on offer, cheapest first."""

    items: tuple[PlanOut, ...]


class CreditsOut(Out):
    """What can be spent, and what waiting and running jobs have set aside."""

    available_millicredits: int = Field(examples=[99959])
    held_millicredits: int = Field(examples=[41])
    available_credits: Credits
    held_credits: Credits


class MeOut(Out):
    """The caller's account."""

    user_id: str
    plan: PlanOut
    credits: CreditsOut
    opened_at: datetime | None
    renews_at: datetime | None = Field(description="When the next monthly credits are due.")

    @classmethod
    def of(cls, account: Account) -> MeOut:
        """From the domain."""
        balance = account.balance
        return cls(
            user_id=account.user_id,
            plan=PlanOut.of(account.entitlements.plan),
            credits=CreditsOut(
                available_millicredits=balance.available_millicredits,
                held_millicredits=balance.held_millicredits,
                available_credits=credits_text(balance.available_millicredits),
                held_credits=credits_text(balance.held_millicredits),
            ),
            opened_at=account.opened_at,
            renews_at=account.renews_at,
        )


class LedgerLineOut(Out):
    """One change of the credits that can be spent."""

    id: str
    booked_at: datetime = Field(examples=[TIME_EXAMPLE])
    kind: str = Field(examples=["hold"])
    reference: str = Field(description="What it refers to, e.g. a job id.", examples=[JOB_EXAMPLE])
    millicredits: int = Field(examples=[-41])
    available_after_millicredits: int
    description: str

    @classmethod
    def of(cls, line: LedgerLine) -> LedgerLineOut:
        """From the domain."""
        return cls(
            id=line.id,
            booked_at=line.booked_at,
            kind=line.kind,
            reference=line.reference,
            millicredits=line.millicredits,
            available_after_millicredits=line.available_after_millicredits,
            description=line.description,
        )


class LedgerOut(Out):
    """Ledger lines, newest first."""

    items: tuple[LedgerLineOut, ...]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")

    @classmethod
    def of(cls, page: LedgerPage) -> LedgerOut:
        """From the domain."""
        return cls(
            items=tuple(LedgerLineOut.of(line) for line in page.lines),
            next_cursor=page.next_page_token or None,
        )
