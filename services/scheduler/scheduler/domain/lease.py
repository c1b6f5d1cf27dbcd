"""Attempts under leases: what a report about an attempt means for its job.

Pure rules; the database decides with them under a lock on the job's row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from easel_kit.ids import AttemptId, JobId, UserId, WorkerId
from scheduler.domain.job import WORKER_LOST, Image, JobError, JobState


@dataclass(frozen=True, slots=True)
class Claim:
    """One try at a job by one worker; `number` is 1 for the first try."""

    attempt_id: AttemptId
    job_id: JobId
    user_id: UserId
    worker_id: WorkerId
    number: int
    claimed_at: datetime


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """The request cannot be drawn by any worker."""
    FAILED = "failed"
    """It may go better after a while."""
    UNFIT = "unfit"
    """Its worker cannot go on; another may."""
    STOPPED = "stopped"
    """Because of a cancel."""
    HANDED_BACK = "handed_back"
    LOST = "lost"
    """Its worker died or hung."""
    UNDELIVERED = "undelivered"
    """It never reached its worker, whose stream or replica ended before."""
    FORGOTTEN = "forgotten"
    """Nobody came back for it after the queue's store was lost."""
    SUPERSEDED = "superseded"
    """Its job ended by another attempt's report."""


COUNTED = frozenset({Outcome.FAILED, Outcome.UNFIT, Outcome.LOST})
"""Only an attempt's own error or its worker's death uses up one of the job's tries."""


@dataclass(frozen=True, slots=True)
class Report:
    """The end of one attempt."""

    claim: Claim
    outcome: Outcome
    steps_done: int = 0
    error: JobError | None = None
    images: tuple[Image, ...] = ()
    warnings: tuple[str, ...] = ()
    first_step_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """What a worker says of an attempt that ended; durations are from its assignment."""

    attempt_id: AttemptId
    outcome: Outcome
    steps_done: int = 0
    error: JobError | None = None
    images: tuple[Image, ...] = ()
    warnings: tuple[str, ...] = ()
    first_step_ms: int = 0
    total_ms: int = 0

    def of(self, claim: Claim, first_step_at: datetime | None) -> Report:
        """The report on this claim; `first_step_at` is when this side saw the first step."""
        if self.first_step_ms > 0:
            first_step_at = claim.claimed_at + timedelta(milliseconds=self.first_step_ms)
        return Report(
            claim=claim,
            outcome=self.outcome,
            steps_done=self.steps_done,
            error=self.error,
            images=self.images,
            warnings=self.warnings,
            first_step_at=first_step_at,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """A job and one of its attempts, as a report finds them."""

    state: JobState
    cancel_requested: bool
    is_current: bool
    """The attempt has not ended and no later one was recorded."""
    failures: int
    """Attempts before this one that counted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report changes: `state` is the job's next one, None where nothing changes."""

    state: JobState | None
    error: JobError | None = None
    pause: bool = False
    """The next try waits for a while."""


NOTHING = Verdict(None)


def judge(found: Standing, report: Report, *, max_attempts: int) -> Verdict:
    """What becomes of a job when one of its attempts ends.

    The first success wins, from whichever attempt. Everything else counts from the current
    attempt alone: it ends the job (cancel asked for, request refused, tries used up) or puts it
    back in line.
    """
    if found.state.ended:
        return NOTHING
    if report.outcome is Outcome.SUCCEEDED:
        return Verdict(JobState.SUCCEEDED)
    if not found.is_current:
        return NOTHING
    if found.cancel_requested:
        return Verdict(JobState.CANCELLED)
    last_try = report.outcome in COUNTED and found.failures + 1 >= max_attempts
    if last_try or report.outcome is Outcome.REFUSED:
        return Verdict(JobState.FAILED, report.error or WORKER_LOST)
    return Verdict(JobState.QUEUED, pause=report.outcome is Outcome.FAILED)


@dataclass(frozen=True, slots=True)
class Settled:
    """What the end of an attempt, or of a wait, came to, once durable."""

    job_id: JobId
    claim: Claim | None
    """None where no worker had started the job."""
    state: JobState | None
    """The job's state afterwards; None for a job that is not known."""
    changed: bool
    """The report changed the job's state."""
    accepted: bool = True
    """As `changed`, and also for the same report once more."""
    outcome: Outcome | None = None
    error: JobError | None = None
    traceparent: str = ""
    steps_done: int = 0
    waited_s: float = 0.0
    lasted_s: float = 0.0
    not_before: datetime | None = None
    """When the job may be tried again; None for at once."""

    @property
    def ended(self) -> bool:
        """This report ended the job."""
        return self.changed and self.state is not None and self.state.ended
