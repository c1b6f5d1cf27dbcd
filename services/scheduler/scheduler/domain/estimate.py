"""Where a job stands in line and when it will be done: estimates for the user's eyes.

The order in which one worker of all models, none of them loaded, would draw the line: exact for
equal costs where the users of a tier have as many jobs each, near it else; affinity may bring a job
forward or back within its lead. Corrected as things move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TierLine:
    """One tier of the line, as if its users came back from their limits now.

    `start` is None where nothing waits.
    """

    priority: int
    weight: int
    waiting: int
    start: float | None


@dataclass(frozen=True, slots=True)
class Spot:
    """A waiting job inside its tier."""

    priority: int
    cost_ms: int
    own_before: int
    """Jobs of the same user that come first."""
    own_waiting: int
    rank: int
    """Users of the tier that come first; for one that runs as many as allowed, if it were back."""
    users: int
    """Users of the tier that may start another job, and this one."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the lane works; zeros where nothing was measured yet."""

    mean_ms: float = 0.0
    """Milliseconds that a job takes, a moving average."""
    ms_per_cost: float = 0.0
    slots: int = 0


def position(spot: Spot, tiers: Sequence[TierLine]) -> int:
    """The place in line, 1 for the next to run."""
    own = next(tier for tier in tiers if tier.priority == spot.priority)
    inside = min(
        spot.own_before * spot.users + spot.rank,
        max(0, own.waiting - spot.own_waiting) + spot.own_before,
    )
    ahead = inside
    own_start = own.start if own.start is not None else _lowest(tiers)
    begins = own_start + inside * spot.cost_ms / own.weight
    for tier in tiers:
        if tier.priority == spot.priority or tier.start is None:
            continue
        rounds = (begins - tier.start) * tier.weight / spot.cost_ms
        before = math.ceil(rounds)
        if tier.priority > spot.priority and before == rounds:
            before += 1
        ahead += min(max(0, before), tier.waiting)
    return ahead + 1


def _lowest(tiers: Sequence[TierLine]) -> float:
    return min((tier.start for tier in tiers if tier.start is not None), default=0.0)


def eta_waiting_s(place: int, cost_ms: int, pace: Pace, *, pause_ms: float = 0.0) -> float | None:
    """Seconds until a waiting job ends, or None while nobody works or nothing was measured.

    It does not start within the next `pause_ms`.
    """
    if not pace.slots or not pace.ms_per_cost:
        return None
    starts_ms = max(pause_ms, (place - 1) * pace.mean_ms / pace.slots)
    return (starts_ms + cost_ms * pace.ms_per_cost) / 1000


def eta_running_s(
    elapsed_ms: float, step: int, steps: int, cost_ms: int, pace: Pace
) -> float | None:
    """Seconds until a running job ends: by its own steps where it has made some."""
    if step > 0:
        return max(0.0, elapsed_ms / step * (steps - step) / 1000)
    if pace.ms_per_cost:
        return max(0.0, (cost_ms * pace.ms_per_cost - elapsed_ms) / 1000)
    return None
