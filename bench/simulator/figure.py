"""A picture of large runs; needs matplotlib (`bench/simulator/requirements.txt`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MultipleLocator, NullLocator

from bench.simulator.report import Result, named

# Okabe and Ito's palette, which people with any colour vision tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_MARKS = ("o", "s", "^", "D")
_TIERS = ("free", "pro", "enterprise")
_ROWS = {"hourly_p50_s": "median of the hour", "hourly_p99_s": "p99 of the hour"}
_TICKS = {0.1: "≤ 0.1 s", 1.0: "1 s", 10.0: "10 s", 60.0: "1 min", 600.0: "10 min", 3600.0: "1 h"}
_FLOOR_S = 0.1


def draw(results: Sequence[Result], path: Path) -> None:
    """Writes waits by hour, median and p99, a column for each tier; SVG or PNG by the name."""
    figure = Figure(figsize=(11, 7), layout="constrained", facecolor="white")
    rows = figure.subplots(len(_ROWS), len(_TIERS), sharex=True, sharey=True)
    for row, (key, name) in zip(rows, _ROWS.items(), strict=True):
        for panel, tier in zip(row, _TIERS, strict=True):
            _panel(panel, tier, key, results)
        row[0].set_ylabel(f"wait until the first start, {name}")
    for panel, tier in zip(rows[0], _TIERS, strict=True):
        panel.set_title(tier)
    for panel in rows[-1]:
        panel.set_xlabel("hour of the day in which the job was accepted")
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(results), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)


def _panel(panel: Axes, tier: str, key: str, results: Sequence[Result]) -> None:
    for place, result in enumerate(results):
        begins = result["scenario"]["from_hour"]
        waits = result["tiers"][tier][key]
        panel.plot(
            [(begins + hour) for hour in range(len(waits))],
            [math.nan if wait is None else max(wait, _FLOOR_S) for wait in waits],
            label=named(result),
            color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKS[place % len(_MARKS)],
            markersize=4,
            linewidth=1.6,
        )
    hours = max(len(one["tiers"][tier][key]) for one in results)
    panel.xaxis.set_major_locator(MultipleLocator(math.ceil(hours / 6)))
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(FixedLocator(list(_TICKS)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_yticklabels(list(_TICKS.values()))
    panel.set_ylim(_FLOOR_S * 0.8, 9_000)
    panel.grid(visible=True, color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
