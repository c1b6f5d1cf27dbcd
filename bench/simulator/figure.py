"""A picture of large runs; needs matplotlib (`bench/simulator/requirements.txt`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bench.simulator.report import Result, named

# Okabe and Ito's palette, which people with any colour vision tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_MARKS = ("o", "s", "^", "D")
_TIERS = ("free", "pro", "enterprise")
_TICKS = {0.1: "0.1 s", 1.0: "1 s", 10.0: "10 s", 60.0: "1 min", 600.0: "10 min", 3600.0: "1 h"}
_FLOOR_S = 0.1


def draw(results: Sequence[Result], path: Path) -> None:
    """Writes waits by hour, p99 of each tier, one panel a tier; SVG or PNG by the name."""
    figure = Figure(figsize=(11, 4.2), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(_TIERS), sharey=True)
    for panel, tier in zip(panels, _TIERS, strict=True):
        _panel(panel, tier, results)
    panels[0].set_ylabel("wait until the first start, p99 of the hour")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(results), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)


def _panel(panel: Axes, tier: str, results: Sequence[Result]) -> None:
    for place, result in enumerate(results):
        begins = result["plot"]["from_hour"]
        waits = result["tiers"][tier]["hourly_p99_s"]
        panel.plot(
            [(begins + hour) for hour in range(len(waits))],
            [None if wait is None else max(wait, _FLOOR_S) for wait in waits],
            label=named(result),
            color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKS[place % len(_MARKS)],
            markersize=4,
            linewidth=1.6,
        )
    panel.set_title(tier)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(FixedLocator(list(_TICKS)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_yticklabels(list(_TICKS.values()))
    panel.set_ylim(_FLOOR_S * 0.8, 9_000)
    panel.set_xlabel("hour of acceptance")
    panel.grid(visible=True, color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
