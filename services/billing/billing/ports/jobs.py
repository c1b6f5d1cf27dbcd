"""What the scheduler tells of jobs, and how far it is applied here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from billing.domain.feed import Applied, Cursor, Finding, JobEvent
from billing.domain.holds import JobReport
from easel_kit.ids import JobId


class Feed(Protocol):
    """How far the scheduler's feed is applied."""

    async def cursor(self) -> Cursor:
        """The last event applied."""
        ...

    async def apply(self, event: JobEvent, now: datetime, extend_until: datetime) -> Applied:
        """The event's effect and the cursor, in one transaction; nothing for a repeated event."""
        ...

    async def restart(self, finding: Finding, now: datetime) -> None:
        """Keeps a finding, once per kind and reference, and puts the cursor before everything."""
        ...


class EventFeed(Protocol):
    """The scheduler's event feed."""

    def subscribe(self, after: Cursor) -> AsyncIterator[Sequence[JobEvent]]:
        """Events after the cursor in order, then new ones as they come.

        Raises:
            OutOfRange: events after the cursor have been pruned.
            DependencyDown: the scheduler is away.
        """
        ...


class JobResolver(Protocol):
    """The scheduler's word on a job."""

    async def resolve(self, job_id: JobId) -> JobReport:
        """The job's status; UNKNOWN makes the scheduler refuse the job from then on.

        Raises:
            DependencyDown: the scheduler is away.
            DeadlineExceeded: it did not answer in time.
        """
        ...
