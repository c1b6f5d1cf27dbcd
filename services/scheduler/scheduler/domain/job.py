"""What a job is: the request, its states, and which changes of state there may be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from easel_kit.ids import AttemptId, BatchId, ImageId, JobId, UserId
from scheduler.domain.generation import Generation


class JobState(StrEnum):
    """Where a job is in its life; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True for a final state."""
        return self not in OPEN_STATES


OPEN_STATES = frozenset({JobState.QUEUED, JobState.RUNNING})
ENDED_STATES = frozenset(JobState) - OPEN_STATES


@dataclass(frozen=True, slots=True)
class Image:
    """One finished picture in the object store."""

    id: ImageId
    object_key: str
    width_px: int
    height_px: int
    media_type: str
    size_bytes: int
    sha256: str
    seed: int
    thumbnail_object_key: str = ""
    """Of a small copy; empty for none."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job or an attempt failed: a stable code and a sentence for the user."""

    code: str
    message: str


WORKER_LOST = JobError("worker_lost", "the worker that drew it was lost")
QUEUE_TIME_EXCEEDED = JobError(
    "queue_time_exceeded", "no worker was free within the time that the plan allows"
)


@dataclass(frozen=True, slots=True)
class Entitlements:
    """The numbers of a user's plan that the queue obeys; a greater version replaces a lesser."""

    version: int
    priority: int
    weight: int
    max_running: int
    max_waiting: int
    queue_time_s: int

    @property
    def max_open(self) -> int:
        """Jobs of the user that may wait or run together."""
        return self.max_running + self.max_waiting


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as its caller submits it; `cost_ms` is estimated work in reference GPU-milliseconds."""

    id: JobId
    generation: Generation
    cost_ms: int
    retry_of: JobId | None = None
    """An ended job of the user that this one repeats."""


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs of one user that are accepted together or not at all."""

    user_id: UserId
    entitlements: Entitlements
    jobs: tuple[NewJob, ...]
    traceparent: str = ""
    batch_id: BatchId | None = None
    prepend: bool = False
    """Before all other waiting jobs of the user."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands in the database, with its place in line where a queue was asked."""

    id: JobId
    user_id: UserId
    state: JobState
    generation: Generation
    cost_ms: int
    place: int
    """Grows with acceptance: the order of a user's jobs."""
    queued_at: datetime
    start_by: datetime
    """When the job fails unless a worker has started it."""
    claimed_at: datetime | None = None
    first_step_at: datetime | None = None
    finished_at: datetime | None = None
    steps_done: int = 0
    images: tuple[Image, ...] = ()
    error: JobError | None = None
    warnings: tuple[str, ...] = ()
    attempts: int = 0
    attempt_id: AttemptId | None = None
    cancel_requested: bool = False
    traceparent: str = ""
    batch_id: BatchId | None = None
    retry_of: JobId | None = None
    lane: str = ""
    """Whose workers may draw it."""
    front: int | None = None
    """Negative where its user has put it before the jobs that have none; the lowest is first."""
    is_hidden: bool = False
    """Its user has taken it out of sight."""
    position: int = 0
    eta_s: float | None = None
    parked: bool = False
    """It runs, but is set aside for a job of a higher priority."""

    @property
    def steps(self) -> int:
        """Denoising steps to do, over all pictures."""
        return self.generation.total_steps


class EventType(StrEnum):
    """Changes of state that the feed tells."""

    QUEUED = "queued"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the event feed; the zero cursor begins with the oldest event that is kept."""

    generation: int = 0
    transaction_id: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a job's state as the feed tells it."""

    cursor: Cursor
    type: EventType
    job_id: JobId
    user_id: UserId
    occurred_at: datetime
    steps_done: int
    steps: int
    images: tuple[Image, ...] = ()
    error: JobError | None = None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of a job id; `state` is None where it was unknown and has now been buried."""

    state: JobState | None
    steps_done: int = 0
    steps: int = 0
