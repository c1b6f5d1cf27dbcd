"""How much work waits and how fast it goes: what autoscaling and operators look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from easel_kit.ids import ModelKey
from scheduler.domain.estimate import Pace
from scheduler.domain.worker import WorkerStatus


@dataclass(frozen=True, slots=True)
class TierLoad:
    """The open jobs of one priority."""

    priority: int
    weight: int
    waiting: int
    running: int
    waiting_users: int


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """The open jobs of one model."""

    model_key: ModelKey
    waiting: int
    running: int
    waiting_cost_ms: int
    """Estimated work in line, in reference GPU-milliseconds."""
    oldest_waiting_s: float
    """Age of the job that has waited longest; 0 with none."""


@dataclass(frozen=True, slots=True)
class Load:
    """All open jobs of a lane, once by tier (highest priority first) and once by model (by key)."""

    tiers: tuple[TierLoad, ...] = ()
    models: tuple[ModelLoad, ...] = ()

    @property
    def waiting(self) -> int:
        """Jobs in line."""
        return sum(model.waiting for model in self.models)

    @property
    def running(self) -> int:
        """Jobs that workers draw."""
        return sum(model.running for model in self.models)

    @property
    def waiting_cost_ms(self) -> int:
        """Estimated work in line, in reference GPU-milliseconds."""
        return sum(model.waiting_cost_ms for model in self.models)

    @property
    def oldest_waiting_s(self) -> float:
        """Age of the job that has waited longest; 0 with none."""
        return max((model.oldest_waiting_s for model in self.models), default=0.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """The signals of one model, or of the whole lane (`model_key` is None)."""

    model_key: ModelKey | None
    waiting: int
    running: int
    waiting_s: float
    """Work in line, in seconds of one slot at the measured rate."""
    oldest_waiting_s: float
    workers: int
    slots: int
    busy_share: float
    """Running jobs over slots, 0 to 1; 0 without slots. A model's slots may run other models."""
    backlog_s: float
    """Waiting work / (workers x measured rate): seconds until the present line is worked off by
    the present workers; without any, as if there were one slot."""


def readings(load: Load, workers: Sequence[WorkerStatus], pace: Pace) -> list[Reading]:
    """The lane's signals, then those of each model that waits, runs, or that a worker can draw.

    The measured rate is `pace.ms_per_cost`, milliseconds per reference millisecond; 1 until
    something was measured. A draining worker takes no work and does not count.
    """
    active = [status.worker for status in workers if not status.worker.draining]
    slots: dict[ModelKey, list[int]] = {model.model_key: [] for model in load.models}
    for worker in active:
        for key in worker.usable_models:
            slots.setdefault(key, []).append(worker.slots)
    loads = {model.model_key: model for model in load.models}
    lane = _reading(None, load.models, [worker.slots for worker in active], pace)
    return [lane] + [
        _reading(key, [loads[key]] if key in loads else [], slots[key], pace)
        for key in sorted(slots)
    ]


def _reading(
    key: ModelKey | None, models: Iterable[ModelLoad], slots: Sequence[int], pace: Pace
) -> Reading:
    load = Load(models=tuple(models))
    waiting_s = load.waiting_cost_ms * (pace.ms_per_cost or 1.0) / 1000
    total = sum(slots)
    return Reading(
        model_key=key,
        waiting=load.waiting,
        running=load.running,
        waiting_s=waiting_s,
        oldest_waiting_s=load.oldest_waiting_s,
        workers=len(slots),
        slots=total,
        busy_share=min(1.0, load.running / total) if total else 0.0,
        backlog_s=waiting_s / max(1, total),
    )
