"""Parts of a picture painted anew: as stock does it inside of the mask, not a byte else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image

from easel_kit.ids import ModelKey
from gpu_worker.domain.drawing import Raster
from gpu_worker.domain.generation import Generation, InitImage
from gpu_worker.engine.face import AsyncEngine
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import Recorder, Stock, drawn, running_engine
from tests.fakes.gpu_worker_stock import (
    ALL,
    Result,
    close,
    drawn_by_stock,
    drawn_by_us,
    half_mask,
    image,
    pixels,
    same,
    scene,
)
from tests.fakes.gpu_worker_weights import paint_model

START, MASK = scene(1), half_mask()
INPUTS = {"start": START, "mask": MASK}
WHITE = Raster(64, 64, b"\xff" * (3 * 64 * 64))
PAINT = ModelKey("paint-64")


def painting(strength: float = 0.6, **changes: object) -> Generation:
    return generation(init_image=InitImage("start", strength, "mask"), **changes)


@pytest.fixture(scope="module")
def stock_inpaint(stock: Stock) -> Stock:
    return quiet(StableDiffusionInpaintPipeline(**stock.components))


@pytest.fixture(scope="module")
def paint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def stock_paint(paint_dir: Path) -> Stock:
    return quiet(
        StableDiffusionInpaintPipeline.from_pretrained(
            paint_dir, dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False
        )
    )


@pytest.fixture(scope="module")
def paint_recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def paint_engine(paint_dir: Path, paint_recorder: Recorder) -> Iterator[AsyncEngine]:
    with running_engine(paint_recorder, models_dir=paint_dir.parent) as running:
        yield running


def quiet(pipeline: Stock) -> Stock:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def by_stock(
    stock_inpaint: Stock,
    asked: Generation,
    start: Raster = START,
    mask: Raster = MASK,
    **more: object,
) -> Result:
    options: dict[str, object] = {
        "image": image(start),
        "mask_image": image(mask),
        "strength": asked.init_image.strength if asked.init_image else 1.0,
        "width": asked.width_px,
        "height": asked.height_px,
    }
    return drawn_by_stock(stock_inpaint, asked, **(options | more))


def inside(mask: Raster) -> np.ndarray:
    """Which bytes are painted anew."""
    small = image(mask).resize((64, 64), Image.Resampling.LANCZOS)
    return np.repeat(np.asarray(small.convert("L")).ravel() >= 128, 3)


def same_inside(ours: Result, theirs: Result, mask: Raster = MASK) -> bool:
    anew = inside(mask)
    equal = np.array_equal(pixels(ours[1])[anew], pixels(theirs[1])[anew])
    return equal and torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize(
    ("sampler", "strength"),
    [*((sampler, 0.6) for sampler in ALL), ("ddim", 1.0), ("euler_a", 1.0), ("dpmpp_2m", 0.3)],
)
async def test_alone_it_is_bitwise_stock(
    engine: AsyncEngine, recorder: Recorder, stock_inpaint: Stock, sampler: str, strength: float
) -> None:
    asked = painting(strength, sampler=sampler, steps=5, guidance=2.5 if strength < 1 else 1.0)
    ours = await drawn_by_us(engine, recorder, asked, INPUTS)
    assert same_inside(ours, by_stock(stock_inpaint, asked))
    kept = ~inside(MASK)
    assert np.array_equal(pixels(ours[1])[kept], pixels(START.rgb)[kept])


async def test_a_strength_too_small_for_one_step_takes_one(
    engine: AsyncEngine, recorder: Recorder, stock_inpaint: Stock
) -> None:
    asked = painting(0.01, steps=8)
    with pytest.raises(ValueError, match="strength"):
        by_stock(stock_inpaint, asked)
    ours = await drawn_by_us(engine, recorder, asked, INPUTS)
    assert same_inside(ours, by_stock(stock_inpaint, asked, strength=1 / 8))


async def test_pictures_and_masks_of_other_sizes_are_resized(
    engine: AsyncEngine, recorder: Recorder, stock_inpaint: Stock
) -> None:
    asked = painting(steps=4)
    start, mask = scene(2, 100, 70), half_mask(30, 50)
    ours = await drawn_by_us(engine, recorder, asked, {"start": start, "mask": mask})
    assert same_inside(ours, by_stock(stock_inpaint, asked, start, mask), mask)
    kept = ~inside(mask)
    fitting = image(start).resize((64, 64), Image.Resampling.LANCZOS).tobytes()
    assert np.array_equal(pixels(ours[1])[kept], pixels(fitting)[kept])


async def test_strangers_in_the_same_forwards_change_nothing(stock_inpaint: Stock) -> None:
    jobs = [
        painting(0.4 + 0.3 * index, sampler=sampler, steps=4 + index, seed=100 + index)
        for index, sampler in enumerate(("euler", "euler_a", "unipc"))
    ]
    recorder = Recorder()
    with running_engine(recorder) as engine:
        outcomes = await asyncio.gather(
            *(drawn(engine, asked, INPUTS) for asked in jobs), drawn(engine, generation(steps=9))
        )
    for asked, outcome in zip(jobs, outcomes, strict=False):
        theirs = by_stock(stock_inpaint, asked)
        assert (recorder.made[-1].latents[asked.seed] - theirs[0]).abs().max() < 1e-4
        anew = inside(MASK)
        ours = pixels(outcome.pictures[0].raster.rgb)
        assert np.abs(ours[anew] - pixels(theirs[1])[anew]).max() <= 1


# --- a UNet that reads the mask -----------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "strength"), [("ddim", 0.6), ("euler_a", 1.0)])
async def test_a_model_that_reads_masks_is_bitwise_stock(
    paint_engine: AsyncEngine,
    paint_recorder: Recorder,
    stock_paint: Stock,
    sampler: str,
    strength: float,
) -> None:
    asked = painting(strength, sampler=sampler, steps=4, model_key=PAINT)
    ours = await drawn_by_us(paint_engine, paint_recorder, asked, INPUTS)
    assert same_inside(ours, by_stock(stock_paint, asked))


async def test_it_draws_without_a_mask_as_with_an_all_white_one(
    paint_engine: AsyncEngine, paint_recorder: Recorder, stock_paint: Stock
) -> None:
    plain = generation(steps=4, model_key=PAINT)
    ours = await drawn_by_us(paint_engine, paint_recorder, plain)
    assert same(ours, by_stock(stock_paint, plain, mask=WHITE))
    begun = replace(plain, init_image=InitImage("start", 0.5))
    ours = await drawn_by_us(paint_engine, paint_recorder, begun, INPUTS)
    assert same(ours, by_stock(stock_paint, begun, mask=WHITE))


# --- the comparison itself must be able to fail -----------------------------------------------


async def test_another_mask_is_seen(
    engine: AsyncEngine, recorder: Recorder, stock_inpaint: Stock
) -> None:
    asked = painting(steps=4)
    ours = await drawn_by_us(engine, recorder, asked, {"start": START, "mask": WHITE})
    theirs = by_stock(stock_inpaint, asked)
    assert not close(ours, theirs)
    assert not same_inside(ours, theirs)


async def test_another_picture_behind_the_mask_is_seen(
    engine: AsyncEngine, recorder: Recorder, stock_inpaint: Stock
) -> None:
    asked = painting(steps=4)
    ours = await drawn_by_us(engine, recorder, asked, {"start": scene(5), "mask": MASK})
    assert not same_inside(ours, by_stock(stock_inpaint, asked))
