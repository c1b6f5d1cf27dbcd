"""The child's side of a host without HTTP: one JSON line in, one JSON line out.

    {"op": "play", "arrivals": [...]}              -> a phase
    {"op": "costs", "model": "tiny", "repeats": 9}   -> {"forward 1": 8.1, ...}
    ... and what else a host knows

A line that cannot be obeyed is answered with {"trouble": "..."}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import warnings
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from bench.queue.processes import cpu_s, tree

Ops = Mapping[str, Callable[[dict[str, Any]], Awaitable[object]]]


def arguments(role: str) -> argparse.Namespace:
    """What every host is told; settles this process on its core and on one thread.

    Processes that it starts inherit the core.
    """
    parser = argparse.ArgumentParser(prog=role)
    parser.add_argument("--models-dir", type=Path, required=True)
    parser.add_argument("--models", required=True, help="keys, separated by commas")
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1, help="requests drawn at once, at most")
    parser.add_argument("--window-s", type=float, default=0.0, help="how long for a full batch")
    parser.add_argument("--slots", type=int, default=1, help="jobs that the engine is given")
    parser.add_argument("--prepare", type=int, default=0, help="1: make the models directory first")
    parser.add_argument("--port", type=int, default=0, help="where it answers, on loopback")
    found = parser.parse_args()
    found.models = found.models.split(",")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {found.core})
    settle()
    return found


def settle() -> None:
    """One thread for every operation of torch in this process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def own_cpu_s() -> float:
    """CPU seconds of this process and all below it, so far."""
    return cpu_s(tree([os.getpid()]))


def claim_stdout() -> TextIO:
    """Keeps stdout for the protocol: whatever else is printed goes to stderr from now on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


async def serve(out: TextIO, ops: Ops) -> None:
    """Answers to `out` until stdin ends."""
    print(json.dumps({"ready": os.getpid()}), file=out, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        try:
            answer = await ops[asked["op"]](asked)
        except Exception as error:  # noqa: BLE001 (reported to the parent, which judges it)
            answer = {"trouble": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)
