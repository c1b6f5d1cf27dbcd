"""What the scheduler says to a worker on its stream."""

from __future__ import annotations

from dataclasses import dataclass

from easel_kit.ids import AttemptId
from scheduler.domain.job import Job
from scheduler.domain.lease import Claim


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a worker's introduction."""

    heartbeat_s: float
    lease_ttl_s: float
    kept: tuple[AttemptId, ...]
    cancelled: tuple[AttemptId, ...]


@dataclass(frozen=True, slots=True)
class Assign:
    """Work under a lease."""

    claim: Claim
    job: Job


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the attempt at its next step."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The report is durable, or no longer wanted."""

    attempt_id: AttemptId
    accepted: bool


ToWorker = Welcome | Assign | Stop | Acknowledged
