"""Holds: the price of one job, reserved until the job ends, and how a job's state ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from billing.domain.accounts import AccountId, Balance
from billing.domain.pricing import Work, charge
from easel_kit.ids import HoldId, JobId, UserId


class HoldState(StrEnum):
    """Open, or one of two ends."""

    OPEN = "open"
    CAPTURED = "captured"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Hold:
    """The one hold of a job. A tombstone (released before it was placed) has no account."""

    id: HoldId
    job_id: JobId
    account_id: AccountId | None
    user_id: UserId | None
    work: Work | None
    state: HoldState
    millicredits: int
    captured: int
    is_barred: bool
    """Released by someone who knows that no job runs on it: none may be submitted any more."""
    traceparent: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """A hold to be placed."""

    id: HoldId
    job_id: JobId
    account_id: AccountId
    user_id: UserId
    work: Work
    millicredits: int
    plan_key: str
    plan_version: int
    traceparent: str
    placed_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PlacedHolds:
    """New holds, in the order asked for, and the balance after them; None where none was new."""

    holds: Sequence[Hold]
    balance: Balance | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a hold ends: the price of the steps that ran is charged, the rest freed."""

    steps_done: int
    steps_total: int
    reason: str
    is_barring: bool = False

    def charge(self, millicredits: int) -> int:
        """Millicredits to capture of a hold."""
        return charge(millicredits, self.steps_done, self.steps_total)


@dataclass(frozen=True, slots=True)
class Extension:
    """The job lives: its hold stays for another while."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A hold after a settlement; `is_new` when this one ended it."""

    hold: Hold
    is_new: bool


class JobStatus(StrEnum):
    """What the scheduler says of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """It has never heard of the job and will refuse it from now on."""


@dataclass(frozen=True, slots=True)
class JobReport:
    """A job's status and, for a cancelled one, the steps that ran."""

    status: JobStatus
    steps_done: int = 0
    steps_total: int = 0


WHOLE = (1, 1)
NOTHING = (0, 1)


def effect_of(report: JobReport) -> Extension | Settlement:
    """What a job's status means for its hold."""
    match report.status:
        case JobStatus.QUEUED | JobStatus.RUNNING:
            return Extension()
        case JobStatus.SUCCEEDED:
            return Settlement(*WHOLE, reason="finished")
        case JobStatus.FAILED:
            return Settlement(*NOTHING, reason="failed")
        case JobStatus.CANCELLED:
            if report.steps_done <= 0 or report.steps_total <= 0:
                return Settlement(*NOTHING, reason="cancelled before it began")
            done = min(report.steps_done, report.steps_total)
            return Settlement(
                done, report.steps_total, f"cancelled after {done} of {report.steps_total} steps"
            )
        case JobStatus.UNKNOWN:
            return Settlement(*NOTHING, reason="never submitted", is_barring=True)
