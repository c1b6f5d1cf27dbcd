"""What was found, as a table for people and as one line for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bench.billing.campaign import Plan, Result
from bench.tables import table

_LOCKED = ", FOR UPDATE"


def ratios(results: Mapping[str, Result]) -> dict[str, float]:
    """How much faster each way is than the same behind a lock: the median over rounds."""
    found = {}
    for name, result in results.items():
        locked = results.get(name + _LOCKED)
        if locked is not None:
            pairs = zip(result.holds_per_s, locked.holds_per_s, strict=True)
            found[name] = statistics.median(ours / theirs for ours, theirs in pairs)
    return found


def as_json(
    machine: Mapping[str, Any], plan: Plan, results: Mapping[str, Result], breaches: int
) -> str:
    """One line: machine, plan, every figure of every round, ratios, ledger-check."""
    return json.dumps(
        {
            "machine": machine,
            "plan": asdict(plan),
            "ways": {
                name: {"holds_per_s": result.rate, "rounds": asdict(result)}
                for name, result in results.items()
            },
            "ratios": ratios(results),
            "ledger_check_findings": breaches,
        }
    )


def as_text(
    machine: Mapping[str, Any], plan: Plan, results: Mapping[str, Result], breaches: int
) -> str:
    """Tables."""
    rows = [
        (
            name,
            f"{result.rate:,.0f}",
            f"{min(result.holds_per_s):,.0f} to {max(result.holds_per_s):,.0f}",
            f"{statistics.median(result.p50_ms):.1f}",
            f"{statistics.median(result.p99_ms):.1f}",
            f"{statistics.median(result.granted):,.0f}",
            f"{sum(result.wrong_by)}",
        )
        for name, result in results.items()
    ]
    header = ("way", "holds/s", "of rounds", "p50 ms", "p99 ms", "granted", "wrong by")
    faster = ", ".join(f"{name} {ratio:.2f} times" for name, ratio in ratios(results).items())
    return (
        f"{plan.holds:,} holds on one account over {plan.connections} connections, "
        f"{plan.rounds} rounds, medians\n"
        f"{machine['cores']} cores, {machine['cpu']}, one commit {machine['one_commit_ms']} ms, "
        f"load {machine['load_1m']}\n\n{table(header, rows)}\n\n"
        f"as fast as behind FOR UPDATE: {faster}\n"
        f"ledger-check: {breaches} findings"
    )
