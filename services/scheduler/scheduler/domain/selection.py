"""Which of a user's jobs are meant, and what was done to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from easel_kit.ids import BatchId, JobId, ModelKey, UserId
from scheduler.domain.job import Job, JobState
from scheduler.domain.policy import Share


@dataclass(frozen=True, slots=True)
class Filter:
    """Jobs that have all of this; what is empty or None asks for nothing."""

    states: frozenset[JobState] = frozenset()
    batch_ids: frozenset[BatchId] = frozenset()
    model_keys: frozenset[ModelKey] = frozenset()
    queued_from: datetime | None = None
    """Accepted then or later."""
    queued_before: datetime | None = None

    def admits(self, job: Job) -> bool:
        """The job is meant."""
        return (
            (not self.states or job.state in self.states)
            and (not self.batch_ids or job.batch_id in self.batch_ids)
            and (not self.model_keys or job.generation.model_key in self.model_keys)
            and (self.queued_from is None or job.queued_at >= self.queued_from)
            and (self.queued_before is None or job.queued_at < self.queued_before)
        )


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Where a job stands in a list by age. What is accepted later comes after it."""

    queued_at: datetime
    place: int


def mark(job: Job) -> Mark:
    """The job's own."""
    return Mark(job.queued_at, job.place)


@dataclass(frozen=True, slots=True)
class Selection:
    """Jobs by id and by batch together; with neither, all open jobs of the user."""

    job_ids: frozenset[JobId] = frozenset()
    batch_ids: frozenset[BatchId] = frozenset()

    @property
    def is_all(self) -> bool:
        """Nothing was named."""
        return not self.job_ids and not self.batch_ids

    def names(self, job: Job) -> bool:
        """The job is meant."""
        return self.is_all or job.id in self.job_ids or job.batch_id in self.batch_ids


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What a cancel came to, job by job."""

    ended: tuple[Job, ...] = ()
    """Waited until this call."""
    stopping: tuple[Job, ...] = ()
    """Run; their workers are to stop."""
    running: tuple[JobId, ...] = ()
    """Run and were left alone."""
    over: tuple[JobId, ...] = ()
    """Named, and had ended before."""
    unknown: tuple[JobId, ...] = ()
    """Named, and not there for this user."""


@dataclass(frozen=True, slots=True)
class PlanChange:
    """What changed for a user with open jobs outside a submit: the plan, or orders in line."""

    user_id: UserId
    share: Share
    orders: Mapping[JobId, int]
    """Of those waiting jobs that were moved."""
