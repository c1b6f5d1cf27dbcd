"""The command line: `python -m bench.simulator --help`."""

from __future__ import annotations

import argparse
import sys
import time

from bench.simulator.faults import faults, told
from bench.simulator.invariants import Violated
from bench.simulator.small import HARSH, Small, command


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
    check = commands.add_parser(
        "check", help="many small runs full of faults, every invariant checked at every step"
    )
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
    return parser


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
