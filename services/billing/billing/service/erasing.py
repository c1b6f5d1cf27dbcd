"""Erasures as they go on by themselves: each step repeats safely, killed anywhere it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from billing.domain.audit import Actor
from billing.domain.privacy import Erasure, ErasureState
from billing.ports.privacy import CustomerRemoval, Erasures
from billing.service.follower import JobFollower
from easel_kit.clock import Clock
from easel_kit.erasure import Graveyard, Tombstone, exchange, pause_after


class Eraser:
    """Takes erasures from step to step."""

    def __init__(
        self,
        erasures: Erasures,
        graveyard: Graveyard,
        removal: CustomerRemoval,
        follower: JobFollower,
        clock: Clock,
    ) -> None:
        """`follower` asks about the jobs that are waited for."""
        self._erasures = erasures
        self._graveyard = graveyard
        self._removal = removal
        self._follower = follower
        self._clock = clock

    async def due(self, limit: int) -> Sequence[Erasure]:
        """Unfinished erasures that can be tried."""
        return await self._erasures.due(self._clock.now(), limit)

    async def advance(self, erasure: Erasure) -> ErasureState:
        """Takes an erasure as far as it goes now, and answers with its state.

        Raises:
            DependencyDown: the scheduler, Stripe, the store or the database is away; what was
                done stays done.
            DeadlineExceeded: as DependencyDown.
        """
        now = self._clock.now()
        current: Erasure | None = erasure
        while current is not None and current.state is not ErasureState.DONE:
            if not await self._step(current):
                await self._erasures.postpone(current, now + pause_after(0), failed=False)
                return current.state
            current = await self._erasures.find(erasure.user_hash)
        return ErasureState.DONE

    async def postpone(self, erasure: Erasure) -> None:
        """Lets an erasure rest whose step failed, longer each time."""
        until = self._clock.now() + pause_after(erasure.failures)
        await self._erasures.postpone(erasure, until, failed=True)

    async def reapply(self) -> int:
        """Erases again who came back with a restore from a backup; answers how many.

        Tombstones that the restored database lacks come from the object store, and those that the
        store lacks go there.

        Raises:
            DependencyDown: the store or the database is away.
        """
        known = await self._erasures.tombstones()
        await self._erasures.bury(await exchange(self._graveyard, known))
        returned = await self._erasures.returned()
        for user_id in returned:
            await self._erasures.request(user_id, Actor.BILLING, self._clock.now())
        return len(returned)

    async def _step(self, erasure: Erasure) -> bool:
        match erasure.state:
            case ErasureState.REQUESTED:
                return await self._settle(erasure)
            case ErasureState.SETTLED:
                return await self._cancel(erasure)
            case _:
                await self._erasures.finish(erasure, self._clock.now())
                return True

    async def _settle(self, erasure: Erasure) -> bool:
        # before anything is removed: from here on no restore brings the user back
        await self._graveyard.keep([Tombstone(erasure.user_hash, erasure.requested_at)])
        if erasure.account_id is not None:
            for hold in await self._erasures.open_holds(erasure.account_id):
                await self._follower.resolve(hold)
        return await self._erasures.settle(erasure, self._clock.now())

    async def _cancel(self, erasure: Erasure) -> bool:
        if erasure.account_id is None:
            return await self._erasures.cancel(erasure, (), self._clock.now())
        customers = await self._erasures.customers(erasure.account_id)
        for customer_id in customers:
            await self._removal.delete_customer(customer_id)
        return await self._erasures.cancel(erasure, customers, self._clock.now())
