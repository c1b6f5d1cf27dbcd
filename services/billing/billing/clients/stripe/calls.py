"""How Stripe is called: one deadline a call, pages to their end, its errors as ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import stripe

from easel_kit.errors import (
    Conflict,
    DeadlineExceeded,
    DependencyDown,
    DomainError,
    Internal,
    InvalidState,
    NotFound,
)
from easel_kit.log import get_logger

_PAGE = 100
# 20,000 objects of one kind: no customer of ours has a hundredth of it
_MAX_PAGES = 200
_SERVER_ERROR = 500
_CONFLICT = 409
# https://docs.stripe.com/error-codes
_STATE_CODES = {
    "charge_already_refunded": "this payment is refunded already",
    "charge_disputed": "this payment is disputed: the money is with the card's bank",
    "amount_too_large": "that is more than is left of this payment",
}

_log = get_logger(__name__)

T = TypeVar("T")
Item = TypeVar("Item", bound=stripe.StripeObject)


class StripeCalls:
    """The SDK's client, its deadline, and the translation of its errors."""

    def __init__(self, client: stripe.StripeClient, *, timeout_s: float) -> None:
        """`timeout_s` bounds a call with all its retries."""
        self.v1 = client.v1
        self._timeout_s = timeout_s

    async def call(self, answer: Awaitable[T], *, kind: str = "object", key: str = "") -> T:
        """What Stripe answers.

        Args:
            answer: a call of the SDK, not awaited yet.
            kind: of what the call is about, for people.
            key: its id.

        Raises:
            DependencyDown: Stripe is away, overloaded or failing.
            DeadlineExceeded: no answer in time; the call may have had its effect.
            InvalidState: a card was declined, or money is where it cannot be moved from.
            NotFound: Stripe knows no such thing.
            Conflict: an idempotency key was used for something else.
            Internal: Stripe refuses the key or the request; logged here.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError as error:
            raise DeadlineExceeded("the payment provider took too long") from error
        except stripe.StripeError as error:
            raise _ours(error, kind, key) from error

    async def pages(
        self, method: Callable[[Any], Awaitable[stripe.ListObject[Item]]], **params: object
    ) -> AsyncIterator[Item]:
        """All objects of a list, newest first as Stripe gives them.

        Raises:
            Internal: there are more than this client is made for.
        """
        page_params: dict[str, object] = {"limit": _PAGE, **params}
        for _ in range(_MAX_PAGES):
            page = await self.call(method(page_params))
            for item in page.data:
                yield item
            if not page.has_more or not page.data:
                return
            page_params["starting_after"] = page.data[-1]["id"]
        raise Internal("the payment provider lists more than can be read")


@asynccontextmanager
async def open_stripe(
    secret_key: str, *, api_url: str, timeout_s: float, max_retries: int
) -> AsyncIterator[StripeCalls]:
    """A client with its own key and connections; nothing of the SDK's module is set.

    Args:
        secret_key: `sk_…` or `rk_…`.
        api_url: of a stand-in; empty: Stripe itself.
        timeout_s: of a call with its retries; each try has an equal part of it.
        max_retries: the SDK repeats a call that often, under the same idempotency key.
    """
    http = stripe.HTTPXClient(timeout=timeout_s / (max_retries + 1))
    client = stripe.StripeClient(
        secret_key,
        http_client=http,
        max_network_retries=max_retries,
        base_addresses={"api": api_url} if api_url else None,
    )
    try:
        yield StripeCalls(client, timeout_s=timeout_s)
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped


def _ours(error: stripe.StripeError, kind: str, key: str) -> DomainError:
    found = _refusal(error, kind, key)
    if found is not None:
        return found
    if isinstance(error.__cause__, httpx.TimeoutException):
        return DeadlineExceeded("the payment provider took too long")
    if isinstance(error, stripe.APIConnectionError | stripe.RateLimitError) or _is_passing(error):
        return DependencyDown("the payment provider does not answer")
    _log.error(
        "stripe.refused",
        kind=type(error).__name__,
        code=error.code,
        status=error.http_status,
        request_id=error.request_id,
        reason=error.user_message,
    )
    return Internal("the payment provider refused this request")


def _refusal(error: stripe.StripeError, kind: str, key: str) -> DomainError | None:
    """What the caller can do something about."""
    if isinstance(error, stripe.CardError):
        return InvalidState(error.user_message or "the card was declined")
    if isinstance(error, stripe.IdempotencyError):
        return Conflict("this key was used for something else")
    if isinstance(error, stripe.InvalidRequestError):
        if error.code == "resource_missing":
            return NotFound(kind, key)
        if error.code in _STATE_CODES:
            return InvalidState(_STATE_CODES[error.code])
    return None


def _is_passing(error: stripe.StripeError) -> bool:
    status = error.http_status
    # an answer that is no JSON comes from something in between
    return isinstance(error, stripe.APIError) and (
        status is None or status >= _SERVER_ERROR or status == _CONFLICT or error.error is None
    )
