"""What the gateway needs of the scheduler."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from easel_kit.ids import JobId, UserId
from gateway.domain.account import Entitlements
from gateway.domain.catalogue import Model
from gateway.domain.generation import Generation
from gateway.domain.job import (
    Batch,
    Job,
    JobFilter,
    JobPage,
    JobState,
    JobUpdate,
    Outlook,
    Stopped,
)
from gateway.domain.library import Cursor, JobEvent


class Jobs(Protocol):
    """The scheduler, for a user's jobs; someone else's job is `NotFound`."""

    async def submit(
        self, user_id: UserId, batch: Batch, entitlements: Entitlements
    ) -> tuple[Job, ...]:
        """Queues all jobs or none, and answers them in order. Idempotent by job id.

        Raises:
            RateLimited: too many of the user's jobs run and wait.
            InvalidState: an id can no longer be submitted, or a job to repeat has not ended.
        """
        ...

    async def get(self, user_id: UserId, job_id: JobId) -> Job:
        """One job."""
        ...

    async def list(
        self, user_id: UserId, wanted: JobFilter, *, page_size: int, page_token: str
    ) -> JobPage:
        """The user's jobs that are wanted, newest first."""
        ...

    async def cancel(self, user_id: UserId, job_id: JobId) -> Job:
        """Asks a job to stop; one that has ended is answered as it is."""
        ...

    def watch(self, user_id: UserId, job_id: JobId) -> AsyncGenerator[JobUpdate, None]:
        """The job now, then each change; ends after the job's end."""
        ...


class Line(Protocol):
    """The scheduler, for all of a user's jobs together."""

    async def count(self, user_id: UserId, batch_ids: Sequence[str]) -> dict[JobState, int]:
        """How many jobs are in each state, of these batches or (none named) of all."""
        ...

    async def cancel_many(
        self,
        user_id: UserId,
        *,
        job_ids: Sequence[JobId],
        batch_ids: Sequence[str],
        waiting_only: bool,
    ) -> Stopped:
        """Cancels these jobs and those of these batches; none named: all that are open."""
        ...

    async def prepend(self, user_id: UserId, job_ids: Sequence[JobId]) -> tuple[JobId, ...]:
        """Moves waiting jobs before all others of the user; answers which it moved."""
        ...

    async def prune(
        self, user_id: UserId, *, states: Sequence[JobState], batch_ids: Sequence[str]
    ) -> int:
        """Takes ended jobs out of sight; answers how many."""
        ...

    async def clear(self, user_id: UserId) -> tuple[int, int]:
        """Cancels all open jobs and takes every job out of sight; answers how many of each."""
        ...


class Forecast(Protocol):
    """The scheduler, for jobs that are not submitted yet."""

    async def foresee(
        self, user_id: UserId, entitlements: Entitlements, generation: Generation
    ) -> Outlook:
        """Where such a job of the user would stand now."""
        ...


class Models(Protocol):
    """The scheduler, for what workers can draw."""

    async def list_models(self) -> tuple[Model, ...]:
        """One entry per model."""
        ...


class JobFeed(Protocol):
    """The scheduler's event feed."""

    def subscribe(self, after: Cursor) -> AsyncGenerator[tuple[JobEvent, ...], None]:
        """All events after the cursor, then each new one as it commits; never ends by itself.

        Raises:
            OutOfRange: the events after the cursor are kept no longer.
        """
        ...
