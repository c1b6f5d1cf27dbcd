"""Where the payment provider's webhooks arrive."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request

from gateway.web.context import ServicesOf
from gateway.web.openapi import problems
from gateway.web.receiving import raw_body
from gateway.web.schemas.base import KeptOut

STRIPE_PATH = "/v1/webhooks/stripe"
MAX_STRIPE_BYTES = 512 * 1024
"""As much as billing takes; Stripe's events are a few KiB."""
# Stripe waits about as long for the whole of an answer.
_RECEIVE_S = 10.0

router = APIRouter(tags=["webhooks"])


@router.post(
    STRIPE_PATH,
    operation_id="receiveStripeWebhook",
    summary="For Stripe alone",
    responses=problems(400, 409, 413, 422, 504, caller=False),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "An event as Stripe signed it, byte for byte.",
            "content": {"application/json": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def receive_stripe_webhook(
    request: Request,
    services: ServicesOf,
    stripe_signature: Annotated[
        str, Header(max_length=4096, description="Stripe's; without a valid one: 400.")
    ] = "",
) -> KeptOut:
    """Answers once the event is kept; anything but 2xx makes Stripe send it again."""
    payload = await raw_body(request, within_s=_RECEIVE_S)
    await services.notices.accept(payload, stripe_signature)
    return KeptOut(received=True)
