"""Users, their plans and their jobs, as all parts of the simulator name them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from easel_kit.ids import AttemptId, JobId, ModelKey, UserId
from scheduler.domain.job import JobState
from scheduler.domain.lease import Claim, Outcome
from scheduler.domain.policy import Share, Waiting

_PLANS = Path(__file__).parents[2] / "services/billing/billing/plans.toml"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plan allows, from billing's table."""

    name: str
    share: Share
    max_open: int
    """Jobs that run or wait, together."""
    queue_time_s: float


def plans(path: Path = _PLANS) -> dict[str, Plan]:
    """The plans on offer, lowest priority first, with the numbers that billing sells."""
    table = tomllib.loads(path.read_text())["plans"]
    found = [
        Plan(
            name=row["key"],
            share=Share(1, row["priority"], row["weight"], row["max_running"]),
            max_open=row["max_running"] + row["max_waiting"],
            queue_time_s=row["queue_time_s"],
        )
        for row in table
    ]
    return {plan.name: plan for plan in sorted(found, key=lambda plan: plan.share.priority)}


@dataclass(slots=True)
class Person:
    """A user; `index` counts over the whole run."""

    index: int
    plan: Plan
    id: UserId = field(init=False)

    def __post_init__(self) -> None:
        self.id = UserId(f"u{self.index}")


@dataclass(frozen=True, slots=True)
class Order:
    """A job as its user submits it; `took_ms` is what it will really take on a worker."""

    job_id: JobId
    model_key: ModelKey
    cost_ms: int
    took_ms: int


@dataclass(slots=True)
class Try:
    """A row of an attempt."""

    claim: Claim
    outcome: Outcome | None = None
    counted: bool = False


@dataclass(slots=True)
class Row:
    """A job as the truth holds it, beside when the simulator saw it start."""

    waiting: Waiting
    person: Person
    place: int
    """Grows with acceptance: the order of a user's jobs."""
    took_ms: int
    accepted_s: float
    start_by_s: float
    state: JobState = JobState.QUEUED
    number: int = 0
    attempt_id: AttemptId | None = None
    cancel_requested: bool = False
    tries: dict[AttemptId, Try] = field(default_factory=dict)
    not_before_s: float = 0.0
    """When the next try may begin."""
    started_s: float | None = None

    @property
    def job_id(self) -> JobId:
        """The job's id."""
        return self.waiting.job_id

    def admission(self) -> Admission:
        """What the line is told: the job as it stands now, which may be old when it arrives."""
        claim = None
        if self.state is JobState.RUNNING and self.attempt_id is not None:
            claim = self.tries[self.attempt_id].claim
        return Admission(self, self.number, claim, self.not_before_s)


@dataclass(frozen=True, slots=True)
class Admission:
    """A job on its way into the line; `claim` is set where an attempt of it runs."""

    row: Row
    number: int
    claim: Claim | None
    not_before_s: float
