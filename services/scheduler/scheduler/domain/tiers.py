"""Users and tiers of the fair queue with their tags; what moves the tags is in `domain.policy`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from easel_kit.ids import JobId, ModelKey, UserId
from scheduler.domain.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Share:
    """A user's numbers as the queue obeys them."""

    version: int
    priority: int
    weight: int
    max_running: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in line; among the jobs of its user a smaller `order` is earlier."""

    job_id: JobId
    user_id: UserId
    model_key: ModelKey
    cost_ms: int
    order: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What a job's latest attempt has been charged, in which tier, and over which weight."""

    priority: int
    weight: int
    cost_ms: float


@dataclass(slots=True)
class User:
    """A user's tag and jobs."""

    id: UserId
    share: Share
    finish: float = 0.0
    start: float | None = None
    """Start tag while in the tier's set: some job waits and fewer than the limit run."""
    entry: int = 0
    """When it entered the set; decides between equal tags."""
    passed: int = 0
    """Cost of the jobs that passed it by since it entered or was last served."""
    lines: dict[ModelKey, Ranking[JobId, tuple[int, JobId]]] = field(default_factory=dict)
    running: set[JobId] = field(default_factory=set)

    def first(self, models: Collection[ModelKey]) -> JobId | None:
        """Its earliest job among those of `models`."""
        heads = [line.lowest() for model in models if (line := self.lines.get(model)) is not None]
        found = min((head for head in heads if head is not None), default=None)
        return found[1] if found else None


@dataclass(slots=True)
class Tier:
    """A tier's tags, and its users who may start a job."""

    priority: int
    start: float | None = None
    """Start tag while some user of it may start a job."""
    finish: float = 0.0
    virtual: float = 0.0
    users: int = 0
    """How many may start a job."""
    lines: dict[ModelKey, Ranking[UserId, tuple[float, int]]] = field(default_factory=dict)
    """Those users, by start tag, for each model that a job of theirs waits for."""

    def heads(self, models: Collection[ModelKey]) -> list[tuple[tuple[float, int], UserId]]:
        """For each model the user who comes first, in order."""
        heads = [line.lowest() for model in models if (line := self.lines.get(model)) is not None]
        return sorted(head for head in heads if head is not None)
