"""Compares the queue with the database, in both directions, and puts right what differs.

Each pass compares all running jobs, the waiting ones accepted since about two minutes before the
last pass that succeeded, and one slice of the others. So an accepted job that the queue does not
know is in line within an interval and a pass, also after an outage, and everything is compared
every (open jobs / slice) passes. Ids and places are read alone; what seems to differ may merely
have moved between the two reads, so it is read once more, in full, before anything is changed.
Passes may overlap and be cut short: all they do may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection

from easel_kit.ids import JobId
from scheduler.domain.job import JobState
from scheduler.domain.survey import Survey
from scheduler.ports import AttemptStore, Line, Locks, Observer, Upkeep

_LOCK = "reconcile"
_PAGE = 1_000
_SLICE = 20_000
_STOPS = 1_000
# More than a lane has slots.
_MAX_LEASED = 10_000


class Reconciler:
    """One pass; the loops call it again and again."""

    def __init__(
        self,
        *,
        attempts: AttemptStore,
        line: Line,
        upkeep: Upkeep,
        locks: Locks,
        observer: Observer,
    ) -> None:
        """One replica at a time compares, under a lock."""
        self._attempts = attempts
        self._line = line
        self._upkeep = upkeep
        self._locks = locks
        self._observer = observer

    async def reconcile(self) -> None:
        """A pass, unless another replica is at it.

        Raises:
            DependencyDown: a store does not answer, or the queue is being rebuilt.
        """
        async with self._locks.hold(_LOCK) as ours:
            await self._compare(ours=ours)
        self._observer.depth(await self._upkeep.depth())

    async def _compare(self, *, ours: bool) -> None:
        if not ours:
            return
        survey = await self._upkeep.survey()
        last_place, now = await self._attempts.last_place()
        running = await self._compare_running()
        after: int | None = survey.floor
        while after is not None:
            after = await self._compare_page(after, None, running)
        cursor = await self._compare_slice(survey, running)
        await self._upkeep.surveyed(survey.advanced(last_place=last_place, now=now, cursor=cursor))
        for job_id in await self._attempts.stop_requests(limit=_STOPS):
            await self._line.stop(job_id)

    async def _compare_running(self) -> set[JobId]:
        """Answers all jobs that run according to either side."""
        running, after = set[JobId](), 0
        while page := await self._attempts.open_ids(JobState.RUNNING, after=after, limit=_PAGE):
            after = page[-1][0]
            running.update(job_id for _, job_id in page)
        leased = set(await self._upkeep.leased(limit=_MAX_LEASED))
        await self._settle(running ^ leased)
        return running | leased

    async def _compare_slice(self, survey: Survey, running: Collection[JobId]) -> int:
        after = survey.cursor
        for _ in range(_SLICE // _PAGE):
            if after >= survey.floor:
                return 0
            after = await self._compare_page(after, survey.floor, running) or survey.floor
        return after

    async def _compare_page(
        self, after: int, upto: int | None, running: Collection[JobId]
    ) -> int | None:
        """Compares who waits, up to the place that it answers; None when it came to `upto`."""
        page = await self._attempts.open_ids(JobState.QUEUED, after=after, upto=upto, limit=_PAGE)
        end = page[-1][0] if len(page) == _PAGE else None
        known = await self._known(after, upto if end is None else end)
        known.difference_update(running)
        await self._settle(known.symmetric_difference(job_id for _, job_id in page))
        return end

    async def _known(self, after: int, upto: int | None) -> set[JobId]:
        known = set[JobId]()
        while page := await self._upkeep.known(after=after, upto=upto, limit=_PAGE):
            known.update(job_id for _, job_id in page)
            if len(page) < _PAGE:
                break
            after = page[-1][0]
        return known

    async def _settle(self, doubtful: Collection[JobId]) -> None:
        """Makes the queue know those of the jobs that are open, and forget the others."""
        if not doubtful:
            return
        jobs = await self._attempts.admissions(doubtful)
        if added := await self._line.admit(jobs):
            self._observer.repaired("admitted", added)
        # jobs that came or went between the two reads are in order by now: see what is left
        if ended := await self._line.live(set(doubtful) - {one.job_id for one in jobs}):
            await self._line.remove(ended)
            self._observer.repaired("removed", len(ended))
