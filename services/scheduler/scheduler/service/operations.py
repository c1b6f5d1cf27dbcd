"""What users do to their own line: cancel, move to the front, take out of sight.

As everywhere the database decides. What the queue does not hear of now it hears later: of jobs
that have ended or are to stop from the reconciler, of orders in line from `service.plans`.
"""

from __future__ import annotations

from collections.abc import Sequence

from easel_kit.errors import NotFound
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import Job
from scheduler.domain.lease import Settled
from scheduler.domain.selection import Cancellation, Filter, Selection
from scheduler.ports import Line, Observer, OwnLineStore
from scheduler.service.briefly import briefly
from scheduler.service.fresh import Fresh
from scheduler.service.jobs import Jobs


class Operations:
    """Use cases; all of them may be repeated."""

    def __init__(
        self, store: OwnLineStore, jobs: Jobs, line: Line, fresh: Fresh, observer: Observer
    ) -> None:
        """`jobs` shows what came of it; what has ended is not sent from `fresh` any more."""
        self._store = store
        self._jobs = jobs
        self._line = line
        self._fresh = fresh
        self._observer = observer

    async def cancel(self, user_id: UserId, job_id: JobId) -> Job:
        """Ends a waiting job, asks the worker of a running one to stop.

        Raises:
            NotFound: unknown, or someone else's.
        """
        if (await self.cancel_many(user_id, Selection(frozenset([job_id])))).unknown:
            raise NotFound("job", job_id)
        return await self._jobs.get(user_id, job_id)

    async def cancel_many(
        self, user_id: UserId, selection: Selection, *, waiting_only: bool = False
    ) -> Cancellation:
        """As `cancel`, for many in one transaction; with `waiting_only` running ones go on."""
        found = await self._store.cancel(user_id, selection, waiting_only=waiting_only)
        await self._follow(found)
        return found

    async def clear(self, user_id: UserId) -> tuple[int, int]:
        """Cancels all open jobs of the user and takes everything out of sight; answers how many.

        What was cut short goes on when it is asked for again.
        """
        found = await self._store.cancel(user_id, Selection(), hide=True)
        await self._follow(found)
        cancelled = len(found.ended) + len(found.stopping)
        return cancelled, cancelled + await self._store.hide(user_id, Filter())

    async def _follow(self, found: Cancellation) -> None:
        for job in found.ended:
            self._observer.settled(
                Settled(job.id, None, job.state, changed=True, traceparent=job.traceparent)
            )
        for job in found.stopping:
            self._observer.cancel_requested(job)
        self._fresh.take(job.id for job in found.ended)
        async with briefly("cancel", self._observer):
            # also what had ended before: an earlier call may not have come so far
            if gone := [*(job.id for job in found.ended), *found.over]:
                await self._line.remove(gone)
            for job in found.stopping:
                await self._line.stop(job.id)

    async def prepend(self, user_id: UserId, job_ids: Sequence[JobId]) -> list[JobId]:
        """Moves waiting jobs before all others of the user, in the order named; answers which."""
        orders = await self._store.prepend(user_id, job_ids)
        if orders:
            async with briefly("prepend", self._observer):
                await self._line.prepend(orders)
        return list(orders)

    async def prune(self, user_id: UserId, wanted: Filter) -> int:
        """Takes ended jobs of these states and batches out of the user's sight; answers how many.

        What was cut short goes on when it is asked for again.
        """
        return await self._store.hide(user_id, wanted)
