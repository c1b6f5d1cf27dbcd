"""Erasures as they go on by themselves: each step repeats safely, killed anywhere it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from easel_kit.clock import Clock
from easel_kit.erasure import Graveyard, Tombstone, exchange, pause_after
from easel_kit.ids import UserId
from gateway.domain.privacy import Erasure, ErasureState, folder_of
from gateway.ports import AccountPrivacy, Erasures, JobPrivacy, Line, UserObjects

# What the scheduler takes at once.
_HASHES = 1000


class Eraser:
    """Takes erasures from step to step."""

    def __init__(
        self,
        *,
        erasures: Erasures,
        graveyard: Graveyard,
        account: AccountPrivacy,
        jobs: JobPrivacy,
        line: Line,
        objects: UserObjects,
        clock: Clock,
        upload_deadline_s: float,
    ) -> None:
        """`upload_deadline_s`: no picture reaches the store later than so after its job's end."""
        self._erasures = erasures
        self._graveyard = graveyard
        self._account = account
        self._jobs = jobs
        self._line = line
        self._objects = objects
        self._clock = clock
        self._upload_deadline = timedelta(seconds=upload_deadline_s)

    async def due(self, limit: int) -> Sequence[Erasure]:
        """Unfinished erasures that can be tried."""
        return await self._erasures.due(self._clock.now(), limit)

    async def advance(self, erasure: Erasure) -> ErasureState:
        """Takes an erasure as far as it goes now, and answers with its state.

        Raises:
            DependencyDown: another service, the store or the database is away; what was done
                stays done.
            DeadlineExceeded: as DependencyDown.
        """
        user_id = erasure.user_id
        if user_id is None:
            return ErasureState.DONE
        if erasure.state is ErasureState.REQUESTED and await self._has_stopped(erasure, user_id):
            erasure = await self._erasures.stop(erasure, self._clock.now())
        if erasure.state is ErasureState.STOPPED and await self._is_swept(erasure, user_id):
            await self._erasures.finish(erasure, self._clock.now())
            return ErasureState.DONE
        await self._erasures.postpone(erasure, self._next_try(erasure), failed=False)
        return erasure.state

    async def postpone(self, erasure: Erasure) -> None:
        """Lets an erasure rest whose step failed, longer each time."""
        until = self._clock.now() + pause_after(erasure.failures)
        await self._erasures.postpone(erasure, until, failed=True)

    async def reapply(self) -> int:
        """Erases again who came back with a restore from a backup; answers how many.

        Tombstones that the restored database lacks come from the object store, and those that the
        store lacks go there. The scheduler removes whom a backup of its own has brought back.

        Raises:
            DependencyDown: the scheduler, the store or the database is away.
            DeadlineExceeded: as DependencyDown.
        """
        known = await self._erasures.tombstones()
        await self._erasures.bury(await exchange(self._graveyard, known))
        returned = await self._erasures.reopen(self._clock.now())
        hashes = [one.user_hash for one in await self._erasures.tombstones()]
        for begin in range(0, len(hashes), _HASHES):
            await self._jobs.erase_users(hashes[begin : begin + _HASHES])
        return returned

    async def _has_stopped(self, erasure: Erasure, user_id: UserId) -> bool:
        # before anything is removed: from here on no restore brings the user back
        await self._graveyard.keep([Tombstone(erasure.user_hash, erasure.requested_at)])
        # billing first: what is submitted after it is not paid for, what was before it is cancelled
        is_settled = await self._account.erase_account(user_id)
        await self._line.cancel_many(user_id, job_ids=(), batch_ids=(), waiting_only=False)
        counts = await self._line.count(user_id, ())
        return is_settled and all(state.has_ended for state, count in counts.items() if count)

    async def _is_swept(self, erasure: Erasure, user_id: UserId) -> bool:
        if self._clock.now() < self._quiet_at(erasure):
            return False
        if await self._jobs.erase_users([erasure.user_hash]):
            return False  # one that was out of sight still runs
        await self._objects.delete_all(folder_of(user_id))
        return True

    def _next_try(self, erasure: Erasure) -> datetime:
        now, quiet_at = self._clock.now(), self._quiet_at(erasure)
        waits = erasure.state is ErasureState.STOPPED and quiet_at > now
        return quiet_at if waits else now + pause_after(0)

    def _quiet_at(self, erasure: Erasure) -> datetime:
        return (erasure.stopped_at or erasure.requested_at) + self._upload_deadline
