"""The user's library, and the events of the scheduler that fill it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from easel_kit.ids import ImageId, JobId, UserId
from gateway.domain.job import Image, Job, JobState


class PictureKind(StrEnum):
    """Where a picture comes from."""

    GENERATED = "generated"
    UPLOADED = "uploaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture in a user's library."""

    image: Image
    user_id: UserId
    job_id: JobId | None
    """None where its owner has uploaded it."""
    created_at: datetime

    @property
    def kind(self) -> PictureKind:
        """Where it comes from."""
        return PictureKind.UPLOADED if self.job_id is None else PictureKind.GENERATED


@dataclass(frozen=True, slots=True)
class PicturePage:
    """Pictures, newest first; None says that this is the last page."""

    pictures: tuple[Picture, ...]
    next_before: ImageId | None


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
