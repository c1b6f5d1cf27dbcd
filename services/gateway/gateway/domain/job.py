"""Jobs as the gateway shows them: what was asked for, how far it is, what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from easel_kit.ids import ImageId, JobId, UserId
from gateway.domain.generation import Generation


class JobState(StrEnum):
    """Where a job stands; the last three are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """True for the states that nothing follows."""
        return self not in {JobState.QUEUED, JobState.RUNNING}


@dataclass(frozen=True, slots=True)
class Progress:
    """Denoising steps done and to do, over all pictures of a job."""

    step: int
    steps: int

    @property
    def percent(self) -> int:
        """0 to 100, rounded down."""
        return min(100, self.step * 100 // self.steps) if self.steps > 0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When a job reached each point; None where it has not."""

    queued_at: datetime | None = None
    claimed_at: datetime | None = None
    first_step_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One finished picture in the object store."""

    id: ImageId
    object_key: str
    width_px: int
    height_px: int
    media_type: str
    size_bytes: int
    sha256: str
    seed: int | None
    """None for a picture that was not drawn here."""
    thumbnail_object_key: str = ""
    """Of a small copy; empty for none."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job failed: a stable code and a sentence for the user."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the scheduler tells it."""

    id: JobId
    user_id: UserId
    state: JobState
    generation: Generation
    position: int = 0
    eta_seconds: float | None = None
    progress: Progress = Progress(0, 0)
    timeline: Timeline = Timeline()
    images: tuple[Image, ...] = ()
    error: JobFailure | None = None
    attempts: int = 0
    cancel_requested: bool = False
    warnings: tuple[str, ...] = ()
    batch_id: str = ""
    retry_of: JobId | None = None
    """The job that this one repeats."""


@dataclass(frozen=True, slots=True)
class Order:
    """A job to be queued."""

    job_id: JobId
    generation: Generation
    retry_of: JobId | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that are accepted together or not at all."""

    orders: tuple[Order, ...]
    id: str = ""
    """Names them as belonging together; empty for a job by itself."""
    prepend: bool = False
    """Before all other waiting jobs of the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which of a user's jobs; what is empty or None excludes none."""

    states: tuple[JobState, ...] = ()
    batch_ids: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    queued_from: datetime | None = None
    queued_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a cancel of many did: waiting jobs that it ended, running ones that will stop."""

    cancelled: tuple[JobId, ...]
    stopping: tuple[JobId, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where a job would stand if it were submitted now: as `Job` says it of one that waits."""

    position: int
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """A job at one moment of being watched, with a small preview where there is one."""

    job: Job
    preview: bytes = field(default=b"", repr=False)
    preview_media_type: str = ""


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs, newest first; an empty token says that this is the last page."""

    jobs: tuple[Job, ...]
    next_page_token: str
