"""What was found, as tables for people and as one line for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.queue.figures import Spread, percentile
from bench.queue.measure import Result
from bench.queue.plan import IN_FLIGHT, SILENCE_MS, Plan
from bench.queue.stage import PARTS
from bench.queue.targets import Target, targets
from bench.tables import NOTHING, table

Results = Mapping[str, Result]
Facts = Mapping[str, Mapping[str, str]]


def as_json(
    machine: Mapping[str, Any], plan: Plan, facts: Facts, results: Results, took_s: float
) -> str:
    """One line: machine, plan, every figure of every system, targets."""
    return json.dumps(
        {
            "machine": machine,
            "plan": asdict(plan),
            "took_s": took_s,
            "systems": {
                name: {"facts": facts[name], "summary": _summary(result), "raw": asdict(result)}
                for name, result in results.items()
            },
            "targets": [asdict(target) for target in targets(results)],
        }
    )


def _summary(result: Result) -> dict[str, Any]:
    def spread(values: Sequence[float]) -> dict[str, float] | None:
        found = Spread.of(values)
        return None if found is None else asdict(found)

    return {
        "submits_per_s": {n: spread(result.submits_per_s[n]) for n in IN_FLIGHT},
        "jobs_per_s": spread(result.jobs_per_s),
        "cpu_ms_per_job": {part: spread(values) for part, values in result.cpu_ms.items()},
        "idle_p50_ms": spread(_shares(result, 0.5)),
        "idle_p99_ms": _pooled(result, 0.99),
        "mean_rank_of_high": _mean_rank(result),
        "last_rank_of_high": result.ranks[-1] if result.ranks else None,
        "kills": len(result.recoveries_s),
        "not_recovered": result.recoveries_s.count(None),
        "recovery_p50_s": _recovery(result.recoveries_s, 0.5),
        "recovery_p99_s": _recovery(result.recoveries_s, 0.99),
        "untuned_recovery_s": _recovery(result.untuned_s, 1.0),
        "hung_worst_s": _recovery(result.hung_s, 1.0),
    }


def _shares(result: Result, share: float) -> list[float]:
    return [percentile(latencies, share) for latencies in result.idle_ms]


def _pooled(result: Result, share: float) -> float | None:
    latencies = [latency for round_ in result.idle_ms for latency in round_]
    return percentile(latencies, share) if latencies else None


def _mean_rank(result: Result) -> float | None:
    return sum(result.ranks) / len(result.ranks) if result.ranks else None


def _recovery(found: Sequence[float | None], share: float) -> float | None:
    values = [value for value in found if value is not None]
    return percentile(values, share) if values else None


# --- for people


def as_text(
    machine: Mapping[str, Any], plan: Plan, facts: Facts, results: Results, took_s: float
) -> str:
    """Tables with medians and, in brackets, least and most."""
    parts = [
        _machine(machine, plan, took_s),
        _speed(results),
        _cpu(results),
        _answers(results, plan),
        _systems(facts),
        _targets(targets(results)),
        _trouble(results),
    ]
    return "\n\n".join(part for part in parts if part)


def _machine(machine: Mapping[str, Any], plan: Plan, took_s: float) -> str:
    postgres = machine["postgres"]
    return (
        f"{machine['cores']} cores {machine['cpu']}, Linux {machine['kernel']}, "
        f"Python {machine['python']}, load before {machine['load_1m']}\n"
        f"Postgres {postgres['server_version']} (fsync {postgres['fsync']}, synchronous_commit "
        f"{postgres['synchronous_commit']}): one commit {machine['one_commit_ms']} ms; "
        f"Redis {machine['redis']} (in memory): one round trip "
        f"{machine['redis_round_trip_ms']} ms\n"
        f"{plan.rounds} round(s) in rotating order, {plan.jobs} no-op jobs end to end, one worker "
        f"of concurrency {plan.concurrency}, {plan.probes} idle dispatches a round; {took_s} s"
    )


def _speed(results: Results) -> str:
    header = ["", *(f"submits/s at {n}" for n in IN_FLIGHT), "jobs/s end to end"]
    header += ["idle p50 ms", "idle p99 ms"]
    rows = []
    for name, result in results.items():
        p99 = _pooled(result, 0.99)
        rows.append(
            [
                name,
                *(_cell(result.submits_per_s[n], _whole) for n in IN_FLIGHT),
                _cell(result.jobs_per_s, _whole),
                _cell(_shares(result, 0.5), _fine),
                NOTHING if p99 is None else _fine(p99),
            ]
        )
    return table(header, rows)


def _cpu(results: Results) -> str:
    rows = []
    for name, result in results.items():
        whole = [sum(parts) for parts in zip(*result.cpu_ms.values(), strict=True)]
        rows.append(
            [name, _cell(whole, _fine), *(_cell(result.cpu_ms[part], _fine) for part in PARTS)]
        )
    return table(["CPU ms per job, end to end", "all", *PARTS], rows)


def _answers(results: Results, plan: Plan) -> str:
    header = [
        f"{plan.low} low, then {plan.high} high",
        "mean rank of high",
        "last of high",
        "kill -9: elsewhere p50",
        "p99",
        "kills",
        "by default",
        "hung: worst",
    ]
    rows = []
    for name, result in results.items():
        mean = _mean_rank(result)
        rows.append(
            [
                name,
                NOTHING if mean is None else f"{mean:.1f}",
                str(result.ranks[-1]) if result.ranks else NOTHING,
                *_back(result.recoveries_s, plan),
                _untuned(result, plan),
                _seconds(_recovery(result.hung_s, 1.0)),
            ]
        )
    best = (plan.high + 1) / 2
    note = (
        f"The best mean rank is {best:.1f}, first come first served gives {plan.low + best:.1f}. "
        f"After a kill: peers tuned to {SILENCE_MS // 1000} s of silence, and with their defaults."
    )
    return f"{table(header, rows)}\n{note}"


def _back(found: Sequence[float | None], plan: Plan) -> list[str]:
    lost = found.count(None)
    p50, p99 = (_seconds(_recovery(found, share)) for share in (0.5, 0.99))
    if lost:
        p99 = f"not within {plan.recovery_cap_s:.0f} s ({lost})"
    return [p50, p99, str(len(found)) if found else NOTHING]


def _untuned(result: Result, plan: Plan) -> str:
    if None in result.untuned_s:
        return f"not within {plan.recovery_cap_s:.0f} s"
    return _seconds(_recovery(result.untuned_s, 1.0))


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f} s"


def _systems(facts: Facts) -> str:
    return table(
        ["system", "version", "durable", "set-up", "priority", "after a kill"],
        [
            [
                name,
                *(fact.get(key, "") for key in ("version", "durable", "setup", "priority", "kill")),
            ]
            for name, fact in facts.items()
        ],
    )


def _targets(found: Sequence[Target]) -> str:
    if not found:
        return ""
    return table(
        ["target", "wanted", "found", "rounds", "reached"],
        [
            [one.name, one.wanted, one.found, one.rounds, "yes" if one.reached else "NO"]
            for one in found
        ],
    )


def _trouble(results: Results) -> str:
    lines = [f"{name}: {text}" for name, result in results.items() for text in result.trouble]
    return "NOT MEASURED\n" + "\n".join(lines) if lines else ""


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _fine(value: float) -> str:
    return f"{value:.2f}"


def _cell(values: Sequence[float], show: Callable[[float], str]) -> str:
    spread = Spread.of(values)
    if spread is None:
        return NOTHING
    if spread.count == 1:
        return show(spread.median)
    return f"{show(spread.median)} ({show(spread.least)}-{show(spread.most)})"
