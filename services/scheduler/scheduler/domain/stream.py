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
class Drain:
    """Take no new work, finish or hand back what runs, and leave."""


@dataclass(frozen=True, slots=True)
class Park:
    """Set the attempt aside at its next step boundary; its slot is for other work."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with a parked attempt, also when no slot is free."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The report is durable, or no longer wanted."""

    attempt_id: AttemptId
    accepted: bool


Control = Stop | Drain | Park | Resume
"""What the queue or an operator has a worker told, on whichever replica its stream is."""

ToWorker = Welcome | Assign | Control | Acknowledged
