"""What a person may ask of billing by law: a copy of what it holds on them, and its erasure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from billing.domain.audit import Actor
from billing.domain.privacy import Erasure
from billing.ports.privacy import Erasures, Exports
from easel_kit.clock import Clock
from easel_kit.erasure import hash_of
from easel_kit.errors import NotFound
from easel_kit.ids import UserId


class Privacy:
    """Export and erasure."""

    def __init__(self, erasures: Erasures, exports: Exports, clock: Clock) -> None:
        """Over the ports."""
        self._erasures = erasures
        self._exports = exports
        self._clock = clock

    async def export(
        self, user_id: UserId, actor: Actor = Actor.USER
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Everything that is kept of the user, as one JSON document in parts.

        Raises:
            NotFound: nothing is kept of the user.
            Overloaded: too many are being written already; raised on entering.
        """
        now = self._clock.now()
        await self._exports.note(user_id, actor, now)
        return self._exports.open(user_id, now)

    async def erase(self, user_id: UserId, actor: Actor = Actor.USER) -> Erasure:
        """Bars the user and begins the erasure, which goes on by itself. Idempotent."""
        return await self._erasures.request(user_id, actor, self._clock.now())

    async def erasure(self, user_id: UserId) -> Erasure:
        """How far the erasure is.

        Raises:
            NotFound: none was asked for.
        """
        erasure = await self._erasures.find(hash_of(user_id))
        if erasure is None:
            raise NotFound("erasure", "of this user")
        return erasure
