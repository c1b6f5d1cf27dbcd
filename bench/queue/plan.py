"""How much of everything one run measures."""

from __future__ import annotations

from dataclasses import dataclass

IN_FLIGHT = (1, 10, 64)
"""Submits under way at once."""
SILENCE_MS = 15_000
"""After so long without a sign of life a worker's job is another's: Easel's lease, and what each
peer that can be tuned is set to for the kills."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of a run; times in seconds."""

    rounds: int = 5
    jobs: int = 2_000
    """End to end, in each round."""
    concurrency: int = 32
    """Jobs that one worker runs at once."""
    burst_s: float = 1.0
    """Of each measure of submits, at most."""
    burst_jobs: int = 1_500
    """Of each measure of submits, at most."""
    probes: int = 40
    """Idle dispatches in each round."""
    low: int = 200
    high: int = 20
    kills: int = 20
    """Of Easel's workers, one after the other."""
    peer_kills_s: float = 60.0
    """No kill of a peer's worker begins after so long; peers are killed side by side."""
    recovery_cap_s: float = 120.0
    """A job that runs nowhere else within this time does not come back."""
    hung: int = 3
    """Workers of Easel stopped at once."""
    patience_s: float = 30.0
    """A system that does nothing of what is asked for so long has failed."""


QUICK = Plan(
    rounds=1,
    jobs=500,
    burst_s=0.4,
    burst_jobs=400,
    probes=20,
    kills=4,
    peer_kills_s=1.0,
    recovery_cap_s=35.0,
    hung=1,
)
"""Two minutes: shows that all is well, its figures are rough."""
