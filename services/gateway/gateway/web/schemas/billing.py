"""Ledger, usage and payments as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from easel_kit.errors import InvalidInput
from gateway.domain.account import LedgerLine, LedgerPage
from gateway.domain.money import Checkout, Purchase, UsageLine, UsagePage, Ware
from gateway.web.schemas.asked import In
from gateway.web.schemas.base import JOB_EXAMPLE, TIME_EXAMPLE, Credits, Out, credits_text

_Offered = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
_Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2000,
        description="Absolute, http or https, of an origin that is set up here.",
        json_schema_extra={"format": "uri"},
    ),
]


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


class UsageLineOut(Out):
    """What one job has cost."""

    job_id: str = Field(examples=[JOB_EXAMPLE])
    ended_at: datetime = Field(examples=[TIME_EXAMPLE])
    model: str = Field(examples=["shapes-64"])
    width: int = Field(description="Of the finished picture.", examples=[64])
    height: int = Field(examples=[64])
    steps: int = Field(examples=[10])
    n: int = Field(examples=[1])
    held_millicredits: int = Field(description="What was set aside for it.", examples=[41])
    charged_millicredits: int = Field(description="What it has cost.", examples=[41])
    charged_credits: Credits
    reason: str = Field(examples=["finished"])

    @classmethod
    def of(cls, line: UsageLine) -> UsageLineOut:
        """From the domain."""
        return cls(
            job_id=line.job_id,
            ended_at=line.ended_at,
            model=line.model_key,
            width=line.width_px,
            height=line.height_px,
            steps=line.steps,
            n=line.image_count,
            held_millicredits=line.held_millicredits,
            charged_millicredits=line.charged_millicredits,
            charged_credits=credits_text(line.charged_millicredits),
            reason=line.reason,
        )


class UsageTotalsOut(Out):
    """Over all pages."""

    jobs: int
    charged_millicredits: int
    charged_credits: Credits


class UsageOut(Out):
    """Jobs whose bill is settled, newest first."""

    items: tuple[UsageLineOut, ...]
    totals: UsageTotalsOut
    next_cursor: str | None = Field(description="For the next page; null on the last one.")

    @classmethod
    def of(cls, page: UsagePage) -> UsageOut:
        """From the domain."""
        return cls(
            items=tuple(UsageLineOut.of(line) for line in page.lines),
            totals=UsageTotalsOut(
                jobs=page.jobs,
                charged_millicredits=page.charged_millicredits,
                charged_credits=credits_text(page.charged_millicredits),
            ),
            next_cursor=page.next_page_token or None,
        )


class CheckoutIn(In):
    """What to pay for: a plan or a pack, and where to come back to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "plan": "pro",
                    "success_url": "https://app.example/thanks",
                    "cancel_url": "https://app.example/plans",
                },
                {
                    "pack": "small",
                    "success_url": "https://app.example/thanks",
                    "cancel_url": "https://app.example/plans",
                },
            ]
        }
    )

    plan: _Offered | None = Field(None, description="A paid plan, to subscribe to.")
    pack: _Offered | None = Field(None, description="A pack of credits, to buy once.")
    success_url: _Url
    cancel_url: _Url

    def purchase(self) -> Purchase:
        """As the service takes it.

        Raises:
            InvalidInput: not exactly one thing is named.
        """
        if self.plan is not None and self.pack is None:
            return Purchase(Ware.PLAN, self.plan)
        if self.pack is not None and self.plan is None:
            return Purchase(Ware.PACK, self.pack)
        raise InvalidInput("plan", "either a plan or a pack must be named, and not both")


class CheckoutOut(Out):
    """Where to pay."""

    url: str = Field(description="Send the user there.")
    expires_at: datetime | None = Field(
        description="When the page stops working; null: unknown.", examples=[TIME_EXAMPLE]
    )

    @classmethod
    def of(cls, checkout: Checkout) -> CheckoutOut:
        """From the domain."""
        return cls(url=checkout.url, expires_at=checkout.expires_at)


class PortalIn(In):
    """Where to come back to."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"return_url": "https://app.example/account"}]}
    )

    return_url: _Url


class PortalOut(Out):
    """Where to manage cards, invoices and the subscription."""

    url: str = Field(description="Send the user there.")


class SubscriptionIn(In):
    """What the subscription shall pay for from now on."""

    plan: _Offered = Field(examples=["enterprise"])
