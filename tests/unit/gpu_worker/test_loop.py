"""The worker as the scheduler sees it: what it takes, says, keeps and hands back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from easel.scheduler.v1 import lease_pb2
from easel_kit.errors import InvalidState, NotFound
from easel_kit.ids import AttemptId, ModelKey
from gpu_worker.domain.drawing import Failed, FailureKind
from gpu_worker.domain.work import Acknowledged, Cancel, Drain, Malformed, picture_key
from tests.fakes.gpu_worker import ABLE, EDGES, INK, SHAPES, Greeting, assign, raster
from tests.fakes.gpu_worker_scene import Scene, staged


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with staged(Greeting()) as found:
        yield found


# --- greeting ---------------------------------------------------------------------------------


async def test_hello_says_who_it_is_and_capacity_follows(scene: Scene) -> None:
    talk = await scene.scheduler.desk.dialled()
    hello = talk.hello
    assert (hello.worker_id, hello.address, hello.lane) == ("wrk_test", "here:1", "default")
    assert (hello.device, hello.slots) == ("cpu", 2)
    assert [model.key for model in hello.models] == ["shapes-64", "ink", "edges"]
    assert hello.can_park
    assert not hello.parked_attempt_ids
    assert not hello.held_attempt_ids
    assert not hello.returning
    capacity = (await talk.hear("capacity")).capacity
    assert (capacity.free_slots, capacity.draining) == (2, False)


async def test_it_dials_until_it_is_answered() -> None:
    async with staged(Greeting(refusals=2)) as scene:
        first = await scene.opened()
        assert scene.scheduler.desk.dials == 3
        first.lose()
        await scene.opened()
        assert scene.scheduler.desk.dials == 4


async def test_heartbeats_come_when_there_is_nothing_to_say() -> None:
    async with staged(Greeting(heartbeat_interval_s=0.01)) as scene:
        talk = await scene.opened()
        for _ in range(3):
            await talk.hear("heartbeat")


async def test_heartbeats_come_when_there_is_always_something_to_say() -> None:
    async with staged(Greeting(heartbeat_interval_s=0.01)) as scene:
        talk = await scene.opened()
        work = await scene.begun(talk, steps=100)
        beats = 0
        while not beats:
            scene.engine.step(work.attempt_id, 0)
            message = await talk.heard.get()
            beats += message.WhichOneof("message") == "heartbeat"


# --- work -------------------------------------------------------------------------------------


async def test_an_attempt_is_drawn_stored_and_reported(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk, image_count=2)
    scene.engine.step(work.attempt_id, look=raster(9))
    progress = (await talk.hear("progress")).progress
    assert (progress.attempt_id, progress.step, progress.steps) == (work.attempt_id, 1, 20)
    assert progress.preview
    assert progress.preview_media_type == "image/png"

    scene.engine.finish(work.attempt_id, "prompt cut after 22 tokens")
    finished = (await talk.hear("finished")).finished
    assert finished.attempt_id == work.attempt_id
    assert finished.steps_done == 20
    assert list(finished.warnings) == ["prompt cut after 22 tokens"]
    assert finished.total_ms >= finished.first_step_ms >= 0
    assert [image.seed for image in finished.images] == [7, 8]
    keys = [f"users/alice/jobs/{work.job_id}/{work.attempt_id}/{n}.png" for n in range(2)]
    assert [image.object_key for image in finished.images] == keys
    assert len({image.id for image in finished.images}) == 2
    for image in finished.images:
        stored = scene.gallery.stored[image.object_key]
        assert (image.size_bytes, image.sha256) == (len(stored.data), stored.sha256)
        assert (image.width_px, image.height_px, image.media_type) == (64, 64, "image/png")
    assert (await talk.hear("capacity")).capacity.free_slots == 2


async def test_the_work_belongs_to_the_trace_of_the_submit(scene: Scene) -> None:
    talk = await scene.opened()
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    work = replace(assign(), traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
    with capture_logs(processors=[merge_contextvars]) as logs:
        talk.say(work)
        await scene.engine.drawing(work.attempt_id)
        assert trace_id in scene.engine.asked[work.attempt_id].traceparent
        scene.engine.finish(work.attempt_id)
        await talk.hear("finished")
    assert [entry["event"] for entry in logs] == ["attempt.started", "attempt.finished"]
    for entry in logs:
        assert (entry["job_id"], entry["user_id"]) == (work.job_id, work.user_id)
        assert work.generation.prompt not in str(entry)


async def test_capacity_counts_what_still_runs(scene: Scene) -> None:
    talk = await scene.opened()
    first, second = await scene.begun(talk), await scene.begun(talk)
    scene.engine.finish(first.attempt_id)
    await talk.hear("finished")
    assert (await talk.hear("capacity")).capacity.free_slots == 1
    scene.engine.finish(second.attempt_id)
    await talk.hear("finished")
    assert (await talk.hear("capacity")).capacity.free_slots == 2


async def test_an_assignment_said_twice_runs_once(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    talk.say(work)
    scene.engine.finish(work.attempt_id)
    await talk.hear("finished")
    talk.say(work)
    await talk.hear("capacity")
    assert len(scene.gallery.stored) == 2  # the picture and its thumbnail


async def test_work_far_beyond_its_slots_is_handed_back(scene: Scene) -> None:
    talk = await scene.opened()
    for _ in range(4):
        await scene.begun(talk)
    over = assign()
    talk.say(over)
    assert (await talk.hear("hand_back")).hand_back.attempt_id == over.attempt_id


async def test_a_cancel_stops_the_drawing_and_says_how_far_it_came(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.step(work.attempt_id, 3)
    talk.say(Cancel(work.attempt_id))
    stopped = (await talk.hear("stopped", skip=("progress",))).stopped
    assert (stopped.attempt_id, stopped.steps_done) == (work.attempt_id, 3)
    assert not scene.gallery.stored


async def test_a_cancel_between_drawing_and_upload_stores_nothing(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.gallery.gate.clear()
    scene.engine.finish(work.attempt_id)
    await scene.gallery.encoding.wait()
    talk.say(Cancel(work.attempt_id))
    talk.say(Cancel(assign().attempt_id))  # unknown: nothing happens
    await talk.obeyed()
    scene.gallery.gate.set()
    assert (await talk.hear("stopped")).stopped.steps_done == 10
    assert not scene.gallery.stored


async def test_a_cancel_in_the_same_breath_as_the_assignment_draws_nothing(scene: Scene) -> None:
    talk = await scene.opened()
    work = assign()
    talk.say(work)
    talk.say(Cancel(work.attempt_id))
    assert (await talk.hear("stopped")).stopped.steps_done == 0


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"sampler": "magic"}, lease_pb2.FAILURE_KIND_CALLER, "invalid_request"),
        ({"width_px": 63}, lease_pb2.FAILURE_KIND_CALLER, "invalid_request"),
        ({"image_count": 0}, lease_pb2.FAILURE_KIND_CALLER, "invalid_request"),
        ({"model_key": ModelKey("x")}, lease_pb2.FAILURE_KIND_TRANSIENT, "model_unavailable"),
    ],
)
async def test_what_cannot_be_drawn_fails_with_its_kind(
    scene: Scene, changes: dict[str, object], kind: lease_pb2.FailureKind.ValueType, code: str
) -> None:
    talk = await scene.opened()
    work = assign(**changes)
    talk.say(work)
    failed = (await talk.hear("failed")).failed
    assert failed == lease_pb2.AttemptFailed(
        attempt_id=work.attempt_id, kind=kind, code=code, message=failed.message
    )
    assert failed.message


async def test_an_unusable_model_fails_with_its_reason(scene: Scene) -> None:
    scene.engine.cards = (replace(ABLE, unavailable_reason="unet is damaged"),)
    talk = await scene.opened()
    talk.say(assign())
    assert "unet is damaged" in (await talk.hear("failed")).failed.message


async def test_work_that_makes_no_sense_is_answered(scene: Scene) -> None:
    talk = await scene.opened()
    talk.say(Malformed(AttemptId("att_?"), "job_id: must be job_"))
    failed = (await talk.hear("failed")).failed
    assert (failed.attempt_id, failed.kind) == ("att_?", lease_pb2.FAILURE_KIND_CALLER)


async def test_the_engines_failure_is_passed_on(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.end(work.attempt_id, Failed(FailureKind.WORKER, "worker_stopped", "gone", 4))
    failed = (await talk.hear("failed")).failed
    assert (failed.kind, failed.steps_done) == (lease_pb2.FAILURE_KIND_WORKER, 4)


async def test_a_store_that_is_down_fails_for_another_try(scene: Scene) -> None:
    scene.gallery.down = True
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.finish(work.attempt_id)
    failed = (await talk.hear("failed")).failed
    assert (failed.kind, failed.code) == (lease_pb2.FAILURE_KIND_TRANSIENT, "upload_failed")
    assert failed.steps_done == 10


async def test_a_bug_in_one_attempt_leaves_the_others_alone(scene: Scene) -> None:
    talk = await scene.opened()
    bad, good = await scene.begun(talk), await scene.begun(talk)
    scene.engine.fault(bad.attempt_id)
    failed = (await talk.hear("failed")).failed
    assert (failed.attempt_id, failed.code) == (bad.attempt_id, "worker_error")
    scene.engine.finish(good.attempt_id)
    assert (await talk.hear("finished", skip=("capacity",))).finished.attempt_id == good.attempt_id


# --- lost streams -----------------------------------------------------------------------------


async def test_a_lost_stream_stops_nothing_and_the_result_is_said_until_acknowledged(
    scene: Scene,
) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    talk.lose()
    talk = await scene.opened()
    assert list(talk.hello.held_attempt_ids) == [work.attempt_id]
    assert talk.hello.returning
    scene.engine.finish(work.attempt_id)
    first = (await talk.hear("finished")).finished

    talk.lose()
    talk = await scene.scheduler.desk.dialled()
    assert list(talk.hello.held_attempt_ids) == [work.attempt_id]
    assert (await talk.hear("finished")).finished == first
    talk.say(Acknowledged(work.attempt_id, accepted=True))
    await talk.obeyed()

    talk.lose()
    talk = await scene.opened()
    assert not talk.hello.held_attempt_ids
    assert talk.heard.empty()


async def test_what_is_not_kept_is_dropped_without_a_word(scene: Scene) -> None:
    talk = await scene.opened()
    dropped, kept = await scene.begun(talk), await scene.begun(talk)
    scene.scheduler.desk.greeting.keep = frozenset({kept.attempt_id})
    talk.lose()
    talk = await scene.opened()
    await scene.engine.drawing(kept.attempt_id)
    scene.engine.finish(kept.attempt_id)
    finished = (await talk.hear("finished", skip=("capacity",))).finished
    assert finished.attempt_id == kept.attempt_id
    assert not any(dropped.attempt_id in key for key in scene.gallery.stored)


async def test_a_cancel_during_the_loss_reaches_it_with_the_greeting(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.scheduler.desk.greeting.cancelled = frozenset({work.attempt_id})
    talk.lose()
    talk = await scene.scheduler.desk.dialled()
    stopped = (await talk.hear("stopped", skip=("capacity",))).stopped
    assert stopped.attempt_id == work.attempt_id


async def test_an_attempt_that_nobody_wants_any_more_stops(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    talk.say(Acknowledged(work.attempt_id, accepted=False))
    await scene.engine.drawing()
    assert (await talk.hear("capacity")).capacity.free_slots == 2


# --- models -----------------------------------------------------------------------------------


async def test_loading_and_unloading_are_told(scene: Scene) -> None:
    talk = await scene.opened()
    assert not (await scene.worker.unload(SHAPES)).loaded
    assert not (await talk.hear("models_changed")).models_changed.models[0].loaded
    assert (await scene.worker.load(SHAPES)).loaded
    assert (await talk.hear("models_changed")).models_changed.models[0].loaded
    await scene.worker.load(SHAPES)  # nothing new
    work = await scene.begun(talk)
    with pytest.raises(InvalidState):
        await scene.worker.unload(SHAPES)
    with pytest.raises(NotFound):
        await scene.worker.load(ModelKey("nothing"))
    scene.engine.finish(work.attempt_id)
    await talk.hear("finished")


async def test_status_shows_what_runs(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.step(work.attempt_id, 4)
    status = scene.worker.status()
    assert [(one.attempt_id, one.job_id, one.step, one.steps) for one in status.running] == [
        (work.attempt_id, work.job_id, 4, 10)
    ]
    assert (status.device, status.memory_total_bytes, status.draining) == ("cpu", 2, False)
    assert status.models == (ABLE, INK, EDGES)


# --- leaving ----------------------------------------------------------------------------------


async def test_draining_takes_nothing_new_and_waits_for_what_runs(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    talk.say(Drain())
    await scene.leave.wait()
    capacity = (await talk.hear("capacity")).capacity
    assert (capacity.free_slots, capacity.draining) == (0, True)
    assert scene.worker.status().draining
    leaving = asyncio.ensure_future(scene.worker.drain(10))
    late = assign()
    talk.say(late)
    assert (await talk.hear("hand_back")).hand_back.attempt_id == late.attempt_id
    scene.engine.finish(work.attempt_id)
    await talk.hear("finished")
    assert not leaving.done()
    talk.say(Acknowledged(work.attempt_id, accepted=True))
    await asyncio.wait_for(leaving, 5)
    await asyncio.wait_for(talk.over.wait(), 5)
    assert scene.running.done()


async def test_what_does_not_fit_is_handed_back_at_once(scene: Scene) -> None:
    talk = await scene.opened()
    slow = await scene.begun(talk, steps=100)
    scene.engine.step(slow.attempt_id)
    await asyncio.sleep(0.01)  # so that its pace is known: 100 steps would take a second
    scene.engine.step(slow.attempt_id)
    await asyncio.wait_for(scene.worker.drain(0.5), 5)
    heard = await talk.hear("hand_back", skip=("capacity", "progress"))
    assert heard.hand_back == lease_pb2.HandBack(attempt_id=slow.attempt_id)
    assert not scene.engine.asked


async def test_a_long_wait_before_the_first_step_is_not_its_pace(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk, steps=100)
    await asyncio.sleep(0.2)  # at this pace the rest would take twenty seconds
    scene.engine.step(work.attempt_id)
    leaving = asyncio.ensure_future(scene.worker.drain(5))
    await talk.hear("capacity", skip=("progress",))
    scene.engine.finish(work.attempt_id)
    await talk.hear("finished", skip=("capacity", "progress"))
    talk.say(Acknowledged(work.attempt_id, accepted=True))
    await asyncio.wait_for(leaving, 5)


async def test_what_has_no_pace_gets_the_grace_period(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    await asyncio.wait_for(scene.worker.drain(0.05), 5)
    heard = await talk.hear("hand_back", skip=("capacity",))
    assert heard.hand_back.attempt_id == work.attempt_id


async def test_leaving_without_a_scheduler_ends_in_time(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.scheduler.desk.greeting.refusals = 1000
    talk.lose()
    scene.engine.finish(work.attempt_id)
    await asyncio.wait_for(scene.worker.drain(0.05), 5)
    assert scene.running.done()


def test_each_picture_has_its_key() -> None:
    work = assign()
    assert picture_key(work, 3) == f"users/alice/jobs/{work.job_id}/{work.attempt_id}/3.png"
    assert picture_key(assign(), 3) != picture_key(work, 3)
