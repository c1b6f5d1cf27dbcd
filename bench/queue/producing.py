"""The producer's side of the protocol: one JSON line in, one JSON line out.

Nothing but the standard library: each peer's producer imports it in its own environment, hands in
its library's own call for one submit, and is driven over stdin and stdout:

    {"op": "burst", "first": 1, "most": 1000, "seconds": 1.0, "in_flight": 10}
        submits jobs 1, 2, … until the time or the count is reached
        -> {"count": 812, "seconds": 1.001}
    {"op": "put", "jobs": [[1, 0, false], …], "gaps_s": [0.03, …]}
        submits one after the other (number, milliseconds to hold the worker, high priority), with
        pauses between
        -> {"at_s": [12.3, …]}   when each submit was called, monotonic clock

Anything that a library prints goes to stderr; stdout belongs to the protocol.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TextIO


class Job(NamedTuple):
    """A job that does nothing but say that it ran."""

    number: int
    hold_ms: int = 0
    """How long its handler sleeps."""
    high: bool = False
    """Of high priority."""


def setting(name: str) -> str:
    """What the benchmark told this process under that name; empty if nothing."""
    return os.environ.get(f"BENCH_{name}", "")  # noqa: TID251 (peers run without our kit)


def _claim_stdout() -> TextIO:
    """Keeps stdout for the protocol: prints of libraries go to stderr from now on."""
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return protocol


def _answer(protocol: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=protocol, flush=True)


async def serve(submit: Callable[[Job], Awaitable[object]]) -> None:
    """Serves a producer whose library submits asynchronously, until stdin ends."""
    protocol = _claim_stdout()
    _answer(protocol, {"ready": os.getpid()})
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(line)
        if request["op"] == "burst":
            answer = await _burst(submit, **_bounds(request))
        else:
            at_s = []
            for fields, gap_s in zip(request["jobs"], request["gaps_s"], strict=True):
                at_s.append(time.monotonic())
                await submit(Job(*fields))
                if gap_s:
                    await asyncio.sleep(gap_s)
            answer = {"at_s": at_s}
        _answer(protocol, answer)


async def _burst(
    submit: Callable[[Job], Awaitable[object]],
    *,
    first: int,
    most: int,
    seconds: float,
    in_flight: int,
) -> dict[str, Any]:
    numbers = iter(range(first, first + most))
    count = 0
    began_s = time.monotonic()
    ends_s = began_s + seconds

    async def lane() -> None:
        nonlocal count
        for number in numbers:
            await submit(Job(number))
            count += 1
            if time.monotonic() >= ends_s:
                return

    await asyncio.gather(*(lane() for _ in range(in_flight)))
    return {"count": count, "seconds": time.monotonic() - began_s}


def serve_threads(submit: Callable[[Job], object]) -> None:
    """Serves a producer whose library blocks its caller: one thread for each job in flight."""
    protocol = _claim_stdout()
    _answer(protocol, {"ready": os.getpid()})
    while line := sys.stdin.readline():
        request = json.loads(line)
        if request["op"] == "burst":
            answer = _threaded_burst(submit, **_bounds(request))
        else:
            at_s = []
            for fields, gap_s in zip(request["jobs"], request["gaps_s"], strict=True):
                at_s.append(time.monotonic())
                submit(Job(*fields))
                if gap_s:
                    time.sleep(gap_s)
            answer = {"at_s": at_s}
        _answer(protocol, answer)


def _threaded_burst(
    submit: Callable[[Job], object], *, first: int, most: int, seconds: float, in_flight: int
) -> dict[str, Any]:
    numbers = iter(range(first, first + most))
    lock = threading.Lock()
    done: list[int] = []
    began_s = time.monotonic()
    ends_s = began_s + seconds

    def lane() -> None:
        count = 0
        while time.monotonic() < ends_s:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            submit(Job(number))
            count += 1
        done.append(count)

    threads = [threading.Thread(target=lane) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"count": sum(done), "seconds": time.monotonic() - began_s}


def _bounds(request: dict[str, Any]) -> dict[str, Any]:
    return {name: request[name] for name in ("first", "most", "seconds", "in_flight")}
