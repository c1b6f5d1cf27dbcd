"""Whether a webhook comes from Stripe, and whom it is about.

Pure: no call, no clock. The event's body decides nothing but where to look again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import stripe

from billing.domain.payments import CustomerId, Notice
from easel_kit.errors import InvalidInput, Unauthenticated

# as the SDK's default; both ways, so that a signature cannot be kept for later
_TOLERANCE_S = 300
_MAX_ID = 255
_MAX_HEADER = 4_096
# the year 9999
_MAX_TIME = 253_402_300_799


class StripeWebhookVerifier:
    """The port `WebhookVerifier`."""

    def __init__(self, secret: str, previous_secret: str, *, is_live: bool) -> None:
        """Empty secrets verify nothing; `is_live` is the mode that events must be of."""
        self._secrets = [one for one in (secret, previous_secret) if one.strip()]
        self._is_live = is_live

    def verify(self, payload: bytes, signature: str, now: datetime) -> Notice:
        """The event, checked.

        Raises:
            Unauthenticated: no valid signature of the current or the previous secret, or one older
                or younger than 300 s.
            InvalidInput: signed, but no event of this mode (livemode) or none at all.
        """
        self._check(payload, signature)
        if abs(int(now.timestamp()) - _timestamp(signature)) > _TOLERANCE_S:
            raise Unauthenticated("the webhook's signature is too old or from the future")
        return self._notice(_event(payload))

    def _check(self, payload: bytes, signature: str) -> None:
        if len(signature) > _MAX_HEADER:
            raise Unauthenticated("the webhook is not signed by the payment provider")
        for secret in self._secrets:
            try:
                # compares in constant time; its own look at the clock is not used
                stripe.WebhookSignature.verify_header(payload, signature, secret)
            except (stripe.SignatureVerificationError, ValueError, TypeError):
                # besides its own error: a body that is no UTF-8, a signature that is no ASCII
                continue
            return
        raise Unauthenticated("the webhook is not signed by the payment provider")

    def _notice(self, event: Mapping[str, Any]) -> Notice:
        event_id, kind, created = event.get("id"), event.get("type"), event.get("created")
        if event.get("object") != "event" or not _is_short(event_id) or not _is_short(kind):
            raise InvalidInput("payload", "is no event")
        if not isinstance(created, int) or not 0 <= created <= _MAX_TIME:
            raise InvalidInput("payload", "has no time of creation")
        if event.get("livemode") is not self._is_live:
            mode = "live" if self._is_live else "test"
            raise InvalidInput("payload", f"is no event of {mode} mode")
        data = event.get("data")
        body = data.get("object") if isinstance(data, dict) else None
        named = customer_or_payment(body) if isinstance(body, dict) else ""
        is_payment = named.startswith("pi_")
        return Notice(
            event_id=str(event_id),
            type=str(kind),
            customer_id=CustomerId(named) if named and not is_payment else None,
            created_at=datetime.fromtimestamp(created, UTC),
            payment=named if is_payment else "",
        )


def customer_or_payment(body: Mapping[str, Any]) -> str:
    """The customer's id in an event's object, else the payment's (a dispute names no customer)."""
    if body.get("object") == "customer" and _is_short(body.get("id")):
        return str(body["id"])
    for name in ("customer", "payment_intent"):
        value = body.get(name)
        if isinstance(value, dict):
            value = value.get("id")
        if _is_short(value):
            return str(value)
    return ""


def _timestamp(signature: str) -> int:
    """The signed time: the SDK takes the first one, and has found one."""
    times = [part[2:] for part in signature.split(",") if part.startswith("t=")]
    try:
        return int(times[0].partition("=")[0])
    except (IndexError, ValueError) as error:
        raise Unauthenticated("the webhook's signature has no time") from error


def _event(payload: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("payload", "is no JSON") from error
    if not isinstance(event, dict):
        raise InvalidInput("payload", "is no event")
    return event


def _is_short(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID and value.isprintable()
