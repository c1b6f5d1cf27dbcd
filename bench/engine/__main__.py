"""`python -m bench.engine`: our engine beside stock diffusers and LitServe, in one run."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.engine import peer
from bench.engine.campaign import SYSTEMS, Campaign, Pinning
from bench.engine.plan import MODELS, QUICK, Plan
from bench.engine.report import as_json, as_text
from bench.queue.processes import Failed

_OUT = Path(__file__).parents[2] / "out" / "bench"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine",
        description="Our engine beside stock diffusers, static batching and LitServe: the same "
        "tiny models, requests and pictures for all, one CPU thread each. About twelve minutes on "
        "two quiet cores. Ends with 1 if a picture was lost.",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"turns of each system (default {Plan().rounds})"
    )
    parser.add_argument(
        "--only",
        type=_some_of(SYSTEMS),
        default=list(SYSTEMS),
        metavar="A,B",
        help=f"these systems beside stock, of {', '.join(SYSTEMS)}",
    )
    parser.add_argument(
        "--models",
        type=_some_of(MODELS),
        default=list(MODELS),
        metavar="A,B",
        help=f"these models alone, of {', '.join(MODELS)}",
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
        help="where models, packages and logs go (default out/bench)",
    )
    return parser.parse_args()


def _some_of(known: Sequence[str]) -> Any:  # noqa: ANN401 (what argparse calls a type)
    def names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        unknown = set(found) - set(known)
        if unknown or not found:
            raise argparse.ArgumentTypeError(f"choose of {', '.join(known)}")
        return found

    return names


def _cancel_on_signals(task: asyncio.Task[Any]) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def cancel() -> None:
        for number in signals:  # a second one must not cut the tidying up short
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, cancel)


def machine(pinning: Pinning, load_1m: float) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": load_1m,
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        "litserve": peer.version(),
        "pinned": pinning.text,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


async def _run(arguments: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (we are in one)
    _cancel_on_signals(task)
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s  {text}", file=sys.stderr, flush=True)

    plan = QUICK if arguments.quick else Plan()
    plan = replace(plan, rounds=arguments.rounds or plan.rounds)
    load_1m = round(os.getloadavg()[0], 2)
    campaign = Campaign(arguments.out / "engine", plan, arguments.models, say)
    await campaign.run(arguments.only)
    write = as_json if arguments.json else as_text
    took_s = round(time.monotonic() - began_s)
    print(write(machine(campaign.pinning, load_1m), plan, campaign.results, took_s))
    return 1 if campaign.results.lost else 0


def main() -> int:
    """Runs and prints; 1 if a picture was lost or stock diffusers do not run, 130 after Ctrl-C."""
    arguments = _arguments()
    folder: Path = arguments.out / "engine"
    shutil.rmtree(folder / "logs", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return asyncio.run(_run(arguments))
    except Failed as error:
        print(f"bench-engine: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("bench-engine: interrupted; all processes have been ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
