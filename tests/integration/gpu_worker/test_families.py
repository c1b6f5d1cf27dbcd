"""Every family draws what its stock pipeline draws, alone and among others."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from easel_kit.ids import ModelKey
from gpu_worker.domain.drawing import Drawn, Failed, Raster
from gpu_worker.domain.generation import Generation, InitImage
from gpu_worker.engine.catalogue import Catalogue
from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.families.loading import FAMILIES as SERVED_FAMILIES
from gpu_worker.engine.flow import FLOW_SAMPLERS
from gpu_worker.engine.model import Rows
from gpu_worker.engine.pixels import to_image
from gpu_worker.engine.samplers import SAMPLERS
from gpu_worker.engine.served import SAMPLER_NAMES, SERVED
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_families import (
    FAMILIES,
    FLUX,
    FLUX_SCHNELL,
    QWEN,
    SD1,
    SD2,
    SD3,
    SD3_NO_T5,
    SDXL,
    SIZE_PX,
    Family,
    load_stock,
    save_family,
)
from tests.fakes.gpu_worker_models import (
    Recorder,
    Stock,
    Wrapped,
    draw,
    drawn,
    faulty,
    running_engine,
)

Picture = tuple[torch.Tensor, bytes]
"""Finished latents and pixels."""


class House:
    """Model directories of all families, one engine over them, and stock beside it."""

    def __init__(self, models_dir: Path, engine: AsyncEngine, recorder: Recorder) -> None:
        self.models_dir = models_dir
        self.engine = engine
        self._recorder = recorder
        self._stock: dict[str, Stock] = {}

    def stock(self, family: Family) -> Stock:
        if family.key not in self._stock:
            self._stock[family.key] = load_stock(family, self.models_dir / family.key)
        return self._stock[family.key]

    async def drawn(self, asked: Generation, inputs: dict[str, Raster] | None = None) -> Picture:
        return finished(self._recorder, asked, await drawn(self.engine, asked, inputs))


def finished(recorder: Recorder, asked: Generation, outcome: Drawn) -> Picture:
    (picture,) = outcome.pictures
    (latents,) = (
        made.latents.pop(asked.seed) for made in recorder.made if asked.seed in made.latents
    )
    return latents, picture.raster.rgb


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        save_family(family, path)
    return path


@pytest.fixture(scope="session")
def house(models_dir: Path) -> Iterator[House]:
    recorder = Recorder()
    with running_engine(recorder, models_dir=models_dir) as engine:
        yield House(models_dir, engine, recorder)


def asked_of(family: Family, **changes: object) -> Generation:
    plain: dict[str, object] = {
        "model_key": ModelKey(family.key),
        "prompt": "a red circle",
        "negative_prompt": "a blue square",
        "width_px": SIZE_PX,
        "height_px": SIZE_PX,
        "steps": 3,
        "guidance": 3.0,
        "sampler": family.sampler,
    }
    return generation(**plain | changes)


# Stock diffusers' way to samplers, written down again on purpose.
SCHEDULERS: dict[str, tuple[Any, dict[str, object]]] = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),  # as real models have it
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "flow_euler": (diffusers.FlowMatchEulerDiscreteScheduler, {}),
    "flow_dpmpp_2m": (
        diffusers.DPMSolverMultistepScheduler,
        {
            "algorithm_type": "dpmsolver++",
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
        },
    ),
    "flow_unipc": (
        diffusers.UniPCMultistepScheduler,
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ),
}


def drawn_by_stock(
    stock: Stock, family: Family, asked: Generation, start: Raster | None = None
) -> Picture:
    """What the stock pipeline, or with a picture its image-to-image sister, makes of it."""
    kind, options = SCHEDULERS[asked.sampler]
    if asked.sampler in FLOW_SAMPLERS and kind is not diffusers.FlowMatchEulerDiscreteScheduler:
        options = options | {"flow_shift": stock.scheduler.config.shift}
    parts = stock.components | {"scheduler": kind.from_config(stock.scheduler.config, **options)}
    given: dict[str, Any] = {
        "negative_prompt": asked.negative_prompt or ("" if family is QWEN else None),
        family.guidance: asked.guidance,
        **family.changes,
    }
    if asked.clip_skip:
        given["clip_skip"] = asked.clip_skip
    pipeline = _pipeline(stock, parts, with_picture=start is not None)
    if start is not None:
        assert asked.init_image is not None
        given |= {"image": to_image(start), "strength": asked.init_image.strength}
    if start is None or "height" in inspect.signature(pipeline.__call__).parameters:
        given |= {"width": asked.width_px, "height": asked.height_px}
    return _called(pipeline, asked, given)


def _pipeline(stock: Stock, parts: dict[str, Any], *, with_picture: bool) -> Stock:
    name = type(stock).__name__
    if with_picture:
        name = name.replace("Pipeline", "Img2ImgPipeline")
    flags = {
        "StableDiffusionPipeline": {"requires_safety_checker": False},
        "StableDiffusionXLPipeline": {"add_watermarker": False},
        "StableDiffusionXLImg2ImgPipeline": {"add_watermarker": False},
    }
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    pipeline = kind(**{k: v for k, v in parts.items() if k in known}, **flags.get(name, {}))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _called(pipeline: Stock, asked: Generation, given: dict[str, Any]) -> Picture:
    found: list[torch.Tensor] = []

    def note(_pipe: object, _step: int, _t: object, inside: dict[str, Any]) -> dict[str, Any]:
        found.append(inside["latents"].clone())
        return inside

    image = pipeline(
        asked.prompt,
        num_inference_steps=asked.steps,
        generator=torch.Generator("cpu").manual_seed(asked.seed),
        callback_on_step_end=note,
        **given,
    ).images[0]
    return found[-1], image.tobytes()


def same(one: Picture, two: Picture) -> bool:
    return torch.equal(one[0], two[0]) and one[1] == two[1]


def levels_apart(one: Picture, two: Picture) -> int:
    """The largest difference of two pictures' bytes."""
    first, second = (torch.frombuffer(bytearray(each[1]), dtype=torch.uint8) for each in (one, two))
    return int((first.int() - second.int()).abs().max())


