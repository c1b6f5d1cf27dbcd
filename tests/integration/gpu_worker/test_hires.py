"""A second pass over the enlarged picture: stock's two pipelines, one after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from easel_kit.ids import new_attempt_id
from gpu_worker.domain.drawing import Drawn, StepProgress
from gpu_worker.domain.generation import Generation, Hires, InitImage
from gpu_worker.engine.face import AsyncEngine
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import (
    Gate,
    Recorder,
    Stock,
    copy_model,
    draw,
    drawn,
    faulty,
    running_engine,
)
from tests.fakes.gpu_worker_stock import (
    Result,
    close,
    drawn_by_stock,
    drawn_by_us,
    generator,
    half_mask,
    image,
    pixels,
    same,
    scene,
)

INPUTS = {"start": scene(1), "mask": half_mask()}


def twice(**changes: object) -> Generation:
    plain: dict[str, object] = {"steps": 4, "hires": Hires(1.5, 6, 0.5)}
    return generation(**(plain | changes))


@pytest.fixture(scope="module")
def stock_img2img(stock: Stock) -> Stock:
    pipeline = StableDiffusionImg2ImgPipeline(**stock.components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def by_stock(stock: Stock, stock_img2img: Stock, asked: Generation) -> Result:
    own = generator(asked)
    first: dict[str, Any] = {"width": 64, "height": 64, "generator": own}
    pipeline = stock
    if asked.init_image is not None:
        first = {"image": image(INPUTS["start"]), "strength": asked.init_image.strength}
        first["generator"] = own
        pipeline = stock_img2img
    _, rgb = drawn_by_stock(pipeline, asked, **first)
    assert asked.hires is not None
    small = Image.frombytes("RGB", (64, 64), rgb)
    return drawn_by_stock(
        stock_img2img,
        asked,
        image=small.resize((96, 96), Image.Resampling.LANCZOS),
        strength=asked.hires.strength,
        num_inference_steps=asked.hires.steps,
        generator=own,
    )


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpmpp_2m_karras"])
async def test_alone_it_is_bitwise_stock(
    engine: AsyncEngine, recorder: Recorder, stock: Stock, stock_img2img: Stock, sampler: str
) -> None:
    asked = twice(sampler=sampler)
    ours = await drawn_by_us(engine, recorder, asked)
    assert same(ours, by_stock(stock, stock_img2img, asked))


async def test_it_follows_a_picture_to_begin_with(
    engine: AsyncEngine, recorder: Recorder, stock: Stock, stock_img2img: Stock
) -> None:
    asked = twice(init_image=InitImage("start", 0.5), sampler="euler_a")
    ours = await drawn_by_us(engine, recorder, asked, INPUTS)
    assert same(ours, by_stock(stock, stock_img2img, asked))


async def test_it_keeps_what_a_mask_keeps(engine: AsyncEngine) -> None:
    asked = twice(init_image=InitImage("start", 0.5, "mask"))
    outcome = await drawn(engine, asked, INPUTS)
    raster = outcome.pictures[0].raster
    once = await drawn(engine, generation(steps=4, init_image=asked.init_image), INPUTS)
    start = image(once.pictures[0].raster).resize((96, 96), Image.Resampling.LANCZOS)
    left = (0, 0, 40, 96)  # the mask begins at pixel 29 of 64
    assert image(raster).crop(left).tobytes() == start.crop(left).tobytes()
    assert image(raster).tobytes() != start.tobytes()


async def test_strangers_in_the_same_forwards_change_nothing(
    stock: Stock, stock_img2img: Stock
) -> None:
    jobs = [
        twice(seed=100 + index, steps=2 + index, sampler=sampler)
        for index, sampler in enumerate(("ddim", "euler_a"))
    ]
    recorder = Recorder()
    with running_engine(recorder) as engine:
        outcomes = await asyncio.gather(*(drawn(engine, asked) for asked in jobs))
    for asked, outcome in zip(jobs, outcomes, strict=True):
        ours = (recorder.made[-1].latents[asked.seed], outcome.pictures[0].raster.rgb)
        assert close(ours, by_stock(stock, stock_img2img, asked))


async def test_it_shares_forwards_with_others_of_its_size(tmp_path: Path) -> None:
    copy_model(tmp_path, sizes=[])
    with running_engine(models_dir=tmp_path) as engine:
        large = generation(width_px=96, height_px=96, steps=12)
        outcomes = await asyncio.gather(drawn(engine, twice(steps=2)), drawn(engine, large))
    assert outcomes[0].figures.mean_rows > 2


async def test_progress_counts_both_passes(engine: AsyncEngine) -> None:
    heard: list[StepProgress] = []
    outcome = await draw(engine, twice(image_count=2), heard.append)
    assert isinstance(outcome, Drawn)
    assert outcome.steps_done == 2 * (4 + 3)
    assert heard[-1].step == outcome.steps_done
    assert {progress.steps for progress in heard} == {outcome.steps_done}
    assert {(one.raster.width_px, one.raster.height_px) for one in outcome.pictures} == {(96, 96)}


@pytest.mark.parametrize("steps", [4, 5])
async def test_it_can_be_parked_between_the_passes_and_inside_the_second(
    engine: AsyncEngine, steps: int
) -> None:
    asked = twice(sampler="euler_a")
    alone = await drawn(engine, asked)
    gate = Gate(after=steps - 1)
    with running_engine(faulty(gate)) as halting:
        attempt_id = new_attempt_id()
        drawing = asyncio.ensure_future(halting.draw(attempt_id, asked, {}, lambda _: None))
        assert await asyncio.to_thread(gate.reached.wait, 20)
        parking = asyncio.ensure_future(halting.park(attempt_id))
        await asyncio.sleep(0)
        gate.open.set()
        assert await parking == steps
        await drawn(halting, generation(steps=2))  # somebody else draws meanwhile
        assert not drawing.done()
        assert await halting.resume(attempt_id)
        assert (await drawing).pictures == alone.pictures  # type: ignore[union-attr]


async def test_a_fresh_generator_in_the_second_pass_is_seen(
    engine: AsyncEngine, recorder: Recorder, stock: Stock, stock_img2img: Stock
) -> None:
    asked = twice()
    ours = await drawn_by_us(engine, recorder, asked)
    _, rgb = drawn_by_stock(stock, asked, width=64, height=64)
    small = Image.frombytes("RGB", (64, 64), rgb)
    fresh = drawn_by_stock(
        stock_img2img,
        asked,
        image=small.resize((96, 96), Image.Resampling.LANCZOS),
        strength=0.5,
        num_inference_steps=6,
    )
    assert not close(ours, fresh)
    assert pixels(ours[1]).size == 96 * 96 * 3
