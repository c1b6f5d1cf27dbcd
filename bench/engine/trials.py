"""What our engine alone is asked: a job by itself, one before which others step aside, a cancel.

Times are taken on the event loop, where the worker would hear of them; a step counts when its
progress arrives.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from bench.engine.drawing import Artist, image_of
from bench.engine.pictures import fault_of
from bench.engine.results import Alone, Cancelled, Heard, Preemption, forward_s
from bench.engine.stock import Stock
from bench.engine.trace import GUIDANCES, SAMPLERS, Request
from easel_kit.ids import AttemptId, new_attempt_id
from gpu_worker.domain.drawing import StepProgress, Stopped

_PROMPT = "a red circle on a white background"
_ALONE_STEPS = 20
_LONG_STEPS = 100
_SHORT_STEPS = 4
_GUIDANCE = 2.5
_SEEDS = 2**32
_SEEN = 4
"""Steps of one job by which the running batch's step time is judged."""
_PATIENCE_S = 60.0


class Broken(Exception):
    """The engine did not do what was asked of it."""


# --- alone


async def alone(artist: Artist, stock: Stock, model: str, pairs: int) -> list[Alone]:
    """Interleaved pairs, each in the other order than the one before.

    Raises:
        Broken: a picture is not what it should be.
    """
    found = []
    for n in range(pairs):
        asked = Request(model, _PROMPT, _ALONE_STEPS, _GUIDANCE, "ddim", n)
        if n % 2:
            ours_s = await _ours_s(artist, asked)
            stock_s = _stock_s(stock, asked)
        else:
            stock_s = _stock_s(stock, asked)
            ours_s = await _ours_s(artist, asked)
        found.append(Alone(stock_s, ours_s))
    return found


def _stock_s(stock: Stock, asked: Request) -> float:
    began_s = time.perf_counter()
    (image,) = stock.draw([asked])
    ended_s = time.perf_counter()
    _check(fault_of(image, asked))
    return ended_s - began_s


async def _ours_s(artist: Artist, asked: Request) -> float:
    began_s = time.perf_counter()
    outcome = await artist.draw(new_attempt_id(), asked)
    ended_s = time.perf_counter()
    _check(fault_of(image_of(outcome), asked))
    return ended_s - began_s


def _check(fault: str) -> None:
    if fault:
        raise Broken(fault)


# --- a busy engine


@dataclass(slots=True)
class _Job:
    """One free job on its way, and when its steps were heard of."""

    attempt_id: AttemptId = field(default_factory=new_attempt_id)
    heard: list[Heard] = field(default_factory=list)
    task: asyncio.Task[Any] | None = None
    steps: int = 0
    """Apart from what was heard, which is forgotten after a pause: a job may end right after it."""

    def progressed(self, progress: StepProgress) -> None:
        self.steps = progress.step
        self.heard.append((progress.step, time.monotonic()))


class _Crowd:
    """So many long jobs, always: each that ends is followed by another."""

    def __init__(self, artist: Artist, model: str, chooser: random.Random) -> None:
        self._artist = artist
        self._model = model
        self._chooser = chooser
        self.jobs: list[_Job] = []

    def start(self, count: int) -> None:
        while len(self.jobs) < count:
            asked = Request(
                self._model,
                _PROMPT,
                _LONG_STEPS,
                self._chooser.choice(GUIDANCES[1:]),
                self._chooser.choice(SAMPLERS),
                self._chooser.randrange(_SEEDS),
            )
            job = _Job()
            job.task = asyncio.create_task(self._artist.draw(job.attempt_id, asked, job.progressed))
            self.jobs.append(job)

    async def settled(self, count: int) -> None:
        """Replaces those that have ended or soon will, and waits until all have stepped."""
        for job in list(self.jobs):
            if job.steps > _LONG_STEPS * 3 // 4 or (job.task is not None and job.task.done()):
                await self.end(job)
        self.start(count)
        ends_s = time.monotonic() + _PATIENCE_S
        while any(len(job.heard) < _SEEN for job in self.jobs):
            if time.monotonic() > ends_s:
                raise Broken("jobs of a busy engine do not step")
            await asyncio.sleep(0.002)

    async def end(self, job: _Job) -> None:
        self.jobs.remove(job)
        self._artist.engine.cancel(job.attempt_id)
        if job.task is not None:
            await asyncio.wait_for(job.task, _PATIENCE_S)

    @property
    def step_s(self) -> float:
        """Of the batch that runs: how far apart its last forwards ended."""
        return forward_s([job.heard[-_SEEN:] for job in self.jobs])


@asynccontextmanager
async def _crowd(artist: Artist, model: str, count: int) -> AsyncIterator[_Crowd]:
    crowd = _Crowd(artist, model, random.Random(count))
    crowd.start(count)
    try:
        yield crowd
    finally:
        for job in list(crowd.jobs):
            await crowd.end(job)


# --- preemption


async def preemptions(artist: Artist, model: str, *, busy: int, count: int) -> list[Preemption]:
    """Paid jobs that come at odd moments while so many free ones run; one of those is parked.

    Raises:
        Broken: the engine cannot park, or does not answer.
    """
    if not artist.parks:
        raise Broken("this engine cannot park")
    chooser = random.Random(count)
    found = []
    async with _crowd(artist, model, busy) as crowd:
        for n in range(count):
            await crowd.settled(busy)
            step_s = crowd.step_s
            await asyncio.sleep(chooser.uniform(0, 2) * step_s)
            paid = Request(model, _PROMPT, _SHORT_STEPS, _GUIDANCE, SAMPLERS[n % len(SAMPLERS)], n)
            delay_s = await asyncio.wait_for(_preempted(artist, crowd, paid), _PATIENCE_S)
            found.append(Preemption(delay_s, step_s))
    return found


async def _preempted(artist: Artist, crowd: _Crowd, paid: Request) -> float:
    """As the scheduler does it: park one, hear that it is, assign the other, resume afterwards."""
    engine = cast("Any", artist.engine)
    victim = crowd.jobs[0]
    stepped: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def progressed(_: StepProgress) -> None:
        if not stepped.done():
            stepped.set_result(time.monotonic())

    began_s = time.monotonic()
    if await engine.park(victim.attempt_id) is None:
        raise Broken("a running job cannot be parked")
    outcome = await artist.draw(new_attempt_id(), paid, progressed)
    _check(fault_of(image_of(outcome), paid))
    if not await engine.resume(victim.attempt_id):
        raise Broken("a parked job cannot be resumed")
    victim.heard.clear()  # its pause is no step time
    return await stepped - began_s


# --- cancelling


async def cancels(artist: Artist, model: str, *, busy: int, count: int) -> list[Cancelled]:
    """Jobs of a busy engine, cancelled at odd moments.

    Raises:
        Broken: the engine does not answer, or with another outcome.
    """
    chooser = random.Random(count)
    found = []
    async with _crowd(artist, model, busy) as crowd:
        for _ in range(count):
            await crowd.settled(busy)
            await asyncio.sleep(chooser.uniform(0, 2) * crowd.step_s)
            job = chooser.choice(crowd.jobs)
            crowd.jobs.remove(job)
            before = job.steps
            artist.engine.cancel(job.attempt_id)
            assert job.task is not None  # noqa: S101 (it was started)
            outcome = await asyncio.wait_for(job.task, _PATIENCE_S)
            if not isinstance(outcome, Stopped):
                raise Broken(f"a cancelled job ended as {type(outcome).__name__}")
            found.append(Cancelled(outcome.steps_done - before, job.steps, outcome.steps_done))
    return found
