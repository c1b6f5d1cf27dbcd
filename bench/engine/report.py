"""What was found, as tables for people and as one line for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.engine.campaign import EASEL, EASEL_HTTP, LITSERVE, STOCK, SYSTEMS
from bench.engine.plan import Plan
from bench.engine.replay import Phase
from bench.engine.results import (
    Results,
    Turn,
    alone_ratio,
    latency,
    per_cpu_s,
    preemption_steps,
)
from bench.engine.targets import Target, ratios, targets
from bench.engine.trace import SHORT_STEPS
from bench.queue.figures import Spread, percentile
from bench.tables import NOTHING, table

WHAT = {
    STOCK: "stock diffusers in process, one request after another",
    "static": "stock diffusers in process, batches of equal settings",
    LITSERVE: "LitServe over HTTP, stock diffusers inside",
    EASEL: "our engine in process",
    EASEL_HTTP: "our engine over HTTP",
}


def as_json(machine: Mapping[str, Any], plan: Plan, results: Results, took_s: float) -> str:
    """One line: machine, plan, every figure of every system, targets."""
    return json.dumps(
        {
            "machine": machine,
            "plan": asdict(plan),
            "took_s": took_s,
            "turns": [
                {"model": model, "trace": trace, "system": system, "summary": _summary(turns)}
                | {"rounds": [asdict(turn) for turn in turns]}
                for (model, trace, system), turns in results.turns.items()
            ],
            "capacity_per_s": {
                f"{model} {trace}": rate for (model, trace), rate in results.capacity_per_s.items()
            },
            "trials": {model: asdict(trials) for model, trials in results.trials.items()},
            "costs_ms": results.costs,
            "targets": [asdict(target) for target in targets(results)],
            "lost": results.lost,
            "trouble": results.trouble,
        }
    )


def _summary(turns: Sequence[Turn]) -> dict[str, Any]:
    streams, bursts = [turn.stream for turn in turns], [turn.burst for turn in turns]
    return {
        "requests_per_cpu_s": statistics.median(turn.per_cpu_s for turn in turns),
        "stream": asdict(latency(streams)) | {"requests_per_cpu_s": _median_rate(streams)},
        "burst": asdict(latency(bursts)) | {"requests_per_cpu_s": _median_rate(bursts)},
    }


def _median_rate(phases: Sequence[Phase]) -> float:
    return statistics.median(per_cpu_s([phase]) for phase in phases)


# --- for people


def as_text(machine: Mapping[str, Any], plan: Plan, results: Results, took_s: float) -> str:
    """Tables with medians and, in brackets, least and most."""
    parts = [_machine(machine, plan, took_s), _legend(results)]
    parts += [
        _traces(results, plan, model, trace)
        for model, trace in dict.fromkeys((m, t) for m, t, _ in results.turns)
    ]
    parts += [_trials(results), _costs(results), _targets(targets(results)), _trouble(results)]
    return "\n\n".join(part for part in parts if part)


def _machine(machine: Mapping[str, Any], plan: Plan, took_s: float) -> str:
    return (
        f"{machine['cores']} cores {machine['cpu']}, Linux {machine['kernel']}, "
        f"Python {machine['python']}, load before {machine['load_1m']}\n"
        f"torch {machine['torch']}, diffusers {machine['diffusers']}, "
        f"transformers {machine['transformers']}, LitServe {machine['litserve']}\n"
        f"{machine['pinned']}\n"
        f"{plan.rounds} round(s) in rotating order; batches of up to {plan.batch} within "
        f"{plan.window_s * 1000:g} ms, {plan.slots} jobs in our engine at once; {took_s:.0f} s"
    )


def _legend(results: Results) -> str:
    ran = {system for _model, _trace, system in results.turns}
    return "\n".join(f"{name:10}  {WHAT[name]}" for name in SYSTEMS if name in ran)


def _traces(results: Results, plan: Plan, model: str, trace: str) -> str:
    size, rate = plan.sizes[trace], results.capacity_per_s[model, trace]
    title = (
        f"{model}, {trace}: {size.stream} requests at {rate * plan.overload:.2f}/s "
        f"({plan.overload:g}x of stock), then {size.burst} at once"
    )
    header = ["", "requests per CPU-s", "stream", "burst", "/ litserve"]
    header += ["stream mean s", "p95", f"p95 of {SHORT_STEPS} steps", "burst mean s", "p95", "lost"]
    rows = [
        _row(results, model, trace, system)
        for system in SYSTEMS
        if (model, trace, system) in results.turns
    ]
    return f"{title}\n{table(header, rows)}"


def _row(results: Results, model: str, trace: str, system: str) -> list[str]:
    turns = results.turns[model, trace, system]
    streams, bursts = [turn.stream for turn in turns], [turn.burst for turn in turns]
    streamed, burst = latency(streams), latency(bursts)
    short = streamed.short_p95_s
    beside = ratios(
        results, model, trace, ours=system, other=LITSERVE, rate=lambda turn: turn.per_cpu_s
    )
    return [
        system,
        _cell([turn.per_cpu_s for turn in turns], _fine),
        _cell([per_cpu_s([phase]) for phase in streams], _fine),
        _cell([per_cpu_s([phase]) for phase in bursts], _fine),
        f"{statistics.median(beside):.2f}x" if beside else NOTHING,
        _fine(streamed.mean_s),
        _fine(streamed.p95_s),
        NOTHING if short is None else _fine(short),
        _fine(burst.mean_s),
        _fine(burst.p95_s),
        str(sum(len(turn.faults) for turn in turns)),
    ]


def _trials(results: Results) -> str:
    header = ["our engine", "alone / stock", "alone ms", "stock ms"]
    header += ["preempt p50 steps", "p95", "ms p95", "a step ms"]
    header += ["after cancel p50 steps", "p95", "shown = billed"]
    rows = []
    for model, found in results.trials.items():
        cells = [NOTHING] * 10
        if found.alone:
            ours = statistics.median(pair.ours_s for pair in found.alone)
            stock = statistics.median(pair.stock_s for pair in found.alone)
            cells[:3] = [f"{alone_ratio(found.alone):.3f}x", _ms(ours), _ms(stock)]
        if found.preemptions:
            cells[3:7] = [
                _fine(preemption_steps(found.preemptions, 0.5)),
                _fine(preemption_steps(found.preemptions, 0.95)),
                _ms(percentile([one.delay_s for one in found.preemptions], 0.95)),
                _ms(statistics.median(one.step_s for one in found.preemptions)),
            ]
        if found.cancels:
            after = [one.steps_after for one in found.cancels]
            equal = sum(one.billed == one.shown for one in found.cancels)
            cells[7:] = [
                str(percentile(after, 0.5)),
                str(percentile(after, 0.95)),
                f"{equal} of {len(after)}",
            ]
        rows.append([model, *cells])
    return table(header, rows) if rows else ""


def _costs(results: Results) -> str:
    parts = list(dict.fromkeys(part for costs in results.costs.values() for part in costs))
    rows = [[part, *(_fine(costs[part]) for costs in results.costs.values())] for part in parts]
    return table(["CPU ms, one thread", *results.costs], rows) if rows else ""


def _targets(found: Sequence[Target]) -> str:
    if not found:
        return ""
    return table(
        ["target", "wanted", "found", "spread", "reached"],
        [
            [one.name, one.wanted, one.found, one.spread, "yes" if one.reached else "NO"]
            for one in found
        ],
    )


def _trouble(results: Results) -> str:
    parts = []
    if results.trouble:
        parts.append("NOT MEASURED\n" + "\n".join(results.trouble))
    if results.lost:
        parts.append("LOST\n" + "\n".join(results.lost))
    return "\n\n".join(parts)


def _fine(value: float) -> str:
    return f"{value:.2f}"


def _ms(value_s: float) -> str:
    return f"{value_s * 1000:.1f}"


def _cell(values: Sequence[float], show: Callable[[float], str]) -> str:
    spread = Spread.of(values)
    if spread is None:
        return NOTHING
    if spread.count == 1:
        return show(spread.median)
    return f"{show(spread.median)} ({show(spread.least)}-{show(spread.most)})"
