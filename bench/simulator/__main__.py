"""The command line: `python -m bench.simulator --help`."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.simulator.day import Day, Scenario
from bench.simulator.disciplines import DISCIPLINES
from bench.simulator.faults import faults, told
from bench.simulator.invariants import Violated
from bench.simulator.report import Result, table
from bench.simulator.small import HARSH, Small, command

_COMMON = "crash=0.01,hang=0.005,cut=0.02,replica=0.2,flush=0.05,queue=0.1,database=0.05,fail=0.002"
"""Of a fleet on an ordinary day."""


def main(arguments: list[str]) -> int:
    """Runs what was asked for; answers the exit status."""
    chosen = _parser().parse_args(arguments)
    status: int = chosen.run(chosen)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulator",
        description="A seeded simulator of the scheduler: its own policy and rules of leases, "
        "under a model of stores, replicas, workers and what goes wrong with them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(
        commands.add_parser(
            "check", help="many small runs full of faults, every invariant checked at every step"
        )
    )
    _add_day(
        commands.add_parser(
            "day", help="a fleet and its users over a day or less, under one discipline or all"
        )
    )
    report = commands.add_parser("report", help="results that `day --json` wrote, side by side")
    report.add_argument("files", nargs="+", type=Path)
    report.add_argument("--plot", type=Path, metavar="FILE", help=_PLOT)
    report.set_defaults(run=_report)
    return parser


_PLOT = "a picture, .svg or .png; needs bench/simulator/requirements.txt"


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("--seeds", type=int, default=0, metavar="FIRST", help="default: 0")
    check.add_argument("--count", type=int, default=100, help="how many seeds; default: 100")
    check.add_argument("--steps", type=int, default=4_000, help="of each run; default: 4000")
    check.add_argument(
        "--faults",
        type=faults,
        default=HARSH,
        metavar="NAME=RATE,…",
        help=f"rates as bench/simulator/faults.py names them, or none; default: {told(HARSH)}",
    )
    check.set_defaults(run=_check)


def _add_day(day: argparse.ArgumentParser) -> None:
    plain = Scenario()
    day.add_argument("--gpus", type=int, default=plain.gpus, help="default: %(default)s")
    day.add_argument("--users", type=int, default=plain.users, help="default: %(default)s")
    day.add_argument("--hours", type=float, default=plain.hours, help="default: %(default)s")
    day.add_argument(
        "--from-hour", type=float, default=plain.from_hour, help="of the day; default: %(default)s"
    )
    day.add_argument(
        "--load",
        type=float,
        default=plain.load,
        help="work over capacity, mean of a day without bursts; 0: no trace; default: %(default)s",
    )
    day.add_argument("--seed", type=int, default=plain.seed, help="default: %(default)s")
    day.add_argument(
        "--discipline", choices=[*DISCIPLINES, "all"], default="all", help="default: all"
    )
    day.add_argument(
        "--no-limit", action="store_true", help="users may run all that they have open"
    )
    day.add_argument(
        "--eager",
        type=_numbers,
        default={},
        metavar="PLAN=N,…",
        help="users more who keep as many jobs open as their plan allows",
    )
    day.add_argument(
        "--faults",
        type=faults,
        default=faults(_COMMON),
        metavar="NAME=RATE,…",
        help=f"rates as bench/simulator/faults.py names them, or none; default: {_COMMON}",
    )
    day.add_argument("--json", action="store_true", help="results for programs")
    day.add_argument("--plot", type=Path, metavar="FILE", help=_PLOT)
    day.set_defaults(run=_day)


def _numbers(text: str) -> dict[str, int]:
    parts = (part.partition("=") for part in text.split(",") if part)
    return {name: int(number) for name, _, number in parts}


def _day(chosen: argparse.Namespace) -> int:
    gc.disable()  # millions of small objects, hardly a cycle among them: a sixth of the time
    names = list(DISCIPLINES) if chosen.discipline == "all" else [chosen.discipline]
    results = [
        Day(
            Scenario(
                gpus=chosen.gpus,
                users=chosen.users,
                hours=chosen.hours,
                from_hour=chosen.from_hour,
                load=chosen.load,
                seed=chosen.seed,
                discipline=name,
                capped=not chosen.no_limit,
                eager=chosen.eager,
                faults=chosen.faults,
            )
        ).run()
        for name in names
    ]
    _show(results, as_json=chosen.json, plot=chosen.plot)
    return 0


def _report(chosen: argparse.Namespace) -> int:
    results = [one for file in chosen.files for one in json.loads(file.read_text())]
    _show(results, as_json=False, plot=chosen.plot)
    return 0


def _show(results: Sequence[Result], *, as_json: bool, plot: Path | None) -> None:
    print(json.dumps(results) if as_json else table(results))
    if plot is not None:
        from bench.simulator.figure import draw  # noqa: PLC0415 (a library that few need)

        draw(results, plot)


def _check(chosen: argparse.Namespace) -> int:
    began_s = time.perf_counter()
    broken, jobs, simulated_s = 0, 0, 0.0
    for done, seed in enumerate(range(chosen.seeds, chosen.seeds + chosen.count)):
        try:
            outcome = Small(seed, faults=chosen.faults).run(chosen.steps)
        except Violated as error:
            broken += 1
            print(f"seed {seed}: {error}\n  again: {command(seed, chosen.steps)}")
            continue
        jobs += outcome.accepted
        simulated_s += outcome.seconds
        if (done + 1) % 20 == 0:
            print(f"\r{done + 1} of {chosen.count} seeds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(
        f"{chosen.count} runs of {chosen.steps} steps, {jobs} jobs, {simulated_s / 3600:.1f} hours "
        f"simulated in {time.perf_counter() - began_s:.0f} s: {broken} broke an invariant"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
