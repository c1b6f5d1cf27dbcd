"""What keeps the queue going by itself: leases that ran out and waits that took too long."""

from __future__ import annotations

from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown
from scheduler.domain.lease import Claim, Outcome, Report
from scheduler.ports import AttemptStore, Line, Observer, Upkeep
from scheduler.service.settle import Settler

_BATCH = 200
_HEARTBEATS_PER_LEASE = 3


class Caretaker:
    """One pass of each; the loops call them again and again."""

    def __init__(
        self,
        *,
        attempts: AttemptStore,
        line: Line,
        upkeep: Upkeep,
        settler: Settler,
        observer: Observer,
        clock: Clock,
        lease_ttl_s: float,
    ) -> None:
        """For one lease after this moment, and after each outage of a store, nothing expires."""
        self._attempts = attempts
        self._line = line
        self._upkeep = upkeep
        self._settler = settler
        self._observer = observer
        self._clock = clock
        self._lease_ttl_s = lease_ttl_s
        self._calm_until = clock.monotonic() + lease_ttl_s

    async def expire(self) -> None:
        """Ends attempts whose lease ran out: their jobs wait again, or fail after their last try.

        Raises:
            DependencyDown: the queue or the database is away; leases then hold one more full time.
        """
        try:
            if self._clock.monotonic() < self._calm_until:
                # notices an outage while calm: without both stores no worker is welcomed
                await self._upkeep.depth()
                await self._attempts.claims([])
                return
            while True:
                found = await self._expired()
                if found:
                    live = await self._line.live({claim.job_id for claim, _ in found})
                    reports = [
                        Report(
                            claim,
                            Outcome.FORGOTTEN if restored else Outcome.LOST,
                            steps_done=live[claim.job_id].step if claim.job_id in live else 0,
                        )
                        for claim, restored in found
                    ]
                    settled = await self._settler.decide(reports)
                    await self._settler.follow(settled, by_worker=False)
                if len(found) < _BATCH:
                    return
        except DependencyDown:
            self._calm_until = self._clock.monotonic() + self._lease_ttl_s
            raise

    async def _expired(self) -> list[tuple[Claim, bool]]:
        asked_at = self._clock.monotonic()
        found = await self._upkeep.expired(limit=_BATCH)
        if self._clock.monotonic() - asked_at > self._lease_ttl_s / _HEARTBEATS_PER_LEASE:
            # the store hung, and heartbeats with it
            raise DependencyDown("the queue's store answered too late")
        return found

    async def release(self) -> None:
        """Lets jobs be claimed whose pause before the next try is over."""
        while await self._upkeep.release(limit=_BATCH) == _BATCH:
            pass

    async def park(self) -> None:
        """Has workers go on with what was parked for long enough; names what was missed."""
        await self._upkeep.park()

    async def remind(self) -> None:
        """Says again to workers what they have not answered."""
        await self._upkeep.remind()

    async def fail_overdue(self) -> None:
        """Ends jobs that no worker started within their queue time."""
        overdue = await self._upkeep.overdue(limit=_BATCH)
        if not overdue:
            return
        settled = await self._attempts.expire_waiting(overdue)
        for one in settled:
            self._observer.settled(one)
        await self._settler.follow(settled, by_worker=False)
