"""Control networks: rows steered as stock diffusers steers them, each by its own picture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

from easel_kit.ids import ModelKey
from gpu_worker.domain.generation import Control, Generation
from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.families.loading import load_part
from gpu_worker.engine.model import Model, Part
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import (
    Recorder,
    Stock,
    Wrapped,
    copy_model,
    drawn,
    running_engine,
)
from tests.fakes.gpu_worker_stock import (
    Result,
    close,
    drawn_by_stock,
    drawn_by_us,
    image,
    same,
    scene,
)
from tests.fakes.gpu_worker_weights import control_net

INPUTS = {"edges": scene(21), "depth": scene(22)}
EDGES = Control(ModelKey("edges-net"), "edges", 0.8)
LATE = Control(ModelKey("edges-net"), "edges", 1.3, 0.4, 0.9)
DEPTH = Control(ModelKey("depth-net"), "depth", 0.5, 0.0, 0.5)


def steered(*controls: Control, **changes: object) -> Generation:
    plain: dict[str, object] = {"steps": 4, "controls": controls}
    return generation(**(plain | changes))


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory, stock: Stock) -> Path:
    path = tmp_path_factory.mktemp("models")
    copy_model(path)
    control_net(path, "edges-net", stock, 1)
    control_net(path, "depth-net", stock, 2)
    return path


@pytest.fixture(scope="module")
def own_recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def own_engine(models_dir: Path, own_recorder: Recorder) -> Iterator[AsyncEngine]:
    def load(entry: Entry, dtype: torch.dtype) -> Part:
        part = load_part(entry, dtype)
        if not isinstance(part, Model):
            return part
        own_recorder.made.append(Wrapped(part))
        return own_recorder.made[-1]

    with running_engine(load, models_dir=models_dir) as running:
        yield running


def by_stock(stock: Stock, models_dir: Path, asked: Generation) -> Result:
    nets = [
        ControlNetModel.from_pretrained(models_dir / one.model_key, low_cpu_mem_usage=False)
        for one in asked.controls
    ]
    pictures = [image(INPUTS[one.object_key]) for one in asked.controls]
    scales = [one.weight for one in asked.controls]
    alone = len(nets) == 1
    parts = {name: part for name, part in stock.components.items() if name != "controlnet"}
    pipeline = StableDiffusionControlNetPipeline(**parts, controlnet=nets[0] if alone else nets)
    pipeline.set_progress_bar_config(disable=True)
    return drawn_by_stock(
        pipeline,
        asked,
        image=pictures[0] if alone else pictures,
        controlnet_conditioning_scale=scales[0] if alone else scales,
        control_guidance_start=[one.begin for one in asked.controls],
        control_guidance_end=[one.end for one in asked.controls],
        width=64,
        height=64,
    )


@pytest.mark.parametrize(
    ("controls", "guidance"),
    [((EDGES,), 2.5), ((LATE,), 1.0), ((EDGES, DEPTH), 2.5), ((DEPTH, LATE), 1.0)],
)
async def test_alone_it_is_bitwise_stock(  # noqa: PLR0917 (fixtures)
    own_engine: AsyncEngine,
    own_recorder: Recorder,
    stock: Stock,
    models_dir: Path,
    controls: tuple[Control, ...],
    guidance: float,
) -> None:
    asked = steered(*controls, guidance=guidance, sampler="euler")
    ours = await drawn_by_us(own_engine, own_recorder, asked, INPUTS)
    assert same(ours, by_stock(stock, models_dir, asked))


async def test_rows_of_one_forward_keep_their_scales_and_windows(
    models_dir: Path, stock: Stock, own_engine: AsyncEngine, own_recorder: Recorder
) -> None:
    jobs = [
        steered(EDGES, seed=200, sampler="ddim"),
        steered(LATE, seed=201, sampler="euler_a", steps=5),
        steered(EDGES, seed=202, guidance=1.0, steps=3),
    ]
    outcomes = await asyncio.gather(*(drawn(own_engine, asked, INPUTS) for asked in jobs))
    assert max(outcome.figures.mean_rows for outcome in outcomes) > 2
    for asked, outcome in zip(jobs, outcomes, strict=True):
        ours = (own_recorder.made[-1].latents[asked.seed], outcome.pictures[0].raster.rgb)
        assert close(ours, by_stock(stock, models_dir, asked))


@pytest.mark.parametrize(
    ("other", "inputs"),
    [
        (EDGES, {"edges": INPUTS["depth"]}),  # another row's picture
        (LATE, INPUTS),  # another row's scale and window
        (Control(ModelKey("depth-net"), "edges", 0.8), INPUTS),  # another network
    ],
)
async def test_a_planted_fault_is_seen(  # noqa: PLR0917 (fixtures)
    own_engine: AsyncEngine,
    own_recorder: Recorder,
    stock: Stock,
    models_dir: Path,
    other: Control,
    inputs: dict[str, object],
) -> None:
    ours = await drawn_by_us(own_engine, own_recorder, steered(other), inputs)  # type: ignore[arg-type]
    assert not close(ours, by_stock(stock, models_dir, steered(EDGES)))
