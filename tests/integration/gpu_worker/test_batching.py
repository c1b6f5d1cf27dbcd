"""Many jobs at once, coming and going: each picture is what stock diffusers draws for it alone."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from easel_kit.ids import AttemptId, new_attempt_id
from gpu_worker.domain.drawing import Drawn, Raster, StepProgress, Stopped
from gpu_worker.domain.generation import Generation, InitImage
from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.job import JobState
from gpu_worker.engine.model import Rows
from tests.fakes.gpu_worker import SHAPES, generation, raster
from tests.fakes.gpu_worker_models import (
    Denoise,
    Recorder,
    Stock,
    Wrapped,
    faulty,
    running_engine,
)
from tests.fakes.gpu_worker_stock import ALL, drawn_alone

PROMPTS = (
    "a red circle on a white background",
    "two green hearts on a purple background",
    "a small blue star above a yellow cross on a black background",
)


def _half() -> Raster:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, 32:] = 255
    return Raster(64, 64, pixels.tobytes())


def _stripes() -> Raster:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[::8] = (255, 40, 0)
    return Raster(64, 64, pixels.tobytes())


INPUTS = {"grey": raster(100), "stripes": _stripes(), "half": _half()}


def jobs(count: int, seed: int) -> list[Generation]:
    """Jobs that differ in all that may differ within a batch, each with a seed of its own."""
    rng = random.Random(seed)
    made: list[Generation] = []
    for index in range(count):
        sampler = ALL[index % len(ALL)]
        init = None
        if index % 3 == 1:
            mask = "half" if index % 2 else ""
            init = InitImage(rng.choice(["grey", "stripes"]), rng.choice([0.5, 0.8, 1.0]), mask)
        made.append(
            generation(
                prompt=rng.choice(PROMPTS),
                negative_prompt=rng.choice(["", "a blue square"]),
                sampler=sampler,
                steps=rng.randint(3, 9),
                guidance=rng.choice([1.0, 2.5, 4.0]),
                seed=1000 * seed + 10 * index,
                image_count=2 if index % 5 == 4 else 1,
                init_image=init,
            )
        )
    return made


@dataclass(slots=True)
class Traffic:
    """Has jobs come, go, park and resume as the steps of all of them pass."""

    engine: AsyncEngine
    rng: random.Random
    steps: int = 0
    parked: int = 0

    def note(self, _progress: StepProgress) -> None:
        self.steps += 1

    async def reach(self, steps: int) -> None:
        """Until so many steps have passed, or nothing moves."""
        for _ in range(400):
            if self.steps >= steps:
                return
            await asyncio.sleep(0.002)

    async def run(self, asked: Generation, at: int) -> Drawn:
        """One job, from when so many steps have passed; perhaps it is parked for some."""
        await self.reach(at)
        attempt_id = new_attempt_id()
        drawing = asyncio.ensure_future(self.engine.draw(attempt_id, asked, INPUTS, self.note))
        if self.rng.random() < 0.5:
            await self._park(attempt_id)
        outcome = await drawing
        assert isinstance(outcome, Drawn), outcome
        return outcome

    async def _park(self, attempt_id: AttemptId) -> None:
        await self.reach(self.steps + self.rng.randint(1, 6))
        if await self.engine.park(attempt_id) is not None:
            self.parked += 1
        await self.reach(self.steps + self.rng.randint(1, 12))
        await self.engine.resume(attempt_id)

    async def leave_early(self, at: int) -> None:
        """A job that is cancelled under way."""
        await self.reach(at)
        attempt_id = new_attempt_id()
        long = generation(steps=60, seed=self.rng.randrange(2**31))
        drawing = asyncio.ensure_future(self.engine.draw(attempt_id, long, {}, self.note))
        await self.reach(self.steps + 5)
        self.engine.cancel(attempt_id)
        assert isinstance(await drawing, Stopped)


@dataclass(slots=True)
class Worst:
    """The largest differences from stock over all pictures."""

    latents: float = 0.0
    levels: int = 0
    mean_rows: float = 0.0
    parked: int = 0


async def worst_of(
    engine: AsyncEngine, recorder: Recorder, stock: Stock, asked: list[Generation], seed: int
) -> Worst:
    """Runs all jobs in random traffic and compares each of their pictures."""
    await engine.load(SHAPES)
    traffic = Traffic(engine, random.Random(seed))
    arrivals = sorted(traffic.rng.randrange(8 * len(asked)) for _ in asked)
    running = [traffic.run(job, at) for job, at in zip(asked, arrivals, strict=True)]
    leaving = [traffic.leave_early(traffic.rng.randrange(40)) for _ in range(3)]
    drawn, _ = await asyncio.gather(asyncio.gather(*running), asyncio.gather(*leaving))
    worst = Worst(parked=traffic.parked)
    for job, outcome in zip(asked, drawn, strict=True):
        worst.mean_rows = max(worst.mean_rows, outcome.figures.mean_rows)
        for picture in outcome.pictures:
            alone = replace(job, image_count=1, seed=picture.seed)
            latents, pixels = drawn_alone(stock, alone, INPUTS)
            ours = recorder.made[-1].latents.pop(picture.seed)
            worst.latents = max(worst.latents, float((ours - latents).abs().max()))
            worst.levels = max(worst.levels, _levels(job, picture.raster.rgb, pixels))
    return worst


def _levels(job: Generation, ours: bytes, theirs: bytes) -> int:
    one, two = (np.frombuffer(data, dtype=np.uint8).astype(int) for data in (ours, theirs))
    apart = np.abs(one - two).reshape(64, 64, 3)
    if job.init_image and job.init_image.mask_object_key:
        kept = np.frombuffer(INPUTS[job.init_image.object_key].rgb, dtype=np.uint8)
        assert (one.reshape(64, 64, 3)[:, :32] == kept.reshape(64, 64, 3)[:, :32]).all()
        apart = apart[:, 32:]  # we keep what is outside of the mask, stock draws it once more
    return int(apart.max())


def _count(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--engine-jobs"))


async def test_in_double_precision_company_changes_nothing(
    request: pytest.FixtureRequest, stock_double: Stock
) -> None:
    recorder = Recorder()
    with running_engine(recorder, dtype="float64") as engine:
        worst = await worst_of(engine, recorder, stock_double, jobs(_count(request), 1), 1)
    assert worst.mean_rows > 3  # they did share forwards
    assert worst.parked > 0
    assert worst.latents < 1e-9
    assert worst.levels == 0


@pytest.mark.parametrize("seed", [2, 3])
async def test_in_single_precision_company_costs_one_level_at_most(
    request: pytest.FixtureRequest, stock: Stock, seed: int
) -> None:
    recorder = Recorder()
    with running_engine(recorder) as engine:
        worst = await worst_of(engine, recorder, stock, jobs(_count(request), seed), seed)
    assert worst.mean_rows > 3
    assert worst.parked > 0
    assert worst.levels <= 1


# --- the comparison itself must be able to fail -----------------------------------------------


def _shared_timestep(model: Wrapped, rows: Rows) -> torch.Tensor:
    return model.model.denoise(
        replace(rows, timesteps=rows.timesteps[:1].expand_as(rows.timesteps))
    )


def _rolled_prompts(model: Wrapped, rows: Rows) -> torch.Tensor:
    rolled = {name: tensor.roll(2, dims=0) for name, tensor in rows.conditioning.items()}
    return model.model.denoise(replace(rows, conditioning=rolled))


def _one_step_late(model: Wrapped, rows: Rows) -> torch.Tensor:
    return model.model.denoise(replace(rows, timesteps=(rows.timesteps + 1).clamp(max=999)))


def _neighbours_prediction(model: Wrapped, rows: Rows) -> torch.Tensor:
    return model.model.denoise(rows).roll(2, dims=0)


@pytest.mark.parametrize(
    "fault", [_shared_timestep, _rolled_prompts, _one_step_late, _neighbours_prediction]
)
async def test_a_planted_fault_is_seen_in_company(stock: Stock, fault: Denoise) -> None:
    recorder = Recorder(faulty(fault))
    with running_engine(recorder) as engine:
        worst = await worst_of(engine, recorder, stock, jobs(7, 4), 4)
    assert worst.levels > 1


async def test_another_jobs_generator_is_seen_in_company(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[torch.Generator] = []
    add = JobState.add_picture

    def share(job: JobState, index: int) -> None:
        add(job, index)
        picture = job.pictures[-1]
        work = picture.work
        assert hasattr(work, "options")
        first.append(picture.generator)
        if "generator" in work.options:
            work.options = {**work.options, "generator": first[0]}

    monkeypatch.setattr(JobState, "add_picture", share)
    asked = [replace(job, sampler="euler_a", init_image=None) for job in jobs(4, 5)]
    recorder = Recorder()
    with running_engine(recorder) as engine:
        worst = await worst_of(engine, recorder, stock, asked, 5)
    assert worst.levels > 1


async def test_a_forward_that_failed_moves_nothing(stock: Stock) -> None:
    """Every third forward ends in an error after it has done its work."""
    forwards = 0

    def flaky(model: Wrapped, rows: Rows) -> torch.Tensor:
        nonlocal forwards
        forwards += 1
        prediction = model.model.denoise(rows)
        if forwards % 3 == 0 and rows.samples.shape[0] > 2:
            raise RuntimeError("planted")
        return prediction

    recorder = Recorder(faulty(flaky))
    with running_engine(recorder) as engine:
        worst = await worst_of(engine, recorder, stock, jobs(6, 6), 6)
    assert worst.levels <= 1
