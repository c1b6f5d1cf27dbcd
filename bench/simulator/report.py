"""Results of large runs as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]

_ROWS = ("free", "pro", "enterprise")


def named(result: Result) -> str:
    """The discipline, and whether users had a limit of running jobs."""
    scenario = result["scenario"]
    return str(scenario["discipline"]) + ("" if scenario["capped"] else ", no limit")


def table(results: Sequence[Result]) -> str:
    """One block for each tier, a row for each discipline, in Markdown."""
    head = (
        "| tier | discipline | wait p50 | p99 | longest of a first job | refused "
        "| ended by queue time | work done | Jain | share of GPU time |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|"]
    for tier in _ROWS:
        lines += [_row(tier, result) for result in results]
    lines += ["", "| discipline | GPUs busy | jobs accepted | ended | looks at everything |"]
    lines += ["|---|---|---|---|---|"]
    lines += [
        f"| {named(one)} | {one['busy']:.1%} | {one['accepted']:,} | {one['ended']:,} "
        f"| {one['looks']} |"
        for one in results
    ]
    for one in results:
        for plan, found in one["eager"].items():
            number = one["scenario"]["eager"][plan]
            lines.append(
                f"\n{named(one)}: {number} of {plan} who submit all they may got "
                f"{found['served_s'] / 3600:,.1f} GPU-hours, Jain {found['jain']:.4f}"
            )
    return "\n".join(lines)


def _row(tier: str, result: Result) -> str:
    found = result["tiers"][tier]
    asked = max(found["accepted"] + found["refused"], 1)
    cells = (
        tier,
        named(result),
        span(found["wait_p50_s"]),
        span(found["wait_p99_s"]),
        span(found["first_max_s"]),
        f"{found['refused'] / asked:.1%}",
        f"{found['given_up'] / max(found['accepted'], 1):.1%}",
        f"{found['served']:.1%}",
        f"{found['jain']:.3f}",
        f"{found['share']:.1%}",
    )
    return "| " + " | ".join(cells) + " |"


def span(seconds: float) -> str:
    """A duration as one figure with its unit."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:  # noqa: PLR2004 (two digits say enough)
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"
