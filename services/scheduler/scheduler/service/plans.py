"""Users' plans as billing changes them, and what the queue did not hear of them."""

from __future__ import annotations

from easel_kit.clock import Clock
from easel_kit.ids import UserId
from scheduler.domain.job import Entitlements
from scheduler.domain.policy import Share
from scheduler.ports import Line, Observer, PlanStore
from scheduler.service.briefly import briefly

# A change is told again for this long after a pass that told it: clocks differ, commits take time.
_OVERLAP_S = 60.0


class Plans:
    """Use cases of one lane; all of them may be repeated."""

    def __init__(
        self, store: PlanStore, line: Line, observer: Observer, clock: Clock, *, lane: str
    ) -> None:
        """`lane` is that of `line`."""
        self._store = store
        self._line = line
        self._observer = observer
        self._clock = clock
        self._lane = lane
        self._caught_up: float | None = None

    async def entitle(self, user_id: UserId, plan: Entitlements) -> Entitlements:
        """The user's plan from now on, unless a newer one is known; answers what holds.

        Waiting jobs move to its tier; the queue time that a job was accepted with stays. A user who
        is not known yet is remembered, so that no older plan comes in with the first submit.
        """
        holds, home_lane = await self._store.entitle(user_id, plan)
        if home_lane == self._lane:
            share = Share(holds.version, holds.priority, holds.weight, holds.max_running)
            async with briefly("entitle", self._observer):
                await self._line.entitle(user_id, share)
        return holds

    async def catch_up(self) -> None:
        """Tells the queue of plans and orders in line that changed without it.

        They changed in a replica of another lane, or while the queue was away. The first pass tells
        all that ever changed so, of users with open jobs.

        Raises:
            DependencyDown: a store does not answer; the next pass does this one's work too.
        """
        began = self._clock.monotonic()
        within_s = None if self._caught_up is None else began - self._caught_up + _OVERLAP_S
        for change in await self._store.changes(within_s=within_s):
            await self._line.entitle(change.user_id, change.share)
            if change.orders:
                await self._line.prepend(change.orders)
        self._caught_up = began
