"""What the gateway needs at its door: who asks, and how often they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.domain.identity import Identity


class TokenVerifier(Protocol):
    """Who a bearer token speaks for."""

    @property
    def ready(self) -> bool:
        """True once keys to verify with are at hand."""
        ...

    async def verify(self, token: str) -> Identity:
        """The caller.

        Raises:
            Unauthenticated: the token proves nothing.
            DependencyDown: no keys could be had yet.
        """
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a rate limit leaves: of `limit` a minute, `remaining`; more after `reset_s` seconds."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: float


class RateLimiter(Protocol):
    """Counts requests of a minute."""

    async def hit(self, kind: str, key: str, per_minute: int) -> Allowance | None:
        """Counts one request of `key`; None when the count cannot be kept, so nothing is refused.

        Args:
            kind: a closed set: what is counted, e.g. "user".
            key: whose requests.
            per_minute: how many are allowed.
        """
        ...
