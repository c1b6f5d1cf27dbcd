"""What callers ask for: look, cancel, resolve, models, workers; `submits` has how jobs come in.

The database decides; a queue that does not answer costs a job's position, never the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from easel_kit.errors import DependencyDown
from easel_kit.ids import JobId, UserId, WorkerId
from scheduler.domain.job import Job, JobState, Resolution
from scheduler.domain.lease import Settled
from scheduler.domain.line import seen
from scheduler.domain.worker import Model, WorkerStatus, merged_models
from scheduler.ports import JobStore, Line, Observer, Registry

# Of a caller's deadline of some seconds, what the queue may take.
_QUEUE_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and where the next page begins (None: there is none)."""

    jobs: list[Job]
    before: int | None


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

    async def _seen(self, jobs: list[Job]) -> list[Job]:
        waiting = [job.id for job in jobs if not job.state.ended]
        if not waiting:
            return jobs
        try:
            async with asyncio.timeout(_QUEUE_WAIT_S):
                live = await self._line.live(waiting)
        except (DependencyDown, TimeoutError) as error:
            self._observer.trouble("look", error)
            return jobs
        return [seen(job, live.get(job.id)) for job in jobs]

    async def get(self, user_id: UserId, job_id: JobId) -> Job:
        """One job of the user.

        Raises:
            NotFound: unknown, or someone else's.
        """
        (job,) = await self._seen([await self._store.job(user_id, job_id)])
        return job

    async def page(
        self, user_id: UserId, states: Collection[JobState], *, before: int | None, size: int
    ) -> Page:
        """The user's jobs with a place below `before`, newest first."""
        jobs = await self._store.jobs(user_id, states, before=before, limit=size + 1)
        more = len(jobs) > size
        shown = await self._seen(jobs[:size])
        return Page(shown, shown[-1].place if more else None)

    async def cancel(self, user_id: UserId, job_id: JobId) -> Job:
        """Ends a waiting job, asks the worker of a running one to stop; idempotent.

        Raises:
            NotFound: unknown, or someone else's.
        """
        job, ended = await self._store.cancel(user_id, job_id)
        if ended:
            self._observer.settled(
                Settled(job.id, None, job.state, changed=True, traceparent=job.traceparent)
            )
        elif not job.state.ended:
            self._observer.cancel_requested(job)
        try:
            async with asyncio.timeout(_QUEUE_WAIT_S):
                if job.state.ended:
                    await self._line.remove([job_id])
                else:
                    await self._line.stop(job_id)
        except (DependencyDown, TimeoutError) as error:  # the reconciler does it
            self._observer.trouble("cancel", error)
        (job,) = await self._seen([job])
        return job

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
