"""The engine's port: the scripted engine of the tests keeps what the real one promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from easel_kit.errors import InvalidState, NotFound
from easel_kit.ids import ModelKey, new_attempt_id
from gpu_worker.domain.drawing import Drawn, StepProgress, Stopped
from gpu_worker.ports import Engine
from tests.fakes.gpu_worker import SHAPES, ScriptedEngine, generation
from tests.fakes.gpu_worker_models import running_engine

pytestmark = [
    pytest.mark.xdist_group("torch"),
    pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning"),
]


@pytest.fixture(params=["scripted", "real"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    if request.param == "scripted":
        yield ScriptedEngine(by_itself=True)
    else:
        with running_engine() as real:
            yield real


async def test_a_drawing_has_its_pictures_in_the_order_of_their_seeds(engine: Engine) -> None:
    heard: list[StepProgress] = []
    asked = generation(steps=3, image_count=2, seed=2**32 - 1)
    outcome = await engine.draw(new_attempt_id(), asked, {}, heard.append)
    assert isinstance(outcome, Drawn)
    assert [picture.seed for picture in outcome.pictures] == [2**32 - 1, 0]
    for picture in outcome.pictures:
        raster = picture.raster
        assert (raster.width_px, raster.height_px, len(raster.rgb)) == (64, 64, 64 * 64 * 3)
    assert outcome.steps_done == 6
    assert (heard[-1].step, heard[-1].steps) == (6, 6)


async def test_a_model_is_loaded_and_unloaded(engine: Engine) -> None:
    for _ in range(2):
        assert (await engine.load(SHAPES)).loaded
    assert [card.loaded for card in engine.models() if card.key == SHAPES] == [True]
    for _ in range(2):
        assert not (await engine.unload(SHAPES)).loaded
    assert [card.loaded for card in engine.models() if card.key == SHAPES] == [False]
    with pytest.raises(NotFound):
        await engine.load(ModelKey("none"))
    with pytest.raises(NotFound):
        await engine.unload(ModelKey("none"))


async def test_the_device_has_a_name_and_memory(engine: Engine) -> None:
    status = engine.status()
    assert status.device == "cpu"
    assert status.memory_total_bytes > 0


async def test_a_cancel_ends_a_drawing_which_then_holds_no_model(engine: Engine) -> None:
    if isinstance(engine, ScriptedEngine):
        engine.by_itself = False
    engine.cancel(new_attempt_id())
    await engine.load(SHAPES)
    attempt_id = new_attempt_id()
    asked = generation(steps=100, image_count=16)
    heard = asyncio.Event()
    drawing = asyncio.ensure_future(engine.draw(attempt_id, asked, {}, lambda _: heard.set()))
    if isinstance(engine, ScriptedEngine):
        await engine.drawing(attempt_id)
        engine.step(attempt_id)
    await asyncio.wait_for(heard.wait(), 20)
    with pytest.raises(InvalidState):
        await engine.unload(SHAPES)
    engine.cancel(attempt_id)
    outcome = await asyncio.wait_for(drawing, 20)
    assert isinstance(outcome, Stopped)
    assert 1 <= outcome.steps_done < 1600
    await engine.unload(SHAPES)
