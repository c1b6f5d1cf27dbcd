"""Workers and the models they report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from easel_kit.ids import ModelKey, WorkerId


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What a request that names none of these gets."""

    steps: int
    guidance: float
    width_px: int
    height_px: int
    sampler: str


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the catalogue as a worker reports it; `sizes_px` are (width, height)."""

    key: ModelKey
    name: str
    base: str
    type: str
    description: str
    licence: str
    defaults: ModelDefaults
    sizes_px: tuple[tuple[int, int], ...]
    max_steps: int
    max_prompt_tokens: int
    samplers: tuple[str, ...]
    loaded: bool
    unavailable_reason: str
    features: tuple[str, ...] = ()
    """What requests may ask of it beyond a prompt."""
    size_bytes: int = 0
    """Of its files; 0 where unknown."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it introduces itself; `session` names one stream of it."""

    id: WorkerId
    session: str
    address: str
    device: str
    slots: int
    models: tuple[Model, ...]
    draining: bool = False
    can_park: bool = False
    """It can set an attempt aside at a step boundary and go on with it later."""

    @property
    def usable_models(self) -> tuple[ModelKey, ...]:
        """Keys of the models it can draw with."""
        return tuple(model.key for model in self.models if not model.unavailable_reason)

    @property
    def loaded_models(self) -> frozenset[ModelKey]:
        """Keys of the models that it has in its memory."""
        return frozenset(model.key for model in self.models if model.loaded)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A connected worker and how many attempts it holds."""

    worker: Worker
    running: int
    parked: int = 0
    """Of those, how many are set aside."""


def merged_models(workers: Iterable[Worker]) -> list[Model]:
    """One row per key, by key: usable if any worker can use it, loaded if any has it loaded."""
    found: dict[ModelKey, Model] = {}
    for worker in sorted(workers, key=lambda one: one.id):
        for model in worker.models:
            known = found.get(model.key)
            if known is None:
                found[model.key] = model
                continue
            better = model if known.unavailable_reason and not model.unavailable_reason else known
            found[model.key] = replace(better, loaded=known.loaded or model.loaded)
    return [found[key] for key in sorted(found)]
