"""A picture is bit for bit what stock diffusers draws for that job alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.model import Rows, Tensors
from gpu_worker.engine.samplers import SAMPLERS
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import (
    Denoise,
    Recorder,
    Stock,
    Wrapped,
    copy_model,
    drawn,
    faulty,
    running_engine,
)
from tests.fakes.gpu_worker_stock import ALL, Result, drawn_alone, drawn_by_us, same


def near(one: Result, two: Result) -> bool:
    """Latents of another batch size: kernels add in another order."""
    apart = max(abs(a - b) for a, b in zip(one[1], two[1], strict=True))
    return bool((one[0] - two[0]).abs().max() < 1e-3) and apart <= 1


def test_the_table_of_samplers_is_compared_in_full() -> None:
    assert set(ALL) == set(SAMPLERS)


@pytest.mark.parametrize("guidance", [2.5, 1.0])
@pytest.mark.parametrize("sampler", ALL)
async def test_alone_it_is_bitwise_stock(
    engine: AsyncEngine, recorder: Recorder, stock: Stock, sampler: str, guidance: float
) -> None:
    asked = generation(sampler=sampler, guidance=guidance, steps=7, seed=2**32 - 1)
    assert same(await drawn_by_us(engine, recorder, asked), drawn_alone(stock, asked, {}))


@pytest.mark.parametrize(
    "changes",
    [
        {"negative_prompt": "a blue square", "guidance": 4.0},
        {"guidance": 0.0},
        {"steps": 1},
        {"steps": 33},
        {"prompt": "a large red star on the left " * 5},
        {"prompt": "words that nobody taught it, ünïcode too"},
    ],
)
async def test_settings_at_the_edges_are_bitwise_stock(
    engine: AsyncEngine, recorder: Recorder, stock: Stock, changes: dict[str, object]
) -> None:
    asked = generation(**changes)
    assert same(await drawn_by_us(engine, recorder, asked), drawn_alone(stock, asked, {}))


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpmpp_2m"])
async def test_double_precision_is_stock_too(stock_double: Stock, sampler: str) -> None:
    asked = generation(steps=5, sampler=sampler)
    recorder = Recorder()
    with running_engine(recorder, dtype="float64") as engine:
        ours = await drawn_by_us(engine, recorder, asked)
    theirs = drawn_alone(stock_double, asked, {})
    assert ours[0].dtype is torch.float64
    assert (ours[0] - theirs[0]).abs().max() < 1e-9
    assert torch.get_default_dtype() is torch.float32


async def test_other_sizes_are_bitwise_stock(tmp_path: Path, stock: Stock) -> None:
    copy_model(tmp_path, sizes=[])
    asked = generation(width_px=96, height_px=40, steps=4)
    recorder = Recorder()
    with running_engine(recorder, models_dir=tmp_path) as engine:
        ours = await drawn_by_us(engine, recorder, asked)
    assert same(ours, drawn_alone(stock, asked, {}))


async def test_each_of_n_pictures_is_what_its_seed_gives_alone(
    engine: AsyncEngine, recorder: Recorder, stock: Stock
) -> None:
    asked = generation(image_count=3, seed=2**32 - 2, sampler="euler_a", steps=5)
    outcome = await drawn(engine, asked)
    assert outcome.steps_done == 15
    for index, seed in enumerate([2**32 - 2, 2**32 - 1, 0]):
        picture = outcome.pictures[index]
        alone = drawn_alone(stock, replace(asked, image_count=1, seed=seed), {})
        assert picture.seed == seed
        assert near((recorder.made[-1].latents.pop(seed), picture.raster.rgb), alone)


async def test_jobs_at_the_same_time_do_not_disturb_one_another(
    engine: AsyncEngine, recorder: Recorder, stock: Stock
) -> None:
    jobs = [
        generation(
            sampler=sampler,
            seed=100 + index,
            steps=3 + index,
            guidance=(1.0, 2.5, 4.0)[index % 3],
            prompt=f"{('one', 'two', 'three')[index % 3]} red circle",
        )
        for index, sampler in enumerate(ALL)
    ]
    outcomes = await asyncio.gather(*(drawn(engine, asked) for asked in jobs))
    for asked, outcome in zip(jobs, outcomes, strict=True):
        latents = recorder.made[-1].latents.pop(asked.seed)
        ours = (latents, outcome.pictures[0].raster.rgb)
        assert near(ours, drawn_alone(stock, asked, {})), asked.sampler


# --- the comparison itself must be able to fail -----------------------------------------------


def _one_step_late(model: Wrapped, rows: Rows) -> torch.Tensor:
    return model.model.denoise(replace(rows, timesteps=(rows.timesteps + 1).clamp(max=999)))


def _rolled(conditioning: Tensors) -> Tensors:
    return {name: tensor.roll(1, dims=0) for name, tensor in conditioning.items()}


def _prompts_rolled(model: Wrapped, rows: Rows) -> torch.Tensor:
    return model.model.denoise(replace(rows, conditioning=_rolled(rows.conditioning)))


def _slightly_off(model: Wrapped, rows: Rows) -> torch.Tensor:
    return torch.nextafter(model.model.denoise(rows), torch.tensor(torch.inf))


@pytest.mark.parametrize("fault", [_one_step_late, _prompts_rolled, _slightly_off])
async def test_a_planted_fault_is_seen(stock: Stock, fault: Denoise) -> None:
    asked = generation()
    recorder = Recorder(faulty(fault))
    with running_engine(recorder) as engine:
        ours = await drawn_by_us(engine, recorder, asked)
    theirs = drawn_alone(stock, asked, {})
    assert not same(ours, theirs)
    assert not torch.equal(ours[0], theirs[0])


async def test_another_jobs_generator_is_seen(
    engine: AsyncEngine, recorder: Recorder, stock: Stock
) -> None:
    asked = generation(sampler="euler_a")
    ours = await drawn_by_us(engine, recorder, replace(asked, seed=8))
    assert not same(ours, drawn_alone(stock, asked, {}))
