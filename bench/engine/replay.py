"""Asks for the pictures of a trace at their times, and keeps what came back and how late.

Two ways: one by one on the calling thread, for pipelines that know nothing else, and as tasks of
an event loop. Arrival times are known beforehand, so the first needs no second thread that asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from bench.engine.batching import next_batch
from bench.engine.pictures import fault_of
from bench.engine.trace import Arrival, Request

Draw = Callable[[Sequence[Request]], Sequence[Image.Image]]
Ask = Callable[[Request], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request."""

    latency_s: float
    """From its arrival."""
    answer: object = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """One request, judged."""

    steps: int
    latency_s: float
    fault: str
    """Why there is no good picture; empty when there is one."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One system's way through one trace."""

    wall_s: float
    cpu_s: float
    """Of all processes that served."""
    served: tuple[Served, ...]


def judged(
    arrivals: Sequence[Arrival],
    replies: Sequence[Reply],
    read: Callable[[object], Image.Image],
) -> tuple[Served, ...]:
    """Every request with what is wrong with its picture."""
    return tuple(
        Served(arrival.request.steps, reply.latency_s, _fault(arrival.request, reply, read))
        for arrival, reply in zip(arrivals, replies, strict=True)
    )


def _fault(asked: Request, reply: Reply, read: Callable[[object], Image.Image]) -> str:
    if reply.trouble:
        return reply.trouble
    try:
        return fault_of(read(reply.answer), asked)
    except ValueError as error:
        return str(error)


def play(arrivals: Sequence[Arrival], draw: Draw, *, most: int, window_s: float) -> list[Reply]:
    """One batch after the other; with `most` 1: one request after the other, first come first."""
    replies: dict[int, Reply] = {}
    ahead = list(range(len(arrivals)))
    began_s = time.monotonic()
    while ahead:
        now_s = time.monotonic() - began_s
        waiting = [place for place in ahead if arrivals[place].at_s <= now_s]
        if not waiting:
            time.sleep(arrivals[ahead[0]].at_s - now_s)
            continue
        came = [arrivals[place] for place in waiting]
        chosen, until_s = next_batch(came, now_s, most=most, window_s=window_s)
        if until_s > now_s:
            coming_s = [arrivals[place].at_s for place in ahead[len(waiting) :]]
            time.sleep(min([until_s, *coming_s[:1]]) - now_s)
            continue
        batch = [waiting[place] for place in chosen]
        pictures = draw([arrivals[place].request for place in batch])
        ended_s = time.monotonic() - began_s
        for place, picture in zip(batch, pictures, strict=True):
            replies[place] = Reply(ended_s - arrivals[place].at_s, picture)
        ahead = [place for place in ahead if place not in replies]
    return [replies[place] for place in range(len(arrivals))]


async def ask_all(arrivals: Sequence[Arrival], ask: Ask) -> list[Reply]:
    """Every request at its time, whatever became of those before."""
    began_s = time.monotonic()

    async def one(arrival: Arrival) -> Reply:
        await asyncio.sleep(max(0.0, began_s + arrival.at_s - time.monotonic()))
        answer, trouble = None, ""
        try:
            answer = await ask(arrival.request)
        except Exception as error:  # noqa: BLE001 (counted as lost, with its reason)
            trouble = f"{type(error).__name__}: {error}"
        return Reply(time.monotonic() - began_s - arrival.at_s, answer, trouble)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(arrival)) for arrival in arrivals]
    return [task.result() for task in tasks]
