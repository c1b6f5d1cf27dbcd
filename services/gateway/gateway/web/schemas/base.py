"""What all answers share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

JOB_EXAMPLE = "job_01932f6ba1c07f3e8d5a4b7c9e0f1a2b"
BATCH_EXAMPLE = "bat_01932f6ba1c07f3e8d5a4b7c9e0f1a2b"
IMAGE_EXAMPLE = "img_01932f6ba9d17a0c9b3e5d7f8a6c4b2e"
PROMPT_EXAMPLE = "a blue square on a yellow background"
TIME_EXAMPLE = "2026-11-23T12:00:00Z"

Credits = Annotated[str, Field(pattern=r"^-?\d+\.\d{3}$", examples=["0.041"])]


def credits_text(millicredits: int) -> str:
    """Credits with three decimals, e.g. `0.041` for 41 millicredits."""
    sign = "-" if millicredits < 0 else ""
    whole, rest = divmod(abs(millicredits), 1000)
    return f"{sign}{whole}.{rest:03d}"


class Out(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(frozen=True)


class StatusOut(Out):
    """How the gateway feels."""

    status: Literal["ok", "ready"]


class KeptOut(Out):
    """What was sent is kept."""

    received: Literal[True]
