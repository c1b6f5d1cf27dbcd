"""How much of everything one run measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHAPES, TINY = "shapes-64", "tiny"
MODELS = (SHAPES, TINY)
MIXED, UNIFORM = "mixed", "uniform"
TRACES = (MIXED, UNIFORM)


@dataclass(frozen=True, slots=True)
class Size:
    """Requests of one turn: a stream of them, and then so many at once."""

    stream: int
    burst: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of a run; times in seconds."""

    rounds: int = 3
    sizes: Mapping[str, Size] = field(
        default_factory=lambda: {MIXED: Size(36, 48), UNIFORM: Size(24, 32)}
    )
    """By trace."""
    calibration: int = 12
    """Requests by which the capacity of stock diffusers is found."""
    overload: float = 3.0
    """Requests of the stream for each that stock diffusers could draw meanwhile."""
    batch: int = 8
    """Requests that static batching and LitServe draw at once, at most."""
    window_s: float = 0.02
    """How long they wait for a batch to become full."""
    slots: int = 32
    """Jobs that our engine is given at once, as the scheduler would."""
    pairs: int = 40
    """Of one job alone, by us and by stock diffusers."""
    preemptions: int = 40
    cancels: int = 40
    busy: int = 8
    """Jobs that run while others are preempted or cancelled."""
    cost_repeats: int = 15
    """Times that each single cost is measured."""
    patience_s: float = 300.0
    """A turn that takes longer has failed."""


QUICK = Plan(
    rounds=1,
    sizes={MIXED: Size(8, 16), UNIFORM: Size(4, 8)},
    calibration=4,
    pairs=6,
    preemptions=8,
    cancels=8,
    cost_repeats=3,
    patience_s=120.0,
)
"""Two minutes: shows that all is well, its figures are rough."""
