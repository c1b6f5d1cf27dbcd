"""The model catalogue: the scheduler's list, remembered for a moment and over its outages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from easel_kit.clock import Clock
from easel_kit.errors import DeadlineExceeded, DependencyDown, InvalidInput, Overloaded
from easel_kit.ids import ImageId
from gateway.domain.catalogue import Model
from gateway.domain.generation import Generation
from gateway.domain.wish import Wish, settle
from gateway.ports import Models

# A model that came or went is seen this many seconds later at most; a wish that does not fit the
# remembered list asks again after the shorter time, so that a new model works at once.
_FRESH_S = 5.0
_RETRY_S = 0.5


class Catalogue:
    """Which models there are, and how wishes become orders."""

    def __init__(self, models: Models, clock: Clock) -> None:
        """Asks `models` at first use."""
        self._models = models
        self._clock = clock
        self._known: tuple[Model, ...] = ()
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()

    async def all(self) -> tuple[Model, ...]:
        """Every model; the last list known where the scheduler has none or does not answer.

        Raises:
            DependencyDown: no list was ever had.
        """
        return await self._list(max_age_s=_FRESH_S)

    async def settle(
        self, wish: Wish, *, fresh_seed: int, object_keys: Mapping[ImageId, str]
    ) -> Generation:
        """The complete order for a wish; `object_keys` of the pictures that are the caller's.

        Raises:
            InvalidInput: names the field and what is allowed.
            Overloaded: no model can be used at this moment.
            DependencyDown: no list was ever had.
        """
        try:
            models = await self.all()
            return settle(wish, models, fresh_seed=fresh_seed, object_keys=object_keys)
        except (InvalidInput, Overloaded):
            models = await self._list(max_age_s=_RETRY_S)
            return settle(wish, models, fresh_seed=fresh_seed, object_keys=object_keys)

    async def _list(self, *, max_age_s: float) -> tuple[Model, ...]:
        async with self._asking:
            now = self._clock.monotonic()
            if self._asked_at is not None and now - self._asked_at <= max_age_s:
                return self._known
            try:
                # no worker connected: what they last reported is still what they will draw
                self._known = await self._models.list_models() or self._known
            except (DependencyDown, DeadlineExceeded):
                if not self._known:
                    raise
            self._asked_at = self._clock.monotonic()
            return self._known
