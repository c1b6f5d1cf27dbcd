"""`python -m bench.queue`: Easel's scheduler beside its peers, in one interleaved run."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench.queue.campaign import NAMES, Campaign
from bench.queue.plan import QUICK, Plan
from bench.queue.report import as_json, as_text
from bench.queue.servers import facts, serving

_OUT = Path(__file__).parents[2] / "out" / "bench"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.queue",
        description="Easel's scheduler beside Celery, taskiq, pgqueuer and procrastinate: no-op "
        "jobs, the same Postgres and Redis for all, each peer in an environment of its own under "
        "out/bench/venvs. About twelve minutes on two quiet cores.",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"turns of each system (default {Plan().rounds})"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help=f"jobs end to end in each turn (default {Plan().jobs})",
    )
    parser.add_argument(
        "--only", metavar="A,B", default="", help=f"these systems alone, of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one small round in two minutes; figures are rough"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON line on stdout instead of the tables"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=_OUT,
        metavar="DIR",
        help="where environments, data and logs go (default out/bench)",
    )
    arguments = parser.parse_args()
    unknown = {name for name in arguments.only.split(",") if name} - set(NAMES)
    if unknown:
        parser.error(f"--only: no such system: {', '.join(sorted(unknown))}")
    return arguments


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else Plan()
    plan = replace(plan, rounds=arguments.rounds or plan.rounds)
    return replace(plan, jobs=arguments.jobs or plan.jobs)


def _cancel_on_signals(task: asyncio.Task[str]) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def cancel() -> None:
        for number in signals:  # a second one must not cut the tidying up short
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, cancel)


async def _run(arguments: argparse.Namespace) -> str:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (we are in one)
    _cancel_on_signals(task)
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s  {text}", file=sys.stderr, flush=True)

    plan = _plan(arguments)
    names = [name for name in arguments.only.split(",") if name] or list(NAMES)
    folder: Path = arguments.out / "run"
    async with serving(folder) as servers:
        machine = await facts(servers)
        say(f"{machine['cores']} cores, {machine['cpu']}, load {machine['load_1m']}")
        campaign = Campaign(servers, folder, plan, say)
        await campaign.run(names)
    took_s = round(time.monotonic() - began_s)
    write = as_json if arguments.json else as_text
    return write(machine, plan, campaign.facts, campaign.results, took_s)


def main() -> int:
    """Runs and prints; 130 after Ctrl-C."""
    arguments = _arguments()
    shutil.rmtree(arguments.out / "run", ignore_errors=True)
    for folder in ("run", "venvs"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    try:
        print(asyncio.run(_run(arguments)))
    except asyncio.CancelledError:
        print("bench-queue: interrupted; all processes have been ended", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
