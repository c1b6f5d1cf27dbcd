"""What a run found, and the figures that its report shows."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from bench.engine.replay import Phase, Served
from bench.engine.trace import SHORT_STEPS
from bench.queue.figures import percentile


@dataclass(frozen=True, slots=True)
class Turn:
    """One system's way through one trace in one round."""

    stream: Phase
    burst: Phase

    @property
    def per_cpu_s(self) -> float:
        """Requests for each second of CPU time, over all of it."""
        return per_cpu_s((self.stream, self.burst))

    @property
    def faults(self) -> list[str]:
        """Why pictures are missing; one entry for each."""
        return [
            one.fault for phase in (self.stream, self.burst) for one in phase.served if one.fault
        ]


Heard = tuple[int, float]
"""Steps of a job, and when on some clock its progress showed them, in seconds."""

_TOGETHER = 0.1
"""Jobs that step within this share of one job's step time stepped in the same forward."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The same job by stock diffusers and by us, one after the other, in seconds."""

    stock_s: float
    ours_s: float


@dataclass(frozen=True, slots=True)
class Preemption:
    """One paid job that came while a batch of free ones ran."""

    delay_s: float
    """From its arrival to its first step, parking included."""
    step_s: float
    """Of the running batch just before."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """One job that was cancelled on its way."""

    steps_after: int
    """Steps that it took after the call."""
    shown: int
    """Steps that its progress showed at last."""
    billed: int
    """Steps of its outcome."""


@dataclass(slots=True)
class Trials:
    """What was measured of our engine alone, with one model."""

    alone: list[Alone] = field(default_factory=list)
    preemptions: list[Preemption] = field(default_factory=list)
    cancels: list[Cancelled] = field(default_factory=list)


@dataclass(slots=True)
class Results:
    """All of it."""

    turns: dict[tuple[str, str, str], list[Turn]] = field(default_factory=dict)
    """By model, trace and system; one entry a round."""
    capacity_per_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """What stock diffusers draws one after another, by model and trace."""
    trials: dict[str, Trials] = field(default_factory=dict)
    """By model."""
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    """By model and part, in milliseconds."""
    trouble: list[str] = field(default_factory=list)
    """What could not be measured, and why."""

    failed: list[str] = field(default_factory=list)
    """Turns that ended before all pictures had come back, and why."""

    @property
    def lost(self) -> list[str]:
        """Pictures that did not come back as they should, those of one kind together."""
        found = Counter(
            (model, trace, system, fault)
            for (model, trace, system), turns in self.turns.items()
            for turn in turns
            for fault in turn.faults
        )
        return self.failed + [
            f"{model}, {trace}, {system}: {count} times {fault}"
            for (model, trace, system, fault), count in found.items()
        ]


def per_cpu_s(phases: Iterable[Phase]) -> float:
    """Good pictures for each second of CPU time."""
    counted = list(phases)
    good = sum(not one.fault for phase in counted for one in phase.served)
    return good / sum(phase.cpu_s for phase in counted)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of some requests, in seconds."""

    mean_s: float
    p95_s: float
    short_p95_s: float | None
    """Of those with the fewest steps; None where there are none."""


def latency(phases: Iterable[Phase]) -> Latency:
    """Over all requests of these phases."""
    served = [one for phase in phases for one in phase.served]
    short = [one for one in served if one.steps == SHORT_STEPS]
    times_s = [one.latency_s for one in served]
    return Latency(
        statistics.fmean(times_s), percentile(times_s, 0.95), _p95(short) if short else None
    )


def _p95(served: Sequence[Served]) -> float:
    return percentile([one.latency_s for one in served], 0.95)


def alone_ratio(pairs: Sequence[Alone]) -> float:
    """How fast we are beside stock diffusers: median time of stock over ours."""
    return statistics.median(pair.stock_s for pair in pairs) / statistics.median(
        pair.ours_s for pair in pairs
    )


def forward_s(jobs: Sequence[Sequence[Heard]]) -> float:
    """Time from one forward to the next, where not every job is in each.

    Args:
        jobs: each one's last progress, at least two of them.
    """
    job_step_s = statistics.median(
        (heard[-1][1] - heard[0][1]) / (heard[-1][0] - heard[0][0]) for heard in jobs
    )
    since_s = max(heard[0][1] for heard in jobs)
    times_s = sorted(at_s for heard in jobs for _, at_s in heard if at_s >= since_s)
    ends_s = [
        later
        for before, later in pairwise([float("-inf"), *times_s])
        if later - before > job_step_s * _TOGETHER
    ]
    if len(ends_s) == 1:
        return job_step_s
    return min(job_step_s, (ends_s[-1] - ends_s[0]) / (len(ends_s) - 1))


def preemption_steps(found: Sequence[Preemption], share: float) -> float:
    """Percentile of the delay, in step times of the batch that ran."""
    return percentile([one.delay_s / one.step_s for one in found], share)
