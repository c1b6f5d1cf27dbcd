"""What every route works with, and who is calling: authentication and request limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from structlog.contextvars import bind_contextvars

from easel_kit.errors import RateLimited, Unauthenticated
from gateway.domain.identity import Identity
from gateway.ports import Line, LocalObjects, RateLimiter, TokenVerifier, Usage
from gateway.service.accounts import Accounts
from gateway.service.catalogue import Catalogue
from gateway.service.estimates import Estimates
from gateway.service.generations import Generations
from gateway.service.payments import Notices, Purchases
from gateway.service.pictures import Pictures
from gateway.service.privacy import Privacy
from gateway.service.uploads import Uploads

HEADERS_KEY = "easel.headers"
_WINDOW_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The use cases, and what guards them."""

    generations: Generations
    estimates: Estimates
    line: Line
    catalogue: Catalogue
    accounts: Accounts
    usage: Usage
    purchases: Purchases
    notices: Notices
    pictures: Pictures
    privacy: Privacy
    uploads: Uploads
    verifier: TokenVerifier
    limiter: RateLimiter
    local_objects: LocalObjects | None
    stop: asyncio.Event
    address_requests_per_minute: int


def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


ServicesOf = Annotated[Services, Depends(_services)]


async def _limit_address(request: Request, services: ServicesOf) -> None:
    address = request.client.host if request.client else "unknown"
    await _limit(request, services, "address", address, services.address_requests_per_minute)


async def _limit(
    request: Request, services: Services, kind: str, key: str, per_minute: int
) -> None:
    left = await services.limiter.hit(kind, key, per_minute)
    if left is None:
        return
    # draft-ietf-httpapi-ratelimit-headers-10; the user's policy takes the address's place
    request.scope[HEADERS_KEY] = {
        "RateLimit-Policy": f'"{kind}";q={left.limit};w={_WINDOW_S}',
        "RateLimit": f'"{kind}";r={left.remaining};t={round(left.reset_s)}',
    }
    if not left.allowed:
        raise RateLimited(
            f"Too many requests: {left.limit} a minute are allowed per {kind}",
            retry_after_s=left.reset_s,
            limit=left.limit,
        )


_bearer = HTTPBearer(
    auto_error=False,
    bearerFormat="JWT",
    scheme_name="accessToken",
    description="An access token of the configured issuer.",
)


async def _verified(
    services: ServicesOf,
    _within_limit: Annotated[None, Depends(_limit_address)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Identity:
    if credentials is None:
        raise Unauthenticated("an access token is needed: Authorization: Bearer …")
    identity = await services.verifier.verify(credentials.credentials)
    bind_contextvars(user_id=identity.user_id)
    return identity


Verified = Annotated[Identity, Depends(_verified)]
"""Whom the token speaks for, also of users who were erased."""


async def _caller(request: Request, services: ServicesOf, identity: Verified) -> Identity:
    await services.privacy.admit(identity.user_id)
    await services.accounts.admit(identity)
    per_minute = await services.accounts.requests_per_minute(identity.user_id)
    await _limit(request, services, "user", identity.user_id, per_minute)
    return identity


Caller = Annotated[Identity, Depends(_caller)]
"""The verified caller, within their limits."""

LimitedByAddress = Depends(_limit_address)
"""For routes that anyone may call."""
