"""Attempts that give way: set aside at a step, their slot free, gone on with when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from easel_kit.ids import AttemptId
from gpu_worker.domain.generation import InitImage
from gpu_worker.domain.work import Acknowledged, Assign, Cancel, Drain, Park, Resume
from tests.fakes.gpu_worker import Greeting, Talk, assign, raster
from tests.fakes.gpu_worker_scene import Scene, staged

BEGUN = InitImage("users/alice/in.png", 0.5)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with staged(Greeting()) as found:
        yield found


async def parked(scene: Scene, talk: Talk, *, steps: int = 3) -> Assign:
    """An attempt that was set aside after some steps."""
    work = await scene.begun(talk)
    scene.engine.step(work.attempt_id, steps)
    talk.say(Park(work.attempt_id))
    told = (await talk.hear("parked", skip=("progress",))).parked
    assert (told.attempt_id, told.steps_done) == (work.attempt_id, steps)
    return work


async def free_slots(talk: Talk) -> int:
    """As the next Capacity says."""
    return (await talk.hear("capacity", skip=("progress",))).capacity.free_slots


def is_parked(scene: Scene, attempt_id: AttemptId) -> bool:
    return not scene.engine.asked[attempt_id].going.is_set()


async def test_an_attempt_is_set_aside_and_its_slot_is_free(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    assert await free_slots(talk) == 2
    assert is_parked(scene, work.attempt_id)
    for _ in range(2):
        await scene.begun(talk)
    assert len(scene.worker.status().running) == 3


async def test_one_that_is_parked_already_is_answered_again(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    await free_slots(talk)
    talk.say(Park(work.attempt_id))
    assert (await talk.hear("parked")).parked.steps_done == 3
    assert await free_slots(talk) == 2


async def test_it_goes_on_where_it_stopped(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    await free_slots(talk)
    talk.say(Resume(work.attempt_id))
    assert (await talk.hear("resumed")).resumed.attempt_id == work.attempt_id
    assert await free_slots(talk) == 1
    scene.engine.step(work.attempt_id)
    scene.engine.finish(work.attempt_id)
    assert (await talk.hear("finished", skip=("progress",))).finished.steps_done == 10


async def test_it_goes_on_above_the_slots_and_nothing_new_is_taken_meanwhile(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    await free_slots(talk)
    others = [await scene.begun(talk) for _ in range(2)]
    talk.say(Resume(work.attempt_id))
    await talk.hear("resumed")
    assert await free_slots(talk) == 0
    scene.engine.finish(others[0].attempt_id)
    await talk.hear("finished")
    assert await free_slots(talk) == 0
    scene.engine.finish(work.attempt_id)
    await talk.hear("finished")
    assert await free_slots(talk) == 1


async def test_one_that_runs_already_is_said_to(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    talk.say(Resume(work.attempt_id))
    assert (await talk.hear("resumed")).resumed.attempt_id == work.attempt_id
    assert await free_slots(talk) == 1


async def test_orders_about_what_is_not_held_are_passed_over(scene: Scene) -> None:
    talk = await scene.opened()
    talk.say(Park(assign().attempt_id))
    talk.say(Resume(assign().attempt_id))
    work = await scene.begun(talk)
    scene.engine.finish(work.attempt_id)
    await talk.hear("finished")


async def test_what_ended_meanwhile_is_reported_as_ended_instead(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.boundary.clear()
    talk.say(Park(work.attempt_id))
    await talk.obeyed()
    scene.engine.finish(work.attempt_id)
    scene.engine.boundary.set()
    assert (await talk.hear("finished")).finished.attempt_id == work.attempt_id
    assert await free_slots(talk) == 2
    talk.say(Park(work.attempt_id))  # nor later
    talk.say(Resume(work.attempt_id))
    await scene.begun(talk)
    assert talk.heard.empty()


async def test_what_is_being_stored_is_not_set_aside(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.gallery.gate.clear()
    scene.engine.finish(work.attempt_id)
    await scene.gallery.encoding.wait()
    talk.say(Park(work.attempt_id))
    talk.say(Resume(work.attempt_id))  # it goes on already
    await talk.hear("resumed")
    assert await free_slots(talk) == 1
    scene.gallery.gate.set()
    await talk.hear("finished")


async def test_orders_are_obeyed_in_their_order(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.boundary.clear()
    talk.say(Park(work.attempt_id))
    talk.say(Resume(work.attempt_id))
    talk.say(Park(work.attempt_id))
    await talk.obeyed()
    scene.engine.boundary.set()
    for kind in ("parked", "resumed", "parked"):
        await talk.hear(kind, skip=("capacity",))
    assert is_parked(scene, work.attempt_id)
    assert await free_slots(talk) == 2


async def test_a_parked_attempt_can_be_cancelled(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    await free_slots(talk)
    talk.say(Cancel(work.attempt_id))
    assert (await talk.hear("stopped")).stopped.steps_done == 3
    assert await free_slots(talk) == 2
    assert not scene.engine.asked


async def test_a_parked_attempt_that_is_told_to_go_on_and_ends_is_reported_only(
    scene: Scene,
) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    await free_slots(talk)
    scene.engine.boundary.clear()
    talk.say(Resume(work.attempt_id))
    talk.say(Cancel(work.attempt_id))
    await talk.obeyed()
    await scene.engine.drawing()
    scene.engine.boundary.set()
    await talk.hear("stopped")
    assert await free_slots(talk) == 2
    assert talk.heard.empty()


async def test_a_cancel_in_the_same_breath_wins(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.boundary.clear()
    talk.say(Park(work.attempt_id))
    talk.say(Cancel(work.attempt_id))
    talk.say(Park(work.attempt_id))
    await talk.obeyed()
    scene.engine.boundary.set()
    assert (await talk.hear("stopped")).stopped.attempt_id == work.attempt_id
    assert await free_slots(talk) == 2
    assert talk.heard.empty()


async def test_one_that_still_fetches_is_set_aside_before_its_first_step(scene: Scene) -> None:
    talk = await scene.opened()
    work = assign(init_image=BEGUN)
    scene.gallery.inputs[BEGUN.object_key] = raster(3)
    scene.gallery.fetch_gate.clear()
    talk.say(work)
    talk.say(Park(work.attempt_id))
    assert (await talk.hear("parked")).parked.steps_done == 0
    assert await free_slots(talk) == 2
    scene.gallery.fetch_gate.set()
    await scene.gallery.fetches(0)
    await asyncio.sleep(0.01)
    assert not scene.engine.asked
    talk.say(Resume(work.attempt_id))
    await talk.hear("resumed")
    await scene.engine.drawing(work.attempt_id)
    assert await free_slots(talk) == 1


async def test_one_set_aside_before_its_first_step_can_be_cancelled(scene: Scene) -> None:
    talk = await scene.opened()
    work = assign(init_image=BEGUN)
    scene.gallery.inputs[BEGUN.object_key] = raster(3)
    talk.say(work)
    talk.say(Park(work.attempt_id))
    await talk.hear("parked")
    await asyncio.sleep(0.01)
    assert not scene.engine.asked
    talk.say(Cancel(work.attempt_id))
    talk.say(Park(work.attempt_id))
    assert (await talk.hear("stopped", skip=("capacity",))).stopped.steps_done == 0
    assert await free_slots(talk) == 2
    assert talk.heard.empty()


async def test_total_time_leaves_parked_time_out(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    await asyncio.sleep(0.3)
    talk.say(Resume(work.attempt_id))
    await talk.hear("resumed", skip=("capacity",))
    scene.engine.finish(work.attempt_id)
    finished = (await talk.hear("finished", skip=("capacity",))).finished
    assert finished.total_ms < 300


async def test_the_gauges_show_what_runs_and_what_is_parked(scene: Scene) -> None:
    def gauges() -> list[float | None]:
        names = ("easel_worker_running", "easel_worker_parked")
        return [REGISTRY.get_sample_value(name) for name in names]

    talk = await scene.opened()
    work = await parked(scene, talk)
    await scene.begun(talk)
    assert gauges() == [1, 1]
    talk.say(Resume(work.attempt_id))
    await talk.hear("resumed", skip=("capacity",))
    assert gauges() == [2, 0]


# --- room -------------------------------------------------------------------------------------


async def test_parked_attempts_leave_room_for_work_that_crosses_a_capacity(scene: Scene) -> None:
    talk = await scene.opened()
    for _ in range(2):
        await parked(scene, talk)
        await free_slots(talk)
    for _ in range(4):
        await scene.begun(talk)
    over = assign()
    talk.say(over)
    assert (await talk.hear("hand_back")).hand_back.attempt_id == over.attempt_id


async def test_however_much_is_parked_memory_has_an_end(scene: Scene) -> None:
    talk = await scene.opened()
    for _ in range(6):
        await parked(scene, talk)
        await free_slots(talk)
    over = assign()
    talk.say(over)
    assert (await talk.hear("hand_back")).hand_back.attempt_id == over.attempt_id


# --- lost streams -----------------------------------------------------------------------------


async def test_a_new_stream_hears_what_is_parked(scene: Scene) -> None:
    talk = await scene.opened()
    work, other = await parked(scene, talk), await scene.begun(talk)
    talk.lose()
    talk = await scene.opened()
    assert list(talk.hello.held_attempt_ids) == [work.attempt_id, other.attempt_id]
    assert list(talk.hello.parked_attempt_ids) == [work.attempt_id]
    assert talk.heard.empty()
    talk.say(Resume(work.attempt_id))
    await talk.hear("resumed")
    assert await free_slots(talk) == 0


async def test_a_parked_attempt_that_is_not_kept_is_dropped(scene: Scene) -> None:
    talk = await scene.opened()
    await parked(scene, talk)
    scene.scheduler.desk.greeting.keep = frozenset()
    talk.lose()
    talk = await scene.scheduler.desk.dialled()
    await scene.engine.drawing()
    assert (await talk.hear("capacity")).capacity.free_slots == 2


async def test_a_parked_attempt_that_was_cancelled_during_the_loss_is_stopped(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    scene.scheduler.desk.greeting.cancelled = frozenset({work.attempt_id})
    talk.lose()
    talk = await scene.scheduler.desk.dialled()
    assert (await talk.hear("stopped", skip=("capacity",))).stopped.steps_done == 3


async def test_one_that_is_set_aside_after_the_greeting_is_said_on_the_new_stream(
    scene: Scene,
) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.boundary.clear()
    talk.say(Park(work.attempt_id))
    talk.lose()
    talk = await scene.opened()
    assert not talk.hello.parked_attempt_ids
    scene.engine.boundary.set()
    assert (await talk.hear("parked")).parked.attempt_id == work.attempt_id
    assert await free_slots(talk) == 2


async def test_one_that_is_set_aside_while_the_greeting_is_answered_is_said_again() -> None:
    greeting = Greeting()
    async with staged(greeting) as scene:
        talk = await scene.opened()
        work = await scene.begun(talk)
        scene.engine.boundary.clear()
        talk.say(Park(work.attempt_id))
        greeting.answer.clear()
        talk.lose()
        talk = await scene.scheduler.desk.dialled()
        assert not talk.hello.parked_attempt_ids
        scene.engine.boundary.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert scene.bench.parked == (work.attempt_id,)
        greeting.answer.set()
        assert (await talk.hear("parked")).parked.attempt_id == work.attempt_id
        assert await free_slots(talk) == 2


async def test_a_superseded_attempt_is_dropped_though_it_is_parked(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    await free_slots(talk)
    talk.say(Acknowledged(work.attempt_id, accepted=False))
    await scene.engine.drawing()
    assert await free_slots(talk) == 2


# --- leaving ----------------------------------------------------------------------------------


async def test_a_worker_that_leaves_goes_on_with_what_is_parked(scene: Scene) -> None:
    talk = await scene.opened()
    work = await parked(scene, talk)
    await free_slots(talk)
    talk.say(Drain())
    await scene.leave.wait()
    leaving = asyncio.ensure_future(scene.worker.drain(10))
    await talk.hear("resumed", skip=("capacity",))
    scene.engine.finish(work.attempt_id)
    await talk.hear("finished", skip=("capacity",))
    talk.say(Acknowledged(work.attempt_id, accepted=True))
    await asyncio.wait_for(leaving, 5)


async def test_a_parked_attempt_that_does_not_fit_is_handed_back(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk, steps=100)
    scene.engine.step(work.attempt_id)
    await asyncio.sleep(0.01)  # so that its pace is known: 100 steps would take a second
    scene.engine.step(work.attempt_id)
    talk.say(Park(work.attempt_id))
    await talk.hear("parked", skip=("progress",))
    await asyncio.wait_for(scene.worker.drain(0.5), 5)
    heard = await talk.hear("hand_back", skip=("capacity",))
    assert heard.hand_back.attempt_id == work.attempt_id
    assert not scene.engine.asked


async def test_an_order_that_crosses_with_leaving_sets_nothing_aside(scene: Scene) -> None:
    talk = await scene.opened()
    early, late = await scene.begun(talk), await scene.begun(talk)
    scene.engine.boundary.clear()
    talk.say(Park(early.attempt_id))
    talk.say(Drain())
    talk.say(Park(late.attempt_id))
    await scene.leave.wait()
    leaving = asyncio.ensure_future(scene.worker.drain(10))
    scene.engine.boundary.set()
    await asyncio.sleep(0.01)
    for work in (early, late):
        assert not is_parked(scene, work.attempt_id)
        scene.engine.finish(work.attempt_id)
        talk.say(Acknowledged(work.attempt_id, accepted=True))
    await asyncio.wait_for(leaving, 5)
