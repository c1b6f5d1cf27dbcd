"""What goes into the line and what is seen of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from easel_kit.ids import AttemptId, JobId, ModelKey, UserId
from scheduler.domain.job import Job, JobState
from scheduler.domain.lease import Claim
from scheduler.domain.policy import Share


@dataclass(frozen=True, slots=True)
class Admission:
    """An open job as the queue needs it; `claim` is set where an attempt of it runs."""

    job_id: JobId
    user_id: UserId
    model_key: ModelKey
    cost_ms: int
    place: int
    attempts: int
    start_by: datetime
    share: Share
    claim: Claim | None = None
    front: int | None = None
    """As `Job.front`."""
    not_before: datetime | None = None
    """A waiting job is not started before this; None for none."""

    @property
    def order(self) -> int:
        """Where it stands among the waiting jobs of its user: the lowest is next."""
        return self.place if self.front is None else self.front


@dataclass(frozen=True, slots=True)
class End:
    """A job that has ended, as the queue needs it."""

    job_id: JobId
    by: AttemptId | None = None
    """The attempt whose worker reported it; other attempts of the job are stopped."""
    took_ms: int | None = None
    """How long its success took (0: nobody knows); None for any other end."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is; `preview` is a small picture or empty."""

    job_id: JobId
    step: int
    steps: int
    first_step_at: datetime
    preview: bytes = b""
    preview_media_type: str = ""


@dataclass(frozen=True, slots=True)
class Live:
    """A job as the queue sees it; `position` is 0 while it runs."""

    running: bool
    attempts: int
    position: int = 0
    eta_s: float | None = None
    claimed_at: datetime | None = None
    first_step_at: datetime | None = None
    step: int = 0
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Depth:
    """How full the lane is."""

    waiting: int
    running: int
    workers: int
    slots: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a submit came to: its jobs in the order of the request, as they stand."""

    jobs: list[Job]
    fresh: frozenset[JobId]
    """Those that this submit made."""
    share: Share
    """The user's numbers that hold now: the submit's, or newer ones."""


def seen(job: Job, live: Live | None) -> Job:
    """The job with what only the queue knows; one that has ended, or is not in line, unchanged.

    The queue is ahead of the database by the commit of a claim.
    """
    if job.state.ended or live is None:
        return job
    return replace(
        job,
        state=JobState.RUNNING if live.running else JobState.QUEUED,
        attempts=max(job.attempts, live.attempts),
        position=live.position,
        eta_s=live.eta_s,
        claimed_at=live.claimed_at or job.claimed_at,
        first_step_at=live.first_step_at or job.first_step_at,
        steps_done=max(job.steps_done, live.step),
        parked=live.parked,
    )