def by_key(family: Family) -> str:
    return family.key


def test_the_tables_agree() -> None:
    assert set(SERVED) == set(SERVED_FAMILIES)
    assert set(SAMPLER_NAMES) == {*SAMPLERS, *FLOW_SAMPLERS, "default"}


@pytest.mark.parametrize("family", FAMILIES, ids=by_key)
async def test_alone_it_is_bitwise_stock(house: House, family: Family) -> None:
    asked = asked_of(family)
    theirs = drawn_by_stock(house.stock(family), family, asked)
    assert same(await house.drawn(asked), theirs)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        (SDXL, {"negative_prompt": ""}),  # zeros, not an empty text
        (SDXL, {"clip_skip": 1}),
        (SDXL, {"guidance": 1.0, "sampler": "euler_a"}),
        (SDXL, {"width_px": 48, "height_px": 24}),
        (SDXL, {"prompt": "a large red star on the left " * 6}),
        (SD3, {"guidance": 1.0, "steps": 5}),
        (SD3, {"clip_skip": 1, "negative_prompt": ""}),
        (SD3, {"sampler": "flow_dpmpp_2m", "steps": 4}),
        (SD3, {"sampler": "flow_unipc", "steps": 4}),
        (FLUX, {"guidance": 0.0, "width_px": 48, "height_px": 24}),
        (FLUX, {"sampler": "flow_dpmpp_2m", "steps": 4}),
        (FLUX, {"sampler": "flow_unipc", "steps": 4}),
        (QWEN, {"guidance": 1.0, "width_px": 48, "height_px": 24}),
        (QWEN, {"prompt": "a red circle " * 40}),
    ],
    ids=lambda value: value.key if isinstance(value, Family) else "-".join(value),
)
async def test_settings_at_the_edges_are_bitwise_stock(
    house: House, family: Family, changes: dict[str, object]
) -> None:
    asked = asked_of(family, **changes)
    theirs = drawn_by_stock(house.stock(family), family, asked)
    assert same(await house.drawn(asked), theirs)


# --- together ---------------------------------------------------------------------------------


def three_of(family: Family) -> tuple[Generation, ...]:
    """Of other prompts, lengths of text, steps, guidances and samplers, where there are some."""
    samplers = [name for name in _samplers(family) if name in SCHEDULERS]
    return tuple(
        asked_of(
            family,
            seed=100 + index,
            prompt=prompt,
            negative_prompt=("", "blue", "a large blue star")[index],
            steps=3 + index,
            guidance=(2.0, 3.5, 5.0)[index],
            sampler=samplers[index % len(samplers)],
        )
        for index, prompt in enumerate(["a red circle", "star", "a large green square on the left"])
    )


def _samplers(family: Family) -> tuple[str, ...]:
    flow = family.sampler.startswith("flow_")
    if family in (QWEN, FLUX_SCHNELL):  # stock cannot with another scheduler
        return ("flow_euler",)
    return tuple(FLOW_SAMPLERS) if flow else ("euler_a", "dpmpp_2m", "ddim")


