"""Pipelines of no family of ours run whole, and still take turns, stop and say what they lack."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from easel_kit.ids import ModelKey, new_attempt_id
from gpu_worker.domain.drawing import Drawn, Failed, FailureKind, Raster, StepProgress, Stopped
from gpu_worker.domain.generation import Generation, Hires, InitImage, Lora
from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.pixels import to_image
from tests.fakes.gpu_worker import generation, raster
from tests.fakes.gpu_worker_families import (
    AURA,
    HEUN,
    LCM,
    PIXART,
    SIZE_PX,
    WHOLE,
    Family,
    load_stock,
    save_family,
)
from tests.fakes.gpu_worker_models import Stock, draw, drawn, running_engine


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    for family in WHOLE:
        save_family(family, path)
    return path


@pytest.fixture(scope="module")
def whole(models_dir: Path) -> Iterator[AsyncEngine]:
    with running_engine(models_dir=models_dir) as engine:
        yield engine


def asked_of(family: Family, **changes: object) -> Generation:
    plain: dict[str, object] = {
        "model_key": ModelKey(family.key),
        "prompt": "a red circle",
        "width_px": SIZE_PX,
        "height_px": SIZE_PX,
        "steps": 4,
        "guidance": 3.0,
        "sampler": "default",
    }
    return generation(**plain | changes)


def drawn_by_stock(pipeline: Stock, asked: Generation, start: Raster | None = None) -> bytes:
    given: dict[str, Any] = {
        "use_resolution_binning": False,
        "width": asked.width_px,
        "height": asked.height_px,
    }
    if start is not None:
        assert asked.init_image is not None
        given |= {"image": to_image(start), "strength": asked.init_image.strength}
    known = inspect.signature(pipeline.__call__).parameters
    image = pipeline(
        prompt=asked.prompt,
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance,
        generator=torch.Generator("cpu").manual_seed(asked.seed),
        **{name: value for name, value in given.items() if name in known},
    ).images[0]
    pixels: bytes = image.tobytes()
    return pixels


def pixels_of(outcome: Drawn) -> bytes:
    (picture,) = outcome.pictures
    return picture.raster.rgb


@pytest.mark.parametrize("family", [LCM, AURA, PIXART], ids=lambda family: family.key)
async def test_it_draws_what_stock_draws(
    whole: AsyncEngine, models_dir: Path, family: Family
) -> None:
    asked = asked_of(family)
    outcome = await drawn(whole, asked)
    assert outcome.steps_done == 4
    assert pixels_of(outcome) == drawn_by_stock(load_stock(family, models_dir / family.key), asked)


async def test_two_jobs_take_turns_and_leave_each_other_alone(
    whole: AsyncEngine, models_dir: Path
) -> None:
    jobs = [
        asked_of(LCM, steps=7, seed=1, prompt="a red circle", guidance=2.0),
        asked_of(LCM, steps=5, seed=2, prompt="a large blue star", guidance=7.5),
    ]
    heard: list[int] = []

    async def one(index: int) -> Drawn:
        outcome = await draw(whole, jobs[index], lambda _: heard.append(index))
        assert isinstance(outcome, Drawn)
        return outcome

    outcomes = await asyncio.gather(one(0), one(1))
    assert [outcome.steps_done for outcome in outcomes] == [7, 5]
    stock = load_stock(LCM, models_dir / LCM.key)
    for asked, outcome in zip(jobs, outcomes, strict=True):
        assert pixels_of(outcome) == drawn_by_stock(stock, asked)


async def test_it_is_parked_and_goes_on_where_it_was(whole: AsyncEngine, models_dir: Path) -> None:
    asked = asked_of(LCM, steps=40)
    attempt_id = new_attempt_id()
    stepped = asyncio.Event()
    job = asyncio.create_task(whole.draw(attempt_id, asked, {}, lambda _: stepped.set()))
    await stepped.wait()
    at = await whole.park(attempt_id)
    assert at is not None
    assert 0 < at < 40
    other = asked_of(LCM, seed=3)
    neighbour = await drawn(whole, other)
    assert not job.done()
    assert await whole.resume(attempt_id)
    outcome = await job
    assert isinstance(outcome, Drawn)
    stock = load_stock(LCM, models_dir / LCM.key)
    assert pixels_of(outcome) == drawn_by_stock(stock, asked)
    assert pixels_of(neighbour) == drawn_by_stock(stock, other)


async def test_it_stops_between_two_steps(whole: AsyncEngine, models_dir: Path) -> None:
    attempt_id = new_attempt_id()
    asked = asked_of(LCM, steps=40)
    outcome = await whole.draw(attempt_id, asked, {}, lambda _: whole.cancel(attempt_id))
    assert isinstance(outcome, Stopped)
    assert 0 < outcome.steps_done < 40
    after = asked_of(LCM)
    stock = load_stock(LCM, models_dir / LCM.key)
    assert pixels_of(await drawn(whole, after)) == drawn_by_stock(stock, after)


async def test_steps_are_counted_as_the_pipeline_takes_them(
    whole: AsyncEngine, models_dir: Path
) -> None:
    asked = asked_of(HEUN, steps=4, init_image=InitImage("start", 0.5))
    start = raster(90, SIZE_PX, SIZE_PX)
    told: list[StepProgress] = []
    outcome = await draw(whole, asked, told.append, {"start": start})
    assert isinstance(outcome, Drawn)
    assert outcome.steps_done == 3  # two steps of two forwards, the last of one
    assert told[-1].steps == 3
    stock = load_stock(HEUN, models_dir / HEUN.key)
    assert pixels_of(outcome) == drawn_by_stock(stock, asked, start)


@pytest.mark.parametrize(
    ("family", "changes", "field"),
    [
        (LCM, {"sampler": "ddim"}, "sampler"),
        (LCM, {"negative_prompt": "blue"}, "negative_prompt"),
        (PIXART, {"clip_skip": 1}, "clip_skip"),
        (LCM, {"hires": Hires(2.0, 2, 0.5)}, "hires"),
        (LCM, {"init_image": InitImage("start", 0.5)}, "init_image"),
        (HEUN, {}, "init_image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_it_cannot_do_is_named(
    whole: AsyncEngine, family: Family, changes: dict[str, object], field: str
) -> None:
    inputs = {"start": raster(90, SIZE_PX, SIZE_PX)}
    outcome = await draw(whole, asked_of(family, **changes), inputs=inputs)
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CALLER
    assert field in outcome.message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"_class_name": ["pipeline", "Mine"]}, "code of its own"),
        ({"unet": ["my_code", "Unet"]}, "my_code"),
        ({"unet": ["diffusers", "NoSuchModel"]}, "NoSuchModel"),
        ({"_class_name": "StableDiffusionPAGPipeline"}, "attention"),
    ],
    ids=["pipeline", "library", "class", "attention"],
)
async def test_code_beside_the_weights_is_never_run(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    path = save_family(LCM, tmp_path)
    (path / "pipeline.py").write_text("raise SystemExit('run')", encoding="utf-8")
    file = path / "model_index.json"
    index = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(index | changes), encoding="utf-8")
    with running_engine(models_dir=tmp_path) as engine:
        outcome = await draw(engine, asked_of(LCM))
        (card,) = engine.models()
    assert isinstance(outcome, Failed)
    assert reason in card.unavailable_reason


async def test_adapters_are_refused_before_anything_runs(whole: AsyncEngine) -> None:
    outcome = await draw(whole, asked_of(LCM, loras=(Lora(ModelKey("nothing"), 1.0),)))
    assert isinstance(outcome, Failed)
