"""One turn of one system in a round: submits, jobs end to end, idle dispatches."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.queue.plan import IN_FLIGHT, Plan
from bench.queue.producing import Job
from bench.queue.servers import Servers
from bench.queue.stage import PARTS, Stage
from bench.queue.systems import System

_WARM_UP = 50
_SHORTEST_GAP_S, _LONGEST_GAP_S = 0.03, 0.09
_HOLD_MS = 2
_FOREVER_S = 3_600.0


@dataclass(slots=True)
class Result:
    """All that was measured of one system; one entry for each round unless it says otherwise."""

    submits_per_s: dict[int, list[float]] = field(
        default_factory=lambda: {in_flight: [] for in_flight in IN_FLIGHT}
    )
    """By submits in flight."""
    jobs_per_s: list[float] = field(default_factory=list)
    """End to end."""
    cpu_ms: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    """Of CPU time for each job end to end, by part of the system."""
    idle_ms: list[list[float]] = field(default_factory=list)
    """Every idle dispatch of each round."""
    ranks: list[int] = field(default_factory=list)
    """At which places the jobs of high priority ran; once."""
    recoveries_s: list[float | None] = field(default_factory=list)
    """After each kill of a worker, until its job ran elsewhere; None: not within the cap.

    Peers are tuned for it.
    """
    untuned_s: list[float | None] = field(default_factory=list)
    """The same for a peer with its defaults."""
    hung_s: list[float | None] = field(default_factory=list)
    """The same after a worker of Easel was stopped by a signal."""
    trouble: list[str] = field(default_factory=list)
    """What could not be measured, and why."""


async def take_turn(
    system: System, servers: Servers, folder: Path, plan: Plan, result: Result
) -> None:
    """Measures one system once and adds what was found to result.

    Raises:
        Failed: the system did not do what was asked of it.
    """
    async with Stage(system, servers, folder, plan) as stage:
        stage.forget()
        waiting = await _submits(stage, plan, result)
        await stage.hire(plan.concurrency)
        await stage.settled(waiting)
        await _end_to_end(stage, plan, result)
        await _idle(stage, plan, result)


async def _submits(stage: Stage, plan: Plan, result: Result) -> int:
    """Nobody works them off meanwhile; answers how many now wait."""
    waiting, _ = await stage.burst(most=_WARM_UP, seconds=_FOREVER_S, in_flight=10)
    for in_flight in IN_FLIGHT:
        count, seconds = await stage.burst(
            most=plan.burst_jobs, seconds=plan.burst_s, in_flight=in_flight
        )
        result.submits_per_s[in_flight].append(count / seconds)
        waiting += count
    return waiting


async def _end_to_end(stage: Stage, plan: Plan, result: Result) -> None:
    stage.forget()
    before_s = stage.cost_s()
    began_s = time.monotonic()
    count, _ = await stage.burst(most=plan.jobs, seconds=_FOREVER_S, in_flight=max(IN_FLIGHT))
    ended_s = await stage.settled(count)
    after_s = stage.cost_s()
    result.jobs_per_s.append(count / (ended_s - began_s))
    for part, seconds in after_s.items():
        result.cpu_ms[part].append((seconds - before_s[part]) / count * 1_000)


async def _idle(stage: Stage, plan: Plan, result: Result) -> None:
    stage.forget()
    chooser = random.Random(len(result.idle_ms))
    # pauses of uneven length, so that no system's own beat falls in with them
    gaps_s = [chooser.uniform(_SHORTEST_GAP_S, _LONGEST_GAP_S) for _ in range(plan.probes)]
    numbers = stage.numbers(plan.probes)
    called_s = await stage.put([Job(number) for number in numbers], gaps_s)
    await stage.settled(plan.probes)
    started_s = {run.number: run.at_s for run in reversed(stage.runs())}
    result.idle_ms.append(
        [(started_s[number] - at_s) * 1_000 for number, at_s in zip(numbers, called_s, strict=True)]
    )


async def rank(system: System, servers: Servers, folder: Path, plan: Plan, result: Result) -> None:
    """Many jobs of low priority wait, then a few of high priority; one worker, one at a time.

    Raises:
        Failed: the system did not do what was asked of it.
    """
    async with Stage(system, servers, folder, plan) as stage:
        stage.forget()
        low, high = stage.numbers(plan.low), stage.numbers(plan.high)
        await stage.put([Job(number, _HOLD_MS) for number in low])
        await stage.put([Job(number, _HOLD_MS, high=True) for number in high])
        await stage.hire(1)
        await stage.settled(plan.low + plan.high)
        order = [run.number for run in stage.runs()]
        result.ranks = sorted(order.index(number) + 1 for number in high)
