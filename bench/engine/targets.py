"""What our engine wants to reach beside stock diffusers and LitServe, as ratios inside one run.

Systems of one round ran within the same minutes, so ratios are taken round by round; the machine's
slow changes fall out of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.engine.campaign import EASEL_HTTP, LITSERVE
from bench.engine.plan import MIXED, UNIFORM
from bench.engine.results import Results, Trials, Turn, alone_ratio, per_cpu_s, preemption_steps
from bench.queue.figures import Spread, percentile

PER_CPU = {MIXED: 3.0, UNIFORM: 0.9}
"""Our requests for each CPU-second beside LitServe's, at least."""
_ALONE = 0.97
_FIRST_STEP = 3.0
_AFTER_CANCEL = 2

Rate = Callable[[Turn], float]

_PARTS: Mapping[str, Rate] = {
    "all": lambda turn: turn.per_cpu_s,
    "burst": lambda turn: per_cpu_s([turn.burst]),
}
"""In the stream a quick system has few requests at once, so only the burst shows what it can."""


@dataclass(frozen=True, slots=True)
class Target:
    """One target, and whether this run reached it."""

    name: str
    wanted: str
    found: str
    spread: str
    """Least and most over the rounds, or of how many it was judged."""
    value: float
    reached: bool


def targets(results: Results) -> list[Target]:
    """Those that this run allows to judge."""
    models = dict.fromkeys(model for model, _trace, _system in results.turns)
    found = [
        target
        for model in models
        for trace in PER_CPU
        for part, rate in _PARTS.items()
        if (target := _beside_litserve(results, model, trace, part, rate)) is not None
    ]
    for model, trials in results.trials.items():
        found += _of_trials(model, trials)
    return found


def ratios(
    results: Results, model: str, trace: str, *, ours: str, other: str, rate: Rate
) -> list[float]:
    """One system's rate over another's, round by round."""
    pairs = zip(
        results.turns.get((model, trace, ours), ()),
        results.turns.get((model, trace, other), ()),
        strict=False,
    )
    return [rate(mine) / rate(theirs) for mine, theirs in pairs if rate(theirs)]


def _beside_litserve(
    results: Results, model: str, trace: str, part: str, rate: Rate
) -> Target | None:
    spread = Spread.of(ratios(results, model, trace, ours=EASEL_HTTP, other=LITSERVE, rate=rate))
    if spread is None:
        return None
    wanted = PER_CPU[trace]
    return Target(
        f"{model}, {trace}, {part}: requests per CPU-second / LitServe",
        wanted=f">= {wanted:g}x",
        found=f"{spread.median:.2f}x",
        spread=f"{spread.least:.2f}-{spread.most:.2f}",
        value=spread.median,
        reached=spread.median >= wanted,
    )


def _of_trials(model: str, trials: Trials) -> list[Target]:
    found = []
    if trials.alone:
        ratio = alone_ratio(trials.alone)
        found.append(
            Target(
                f"{model}: one job alone / stock diffusers",
                wanted=f">= {_ALONE:g}x",
                found=f"{ratio:.3f}x",
                spread=_halves(trials),
                value=ratio,
                reached=ratio >= _ALONE,
            )
        )
    if trials.preemptions:
        delay = preemption_steps(trials.preemptions, 0.95)
        found.append(
            Target(
                f"{model}: a paid job's first step, p95",
                wanted=f"<= {_FIRST_STEP:g} steps",
                found=f"{delay:.2f} steps",
                spread=f"{len(trials.preemptions)} times",
                value=delay,
                reached=delay <= _FIRST_STEP,
            )
        )
    return found + _of_cancels(model, trials)


def _halves(trials: Trials) -> str:
    """The ratio of each half of the pairs: how much of it is chance."""
    middle = len(trials.alone) // 2
    halves: Sequence[float] = [
        alone_ratio(half) for half in (trials.alone[:middle], trials.alone[middle:]) if half
    ]
    return f"{min(halves):.3f}-{max(halves):.3f}"


def _of_cancels(model: str, trials: Trials) -> list[Target]:
    if not trials.cancels:
        return []
    after = percentile([one.steps_after for one in trials.cancels], 0.95)
    equal = statistics.fmean(one.billed == one.shown for one in trials.cancels)
    times = f"{len(trials.cancels)} times"
    return [
        Target(
            f"{model}: steps after a cancel, p95",
            wanted=f"<= {_AFTER_CANCEL} steps",
            found=f"{after:g} steps",
            spread=times,
            value=after,
            reached=after <= _AFTER_CANCEL,
        ),
        Target(
            f"{model}: steps of a cancelled job as its progress showed them",
            wanted="100 %",
            found=f"{equal:.0%}".replace("%", " %"),
            spread=times,
            value=equal,
            reached=equal == 1.0,
        ),
    ]
