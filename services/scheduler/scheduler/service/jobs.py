"""What callers ask for: look, resolve, models, workers; `submits` has how jobs come in.

The database decides; a queue that does not answer costs a job's position, never the call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from easel_kit.errors import Conflict, InvalidState, NotFound
from easel_kit.ids import BatchId, JobId, UserId, WorkerId
from scheduler.domain.job import Entitlements, Job, JobState, Resolution
from scheduler.domain.line import Live, seen
from scheduler.domain.policy import Share
from scheduler.domain.selection import Filter, Mark, mark
from scheduler.domain.worker import Model, WorkerStatus, merged_models
from scheduler.ports import JobStore, Line, Observer, Registry
from scheduler.service.briefly import briefly


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and where the next page begins (None: there is none)."""

    jobs: list[Job]
    before: Mark | None


class Jobs:
    """Callers' use cases."""

    def __init__(
        self,
        store: JobStore,
        line: Line,
        registry: Registry,
        observer: Observer,
    ) -> None:
        """The truth is in `store`, where jobs stand in `line`, who draws in `registry`."""
        self._store = store
        self._line = line
        self._registry = registry
        self._observer = observer
        self._models: tuple[str, list[Model]] | None = None

    async def repeated(
        self, user_id: UserId, repeats: Mapping[JobId, JobId]
    ) -> Mapping[JobId, Job]:
        """The jobs that new ones repeat (`repeats`: by the new id), for what they ask for.

        A new id that is known already stands for itself: its submit comes once more, and what it
        repeated may be gone.

        Raises:
            NotFound: unknown, out of sight, or someone else's.
            InvalidState: it waits or runs still.
            Conflict: the new id is known to repeat another job, or none.
        """
        if not repeats:
            return {}
        found = await self._store.find(user_id, {*repeats, *repeats.values()})
        return {new: _repeatable(new, old, found) for new, old in repeats.items()}

    async def _seen(self, jobs: list[Job]) -> list[Job]:
        waiting = [job.id for job in jobs if not job.state.ended]
        if waiting:
            async with briefly("look", self._observer):
                live = await self._line.live(waiting)
                return [seen(job, live.get(job.id)) for job in jobs]
        return jobs

    async def get(self, user_id: UserId, job_id: JobId, *, hidden: bool = False) -> Job:
        """One job of the user; with `hidden` also one out of sight.

        Raises:
            NotFound: unknown, or someone else's.
        """
        (job,) = await self._seen([await self._store.job(user_id, job_id, hidden=hidden)])
        return job

    async def page(
        self, user_id: UserId, wanted: Filter, *, before: Mark | None, size: int
    ) -> Page:
        """The user's jobs that the filter admits, newest first, from below `before`."""
        jobs = await self._store.page(user_id, wanted, before=before, limit=size + 1)
        more = len(jobs) > size
        shown = await self._seen(jobs[:size])
        return Page(shown, mark(shown[-1]) if more else None)

    async def foresee(self, user_id: UserId, plan: Entitlements, cost_ms: int) -> Live | None:
        """Where a job of the user would stand if it were submitted now; None: nobody can say."""
        share = Share(plan.version, plan.priority, plan.weight, plan.max_running)
        found: Live | None = None
        async with briefly("foresee", self._observer):
            found = await self._line.foresee(user_id, share, cost_ms)
        return found  # noqa: RET504 (`briefly` may have ended the block before)

    async def counts(self, user_id: UserId, batch_ids: Collection[BatchId]) -> dict[JobState, int]:
        """The user's jobs by state, or those of these batches; every state is there."""
        return await self._store.counts(user_id, batch_ids)

    async def resolve(self, job_id: JobId) -> Resolution:
        """The job's state, or a tombstone for an unknown id: it can never be submitted then."""
        return await self._store.resolve(job_id)

    async def models(self) -> list[Model]:
        """What connected workers can draw with, one row per key; cached until it changes."""
        version = await self._registry.catalogue_version()
        if self._models is None or self._models[0] != version:
            workers = [status.worker for status in await self._registry.workers()]
            self._models = (version, merged_models(workers))
        return self._models[1]

    async def workers(self) -> list[WorkerStatus]:
        """All connected workers."""
        return await self._registry.workers()

    async def drain(self, worker_id: WorkerId) -> None:
        """Asks a connected worker to take no new work, finish what it has and leave; idempotent.

        Raises:
            NotFound: no such worker is connected.
        """
        await self._registry.drain(worker_id)


def _repeatable(new: JobId, old: JobId, found: Mapping[JobId, Job]) -> Job:
    known, repeated = found.get(new), found.get(old)
    if known is not None:
        if known.retry_of != old:
            raise Conflict(f"job {new} was submitted with another request")
        return known
    if repeated is None or repeated.is_hidden:
        raise NotFound("job", old)
    if not repeated.state.ended:
        raise InvalidState(f"job {old} is still {repeated.state}: only an ended job is repeated")
    return repeated
