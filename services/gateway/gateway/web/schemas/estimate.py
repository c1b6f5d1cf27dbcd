"""Estimates as JSON."""

from __future__ import annotations

from pydantic import Field

from gateway.service.estimates import Estimate
from gateway.web.schemas.base import Credits, Out, credits_text


class EstimateOut(Out):
    """What this would cost and when it would be done; nothing is reserved."""

    jobs: int = Field(examples=[1])
    price_millicredits: int = Field(description="Of each job.", examples=[410])
    price_credits: Credits
    total_millicredits: int = Field(description="Of all jobs.", examples=[410])
    total_credits: Credits
    available_millicredits: int = Field(examples=[50_000])
    available_credits: Credits
    sufficient: bool = Field(description="Whether your credits would do.")
    position: int | None = Field(
        description="The (first) job's place if it were submitted now, 1 for the next to run; "
        "null where it would be refused, or the queue does not answer. `warnings` say which.",
        examples=[1],
    )
    eta_seconds: float | None = Field(
        description="Estimated seconds to its end; null where position is, and while no worker "
        "is there or none has drawn anything yet to reckon with.",
        examples=[2.5],
    )
    warnings: tuple[str, ...] = Field(description="For a person.")

    @classmethod
    def of(cls, estimate: Estimate) -> EstimateOut:
        """From the domain."""
        outlook = estimate.outlook
        eta_s = outlook.eta_seconds if outlook else None
        return cls(
            jobs=estimate.jobs,
            price_millicredits=estimate.price_millicredits,
            price_credits=credits_text(estimate.price_millicredits),
            total_millicredits=estimate.total_millicredits,
            total_credits=credits_text(estimate.total_millicredits),
            available_millicredits=estimate.available_millicredits,
            available_credits=credits_text(estimate.available_millicredits),
            sufficient=estimate.suffices,
            position=outlook.position if outlook else None,
            eta_seconds=None if eta_s is None else round(eta_s, 1),
            warnings=estimate.warnings,
        )