async def together(
    engine: AsyncEngine, recorder: Recorder, jobs: tuple[Generation, ...]
) -> list[Picture]:
    outcomes = await asyncio.gather(*(drawn(engine, asked) for asked in jobs))
    alone = 1 if jobs[0].model_key.startswith(FLUX.key) else 2
    assert max(outcome.figures.mean_rows for outcome in outcomes) > alone
    return [
        finished(recorder, asked, outcome) for asked, outcome in zip(jobs, outcomes, strict=True)
    ]


@pytest.mark.parametrize("family", FAMILIES, ids=by_key)
async def test_among_others_it_is_stock_within_one_level(house: House, family: Family) -> None:
    jobs = three_of(family)
    ours = await together(house.engine, house._recorder, jobs)
    for asked, picture in zip(jobs, ours, strict=True):
        theirs = drawn_by_stock(house.stock(family), family, asked)
        assert (picture[0] - theirs[0]).abs().max() < 1e-4
        assert levels_apart(picture, theirs) <= 1


@pytest.mark.parametrize("family", [SD2, SDXL, SD3, FLUX, QWEN], ids=by_key)
async def test_in_double_precision_neighbours_change_nothing(
    models_dir: Path, family: Family
) -> None:
    jobs = three_of(family)
    recorder = Recorder()
    with running_engine(recorder, models_dir=models_dir, dtype="float64") as engine:
        ours = await together(engine, recorder, jobs)
    stock = load_stock(family, models_dir / family.key, torch.float64)
    for asked, picture in zip(jobs, ours, strict=True):
        theirs = drawn_by_stock(stock, family, asked)
        # the flow-matching Euler scheduler rounds latents to single precision at each step
        allowed = 1e-6 if asked.sampler == "flow_euler" else 1e-9
        assert (picture[0] - theirs[0]).abs().max() < allowed, asked.sampler
        assert levels_apart(picture, theirs) <= 1


def _one_timestep_for_all(model: Wrapped, rows: Rows) -> torch.Tensor:
    shared = rows.timesteps[:1].expand(len(rows.timesteps))
    return model.model.denoise(replace(rows, timesteps=shared))


@pytest.mark.parametrize("family", [SDXL, SD3, QWEN], ids=by_key)
async def test_a_shared_timestep_is_seen(house: House, family: Family) -> None:
    jobs = three_of(family)
    recorder = Recorder(faulty(_one_timestep_for_all))
    with running_engine(recorder, models_dir=house.models_dir) as engine:
        ours = await together(engine, recorder, jobs)
    theirs = [drawn_by_stock(house.stock(family), family, asked) for asked in jobs]
    apart = [(one[0] - two[0]).abs().max() for one, two in zip(ours, theirs, strict=True)]
    assert max(apart) > 1e-3  # ten times what neighbours may change


# --- from a picture ---------------------------------------------------------------------------


def picture() -> Raster:
    shades = bytes(
        (x * 8 + y * 3 + c * 40) % 256 for y in range(32) for x in range(32) for c in range(3)
    )
    return Raster(SIZE_PX, SIZE_PX, shades)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("family", [SD1, SDXL, SD3, FLUX, QWEN], ids=by_key)
async def test_from_a_picture_it_is_bitwise_stock(
    house: House, family: Family, strength: float
) -> None:
    asked = asked_of(family, steps=5, init_image=InitImage("start", strength))
    start = picture()
    theirs = drawn_by_stock(house.stock(family), family, asked, start)
    assert same(await house.drawn(asked, {"start": start}), theirs)


# --- what is refused --------------------------------------------------------------------------


async def test_a_size_that_the_patches_do_not_cover_is_refused(house: House) -> None:
    outcome = await draw(house.engine, asked_of(SD3_NO_T5, width_px=40))
    assert isinstance(outcome, Failed)
    assert outcome.message == "width_px: must be a multiple of 16 for this model"


async def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = save_family(SDXL, tmp_path)
    index = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
    del index["tokenizer_2"]  # so that the catalogue does not look for it
    (path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    for file in (path / "tokenizer_2").iterdir():
        file.unlink()
    (path / "tokenizer_2").rmdir()
    with running_engine(models_dir=tmp_path) as engine:
        outcome = await draw(engine, asked_of(SDXL))
        (card,) = engine.models()
    assert isinstance(outcome, Failed)
    assert card.unavailable_reason == "tokenizer_2 is missing"


def test_the_catalogue_offers_what_the_family_has(models_dir: Path) -> None:
    cards = {entry.card.key: entry.card for entry in Catalogue(models_dir, SAMPLER_NAMES).entries()}
    assert all(card.usable for card in cards.values()), cards
    assert cards[ModelKey(SDXL.key)].samplers == tuple(SAMPLERS)
    assert cards[ModelKey(FLUX.key)].samplers == tuple(FLOW_SAMPLERS)
    assert cards[ModelKey(QWEN.key)].samplers == ("flow_euler",)
