"""A picture to begin with: bit for bit what stock diffusers makes of it, for that job alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from gpu_worker.domain.drawing import Raster, StepProgress
from gpu_worker.domain.generation import Generation, InitImage
from gpu_worker.engine.face import AsyncEngine
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import Recorder, Stock, draw, drawn, running_engine
from tests.fakes.gpu_worker_stock import (
    ALL,
    Result,
    close,
    drawn_by_stock,
    drawn_by_us,
    image,
    same,
    scene,
)

INPUTS = {"start": scene(1)}


def beginning(strength: float = 0.6, **changes: object) -> Generation:
    return generation(init_image=InitImage("start", strength), **changes)


@pytest.fixture(scope="module")
def stock_img2img(stock: Stock) -> Stock:
    pipeline = StableDiffusionImg2ImgPipeline(**stock.components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def by_stock(
    stock_img2img: Stock, asked: Generation, start: Raster = INPUTS["start"], **more: object
) -> Result:
    assert asked.init_image is not None
    options: dict[str, object] = {"image": image(start), "strength": asked.init_image.strength}
    return drawn_by_stock(stock_img2img, asked, **(options | more))


CASES = [
    *((sampler, strength) for sampler in ("ddim", "dpmpp_2m_karras") for strength in (0.35, 1.0)),
    *((sampler, 0.6) for sampler in ALL),
]


@pytest.mark.parametrize(("sampler", "strength"), CASES)
async def test_alone_it_is_bitwise_stock(
    engine: AsyncEngine,
    recorder: Recorder,
    stock_img2img: Stock,
    sampler: str,
    strength: float,
) -> None:
    asked = beginning(strength, sampler=sampler, guidance=2.5 if strength < 1 else 1.0, steps=5)
    ours = await drawn_by_us(engine, recorder, asked, INPUTS)
    assert same(ours, by_stock(stock_img2img, asked))


@pytest.mark.parametrize("sampler", ALL)
async def test_a_strength_too_small_for_one_step_takes_one(
    engine: AsyncEngine, recorder: Recorder, stock_img2img: Stock, sampler: str
) -> None:
    asked = beginning(0.01, sampler=sampler, steps=8)
    ours = await drawn_by_us(engine, recorder, asked, INPUTS)
    assert same(ours, by_stock(stock_img2img, asked, strength=1 / 8))


async def test_a_picture_of_another_size_is_resized(
    engine: AsyncEngine, recorder: Recorder, stock_img2img: Stock
) -> None:
    asked = beginning(steps=4)
    large = scene(2, 150, 91)
    fitting = image(large).resize((64, 64), Image.Resampling.LANCZOS)
    ours = await drawn_by_us(engine, recorder, asked, {"start": large})
    assert same(ours, by_stock(stock_img2img, asked, image=fitting))


async def test_each_of_n_pictures_is_what_its_seed_gives_alone(
    engine: AsyncEngine, recorder: Recorder, stock_img2img: Stock
) -> None:
    asked = beginning(image_count=3, sampler="euler_a", steps=3)
    outcome = await drawn(engine, asked, INPUTS)
    assert outcome.steps_done == 3 * 1
    for index, picture in enumerate(outcome.pictures):
        alone = by_stock(stock_img2img, replace(asked, seed=asked.seed + index))
        latents = recorder.made[-1].latents.pop(picture.seed)
        assert close((latents, picture.raster.rgb), alone)


async def test_only_the_steps_that_run_are_counted(engine: AsyncEngine) -> None:
    heard: list[StepProgress] = []
    await draw(engine, beginning(0.5, steps=9), heard.append, INPUTS)
    assert [progress.step for progress in heard] == [1, 2, 3, 4]
    assert {progress.steps for progress in heard} == {4}


async def test_strangers_in_the_same_forwards_change_nothing(
    stock_img2img: Stock, stock: Stock
) -> None:
    begun = [
        beginning(0.3 + 0.2 * index, sampler=sampler, steps=5 + index, seed=100 + index)
        for index, sampler in enumerate(("ddim", "euler_a", "dpmpp_2m"))
    ]
    plain = generation(sampler="unipc", guidance=1.0, steps=9, seed=110)
    recorder = Recorder()
    with running_engine(recorder) as engine:
        outcomes = await asyncio.gather(
            *(drawn(engine, asked, INPUTS) for asked in begun), drawn(engine, plain)
        )
    theirs = [by_stock(stock_img2img, asked) for asked in begun] + [drawn_by_stock(stock, plain)]
    for outcome, stranger in zip(outcomes, theirs, strict=True):
        (picture,) = outcome.pictures
        assert close((recorder.made[-1].latents[picture.seed], picture.raster.rgb), stranger)


async def test_double_precision_is_stock_too(stock_double: Stock) -> None:
    pipeline = StableDiffusionImg2ImgPipeline(**stock_double.components)
    pipeline.set_progress_bar_config(disable=True)
    jobs = [beginning(0.5, steps=4 + index, seed=index, sampler="euler_a") for index in range(2)]
    recorder = Recorder()
    with running_engine(recorder, dtype="float64") as engine:
        await asyncio.gather(*(drawn(engine, asked, INPUTS) for asked in jobs))
    for asked in jobs:
        latents, _ = by_stock(pipeline, asked)
        assert (recorder.made[-1].latents[asked.seed] - latents).abs().max() < 1e-9


# --- the comparison itself must be able to fail -----------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"init_image": InitImage("start", 0.8)}, {"seed": 8}, {"init_image": None}],
)
async def test_another_strength_seed_or_beginning_is_seen(
    engine: AsyncEngine, recorder: Recorder, stock_img2img: Stock, changes: dict[str, object]
) -> None:
    asked = beginning(0.6, steps=5)
    ours = await drawn_by_us(engine, recorder, replace(asked, **changes), INPUTS)  # type: ignore[arg-type]
    theirs = by_stock(stock_img2img, asked)
    assert not close(ours, theirs)
    assert not torch.equal(ours[0], theirs[0])


async def test_another_picture_is_seen(
    engine: AsyncEngine, recorder: Recorder, stock_img2img: Stock
) -> None:
    asked = beginning(steps=5)
    ours = await drawn_by_us(engine, recorder, asked, {"start": scene(9)})
    assert not close(ours, by_stock(stock_img2img, asked))
