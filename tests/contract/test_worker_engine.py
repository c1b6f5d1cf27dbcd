"""The engine's port: the scripted engine of the tests keeps what the real one promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from easel_kit.errors import InvalidState, NotFound
from easel_kit.ids import AttemptId, ModelKey, new_attempt_id
from gpu_worker.domain.drawing import Drawn, Outcome, StepProgress, Stopped
from gpu_worker.domain.generation import Generation
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
    engine.cancel(new_attempt_id())
    await engine.load(SHAPES)
    attempt_id = new_attempt_id()
    asked = generation(steps=100, image_count=16)
    heard = asyncio.Event()
    drawing = asyncio.ensure_future(engine.draw(attempt_id, asked, {}, lambda _: heard.set()))
    await asyncio.wait_for(heard.wait(), 20)
    with pytest.raises(InvalidState):
        await engine.unload(SHAPES)
    engine.cancel(attempt_id)
    outcome = await asyncio.wait_for(drawing, 20)
    assert isinstance(outcome, Stopped)
    assert 1 <= outcome.steps_done < 1600
    await engine.unload(SHAPES)


# --- parking ----------------------------------------------------------------------------------

LONG = generation(steps=15, image_count=2)


class Drawing:
    """One that has taken a step."""

    def __init__(self, engine: Engine, asked: Generation) -> None:
        self.engine = engine
        self.attempt_id: AttemptId = new_attempt_id()
        self.steps: list[int] = []
        self.begun = asyncio.Event()
        self.outcome: asyncio.Future[Outcome] = asyncio.ensure_future(
            engine.draw(self.attempt_id, asked, {}, self._note)
        )

    def _note(self, progress: StepProgress) -> None:
        self.steps.append(progress.step)
        self.begun.set()

    async def parked(self) -> int:
        """Sets it aside; its steps done."""
        await asyncio.wait_for(self.begun.wait(), 20)
        steps_done = await asyncio.wait_for(self.engine.park(self.attempt_id), 20)
        assert steps_done is not None
        return steps_done

    async def drawn(self) -> Drawn:
        """Its good end."""
        outcome = await asyncio.wait_for(asyncio.shield(self.outcome), 20)
        assert isinstance(outcome, Drawn), outcome
        return outcome


async def test_a_parked_drawing_stands_still_and_comes_out_as_if_nothing_had_been(
    engine: Engine,
) -> None:
    undisturbed = await Drawing(engine, LONG).drawn()
    drawing = Drawing(engine, LONG)
    steps_done = await drawing.parked()
    assert 1 <= steps_done < 30
    await asyncio.sleep(0.1)
    assert await engine.park(drawing.attempt_id) == steps_done
    assert max(drawing.steps) <= steps_done
    assert not drawing.outcome.done()

    assert await engine.resume(drawing.attempt_id)
    assert await engine.resume(drawing.attempt_id)  # it runs already
    outcome = await drawing.drawn()
    assert outcome.pictures == undisturbed.pictures
    assert outcome.steps_done == undisturbed.steps_done
    assert drawing.steps == sorted(set(drawing.steps))


async def test_a_drawing_may_be_parked_again_and_again(engine: Engine) -> None:
    undisturbed = await Drawing(engine, LONG).drawn()
    drawing = Drawing(engine, LONG)
    before = 0
    for _ in range(3):
        steps_done = await drawing.parked()
        assert steps_done >= before
        before = steps_done
        assert await engine.resume(drawing.attempt_id)
    assert (await drawing.drawn()).pictures == undisturbed.pictures


async def test_others_draw_while_one_is_parked(engine: Engine) -> None:
    drawing = Drawing(engine, LONG)
    steps_done = await drawing.parked()
    alone = await Drawing(engine, generation(seed=3)).drawn()
    assert await engine.park(drawing.attempt_id) == steps_done
    assert await engine.resume(drawing.attempt_id)
    beside = await Drawing(engine, generation(seed=3)).drawn()
    assert [picture.seed for picture in beside.pictures] == [3]
    assert len(beside.pictures[0].raster.rgb) == len(alone.pictures[0].raster.rgb)
    await drawing.drawn()


async def test_a_parked_drawing_holds_its_model_and_can_be_cancelled(engine: Engine) -> None:
    drawing = Drawing(engine, LONG)
    steps_done = await drawing.parked()
    with pytest.raises(InvalidState):
        await engine.unload(SHAPES)
    engine.cancel(drawing.attempt_id)
    outcome = await asyncio.wait_for(drawing.outcome, 20)
    assert isinstance(outcome, Stopped)
    assert outcome.steps_done == steps_done
    await engine.unload(SHAPES)


async def test_a_parked_drawing_can_be_abandoned(engine: Engine) -> None:
    drawing = Drawing(engine, LONG)
    await drawing.parked()
    drawing.outcome.cancel()
    await asyncio.gather(drawing.outcome, return_exceptions=True)
    await engine.unload(SHAPES)


async def test_what_is_not_being_drawn_cannot_be_parked(engine: Engine) -> None:
    assert await engine.park(new_attempt_id()) is None
    assert not await engine.resume(new_attempt_id())
    drawing = Drawing(engine, generation(steps=1))
    await drawing.drawn()
    assert await engine.park(drawing.attempt_id) is None
    assert not await engine.resume(drawing.attempt_id)
