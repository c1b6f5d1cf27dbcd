"""The user's library, and the events of the scheduler that fill it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from easel_kit.ids import JobId, UserId
from gateway.domain.job import Image, Job, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture in a user's library."""

    image: Image
    user_id: UserId
    job_id: JobId
    created_at: datetime


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the scheduler's event feed; places compare in the order of the feed."""

    generation: int = 0
    transaction_id: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """A change of a job's state; `images` only where it succeeded."""

    cursor: Cursor
    state: JobState
    job_id: JobId
    user_id: UserId
    occurred_at: datetime
    images: tuple[Image, ...] = ()
    traceparent: str = ""


def pictures_of_event(event: JobEvent) -> tuple[Picture, ...]:
    """What an event adds to the library."""
    return tuple(
        Picture(
            image=image, user_id=event.user_id, job_id=event.job_id, created_at=event.occurred_at
        )
        for image in event.images
    )


def pictures_of_job(job: Job) -> tuple[Picture, ...]:
    """The same pictures, read off a finished job."""
    finished_at = job.timeline.finished_at
    if finished_at is None:
        return ()
    return tuple(
        Picture(image=image, user_id=job.user_id, job_id=job.id, created_at=finished_at)
        for image in job.images
    )
