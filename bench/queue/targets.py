"""What Easel wants to reach beside its peers, as ratios inside one run.

Systems of one round ran within the same minute, so ratios are taken round by round; the machine's
slow changes fall out of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.queue.figures import Spread, percentile
from bench.queue.measure import Result

Results = Mapping[str, Result]

_SUBMIT_RATIO, _JOBS_RATIO, _IDLE_RATIO = 3.0, 2.0, 1.0
_KILLED_S, _HUNG_S = 1.0, 20.0
_IN_FLIGHT = 10
_EASELS = ("easel-in-process", "easel", "easel-2")
_POSTGRES_PEERS = ("pgqueuer", "procrastinate")


@dataclass(frozen=True, slots=True)
class Target:
    """One target, and whether this run reached it."""

    name: str
    wanted: str
    found: str
    rounds: str
    """Least and most over the rounds."""
    value: float | None
    """None: without end."""
    reached: bool


def targets(results: Results) -> list[Target]:
    """Those that the measured systems allow to judge."""
    found = []
    for name in _EASELS:
        if name in results:
            found += _of(name, results)
    return found


def _of(name: str, results: Results) -> list[Target]:
    ours = results[name]
    peers = [results[peer].submits_per_s[_IN_FLIGHT] for peer in _POSTGRES_PEERS if peer in results]
    best = [max(rates) for rates in zip(*peers, strict=False)]
    celery = results.get("celery", Result())
    judged = [
        _ratio(
            f"{name}: submits at 10 in flight / best Postgres peer",
            _ratios(ours.submits_per_s[_IN_FLIGHT], best),
            at_least=_SUBMIT_RATIO,
        ),
        _ratio(
            f"{name}: jobs end to end / Celery",
            _ratios(ours.jobs_per_s, celery.jobs_per_s),
            at_least=_JOBS_RATIO,
        ),
        _ratio(
            f"{name}: idle p50 / Celery",
            _ratios(_medians(ours), _medians(celery)),
            at_most=_IDLE_RATIO,
        ),
        _seconds(f"{name}: killed worker's job elsewhere, p99", ours.recoveries_s, _KILLED_S),
        _seconds(f"{name}: hung worker's job elsewhere, worst", ours.hung_s, _HUNG_S),
    ]
    return [target for target in judged if target is not None]


def _medians(result: Result) -> list[float]:
    return [percentile(latencies, 0.5) for latencies in result.idle_ms]


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [mine / other for mine, other in zip(ours, theirs, strict=False)]


def _ratio(
    name: str,
    ratios: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Target | None:
    spread = Spread.of(ratios)
    if spread is None:
        return None
    reached = (at_least is None or spread.median >= at_least) and (
        at_most is None or spread.median <= at_most
    )
    return Target(
        name,
        wanted=f">= {at_least:g}x" if at_least is not None else f"<= {at_most:g}x",
        found=f"{spread.median:.2f}x",
        rounds=f"{spread.least:.2f}-{spread.most:.2f}",
        value=spread.median,
        reached=reached,
    )


def _seconds(name: str, times_s: Sequence[float | None], at_most: float) -> Target | None:
    if not times_s:
        return None
    values = [math.inf if time_s is None else time_s for time_s in times_s]
    worst = percentile(values, 0.99)
    return Target(
        name,
        wanted=f"<= {at_most:g} s",
        found="never" if math.isinf(worst) else f"{worst:.2f} s",
        rounds=f"{len(values)} times",
        value=None if math.isinf(worst) else worst,
        reached=worst <= at_most,
    )
