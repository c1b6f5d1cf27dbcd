"""One attempt from its inputs to its files: what it reads, stores, is stopped by and tells of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from easel.scheduler.v1 import lease_pb2
from easel_kit.errors import InvalidInput
from easel_kit.ids import ModelKey
from gpu_worker.domain.drawing import Failed, FailureKind, Figures, Outcome, Stopped
from gpu_worker.domain.generation import Control, ImageFormat, InitImage, Lora, Output
from gpu_worker.domain.work import Acknowledged, Cancel, Park, Resume
from tests.fakes.gpu_worker import Greeting, assign, raster
from tests.fakes.gpu_worker_scene import LIMITS, Scene, staged

BEGUN = InitImage("users/alice/in.png", 0.5, "users/alice/mask.png")
ALONE = replace(BEGUN, mask_object_key="")
CONTROLS = tuple(Control(ModelKey("edges"), f"users/alice/edges-{index}.png") for index in range(4))
CALLER, TRANSIENT = lease_pb2.FAILURE_KIND_CALLER, lease_pb2.FAILURE_KIND_TRANSIENT


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with staged(Greeting()) as found:
        yield found


@pytest.fixture
async def hasty() -> AsyncIterator[Scene]:
    """One whose jobs may take a quarter of a second."""
    async with staged(Greeting(), replace(LIMITS, job_time_limit_s=0.25)) as found:
        yield found


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# --- what it reads ----------------------------------------------------------------------------


async def test_it_draws_with_all_the_pictures_that_it_reads(scene: Scene) -> None:
    talk = await scene.opened()
    work = assign(init_image=BEGUN, controls=(*CONTROLS, replace(CONTROLS[0], weight=0.5))[:4])
    for shade, key in enumerate(work.generation.input_keys):
        scene.gallery.inputs[key] = raster(shade)
    talk.say(work)
    await scene.engine.drawing(work.attempt_id)
    assert scene.engine.asked[work.attempt_id].inputs == {
        key: raster(shade) for shade, key in enumerate(work.generation.input_keys)
    }


async def test_pictures_are_fetched_together_but_not_all_at_once(scene: Scene) -> None:
    talk = await scene.opened()
    work = assign(init_image=BEGUN, controls=CONTROLS)
    for key in work.generation.input_keys:
        scene.gallery.inputs[key] = raster()
    scene.gallery.fetch_gate.clear()
    talk.say(work)
    await scene.gallery.fetches(4)
    scene.gallery.fetch_gate.set()
    await scene.engine.drawing(work.attempt_id)
    assert scene.gallery.most_fetching == 4


@pytest.mark.parametrize(
    ("key", "field"),
    [
        (BEGUN.object_key, "init_image.object_key"),
        (BEGUN.mask_object_key, "init_image.mask_object_key"),
        (CONTROLS[1].object_key, "controls.1.object_key"),
    ],
)
async def test_a_picture_that_is_missing_or_unfit_is_the_callers_fault(
    scene: Scene, key: str, field: str
) -> None:
    talk = await scene.opened()
    for wrong, reason in (
        (None, "there is no such picture"),
        (InvalidInput("picture", "must have at most 9 pixels"), "must have at most 9 pixels"),
    ):
        work = assign(init_image=BEGUN, controls=CONTROLS)
        for one in work.generation.input_keys:
            scene.gallery.inputs[one] = raster()
        if wrong is None:
            del scene.gallery.inputs[key]
        else:
            scene.gallery.inputs[key] = wrong
        talk.say(work)
        failed = (await talk.hear("failed", skip=("capacity",))).failed
        assert (failed.kind, failed.code, failed.steps_done) == (CALLER, "invalid_request", 0)
        assert failed.message == f"{field}: {reason}"
    assert not scene.engine.asked


async def test_control_networks_alone_read_pictures_too(scene: Scene) -> None:
    talk = await scene.opened()
    talk.say(assign(controls=CONTROLS[:1]))
    failed = (await talk.hear("failed")).failed
    assert failed.message == "controls.0.object_key: there is no such picture"


async def test_a_store_that_is_down_at_first_is_worth_another_try(scene: Scene) -> None:
    scene.gallery.down = True
    talk = await scene.opened()
    talk.say(assign(init_image=BEGUN))
    failed = (await talk.hear("failed")).failed
    assert (failed.kind, failed.code) == (TRANSIENT, "fetch_failed")


async def test_a_cancel_stops_the_fetching(scene: Scene) -> None:
    talk = await scene.opened()
    work = assign(init_image=ALONE)
    scene.gallery.fetch_gate.clear()
    talk.say(work)
    await scene.gallery.fetches(1)
    talk.say(Cancel(work.attempt_id))
    assert (await talk.hear("stopped")).stopped.steps_done == 0
    assert not scene.gallery.fetching


async def test_what_is_dropped_fetches_no_more(scene: Scene) -> None:
    talk = await scene.opened()
    work = assign(init_image=ALONE)
    scene.gallery.fetch_gate.clear()
    talk.say(work)
    await scene.gallery.fetches(1)
    talk.say(Acknowledged(work.attempt_id, accepted=False))
    await talk.hear("capacity")
    await scene.gallery.fetches(0)


async def test_an_adapter_of_another_worker_is_worth_another_try(scene: Scene) -> None:
    talk = await scene.opened()
    talk.say(assign(loras=(Lora(ModelKey("none"), 1.0),)))
    failed = (await talk.hear("failed")).failed
    assert (failed.kind, failed.code) == (TRANSIENT, "model_unavailable")
    assert failed.message == "model none: is not in the catalogue"


# --- what it stores ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file_format", "extension", "media_type"),
    [
        (ImageFormat.PNG, "png", "image/png"),
        (ImageFormat.WEBP, "webp", "image/webp"),
        (ImageFormat.JPEG, "jpg", "image/jpeg"),
    ],
)
async def test_each_picture_has_its_file_and_a_small_one(
    scene: Scene, file_format: ImageFormat, extension: str, media_type: str
) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk, image_count=2, output=Output(file_format))
    scene.engine.finish(work.attempt_id)
    finished = (await talk.hear("finished")).finished
    stem = f"users/alice/jobs/{work.job_id}/{work.attempt_id}"
    assert [(image.object_key, image.thumbnail_object_key) for image in finished.images] == [
        (f"{stem}/{index}.{extension}", f"{stem}/{index}.thumb.webp") for index in range(2)
    ]
    for image in finished.images:
        assert scene.gallery.stored[image.object_key].media_type == image.media_type == media_type
        assert scene.gallery.stored[image.thumbnail_object_key].media_type == "image/webp"
    assert [image.seed for image in finished.images] == [7, 8]


async def test_uploads_of_a_job_go_together_but_not_all_at_once() -> None:
    async with staged(Greeting(), replace(LIMITS, max_images=16)) as scene:
        talk = await scene.opened()
        work = await scene.begun(talk, image_count=16)
        scene.engine.finish(work.attempt_id)
        finished = (await talk.hear("finished")).finished
        assert [image.seed for image in finished.images] == list(range(7, 23))
        assert scene.gallery.most_stores == 4


async def test_a_small_picture_that_is_lost_costs_nothing_else(scene: Scene) -> None:
    scene.gallery.down_for = ".thumb.webp"
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.finish(work.attempt_id)
    (image,) = (await talk.hear("finished")).finished.images
    assert image.object_key in scene.gallery.stored
    assert not image.thumbnail_object_key


async def test_one_picture_that_is_lost_fails_the_attempt(scene: Scene) -> None:
    scene.gallery.down_for = "/1.png"
    talk = await scene.opened()
    work = await scene.begun(talk, image_count=3)
    scene.engine.finish(work.attempt_id)
    failed = (await talk.hear("failed")).failed
    assert (failed.kind, failed.code, failed.steps_done) == (TRANSIENT, "upload_failed", 30)


# --- its time ---------------------------------------------------------------------------------


async def test_a_job_that_takes_too_long_is_stopped(hasty: Scene) -> None:
    talk = await hasty.opened()
    work = await hasty.begun(talk)
    hasty.engine.step(work.attempt_id, 4)
    failed = (await talk.hear("failed", skip=("progress",))).failed
    assert (failed.kind, failed.code, failed.steps_done) == (CALLER, "deadline_exceeded", 4)
    assert failed.message == (
        "it took more than the 0.25 seconds that a job may run; "
        "ask for fewer steps, fewer pictures or a smaller size"
    )
    assert not hasty.engine.asked


async def test_fetching_counts_as_well(hasty: Scene) -> None:
    talk = await hasty.opened()
    hasty.gallery.fetch_gate.clear()
    talk.say(assign(init_image=BEGUN))
    failed = (await talk.hear("failed")).failed
    assert (failed.code, failed.steps_done) == ("deadline_exceeded", 0)
    assert not hasty.gallery.fetching


async def test_uploading_does_not_count(hasty: Scene) -> None:
    talk = await hasty.opened()
    work = await hasty.begun(talk)
    hasty.gallery.gate.clear()
    hasty.engine.finish(work.attempt_id)
    await asyncio.sleep(0.4)
    hasty.gallery.gate.set()
    await talk.hear("finished")


async def test_parked_time_does_not_count_and_what_was_left_before_it_does(hasty: Scene) -> None:
    talk = await hasty.opened()
    work = await hasty.begun(talk)
    talk.say(Park(work.attempt_id))
    await talk.hear("parked")
    await asyncio.sleep(0.4)
    assert work.attempt_id in hasty.engine.asked
    talk.say(Resume(work.attempt_id))
    await talk.hear("resumed", skip=("capacity",))
    assert work.attempt_id in hasty.engine.asked
    failed = (await talk.hear("failed", skip=("capacity",))).failed
    assert failed.code == "deadline_exceeded"


async def test_one_set_aside_before_its_first_step_has_its_time_left(hasty: Scene) -> None:
    talk = await hasty.opened()
    work = assign(init_image=ALONE)
    hasty.gallery.inputs[BEGUN.object_key] = raster()
    talk.say(work)
    talk.say(Park(work.attempt_id))
    await talk.hear("parked")
    await asyncio.sleep(0.4)
    talk.say(Resume(work.attempt_id))
    await hasty.engine.drawing(work.attempt_id)
    hasty.engine.finish(work.attempt_id)
    await talk.hear("finished", skip=("capacity", "resumed"))


async def test_a_cancel_before_the_end_of_its_time_is_a_cancel(hasty: Scene) -> None:
    talk = await hasty.opened()
    work = await hasty.begun(talk)
    talk.say(Cancel(work.attempt_id))
    await talk.hear("stopped")


async def test_without_a_limit_it_takes_as_long_as_it_takes(scene: Scene) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    await asyncio.sleep(0.1)
    scene.engine.finish(work.attempt_id)
    await talk.hear("finished")


# --- what it tells ----------------------------------------------------------------------------


def summary(logs: list[MutableMapping[str, Any]]) -> MutableMapping[str, Any]:
    (found,) = [entry for entry in logs if entry["event"] == "attempt.finished"]
    return found


async def test_one_line_says_what_a_job_took(
    scene: Scene, logs: list[MutableMapping[str, Any]]
) -> None:
    firsts = sample("easel_worker_first_step_seconds_count")
    uploads = sample("easel_worker_upload_seconds_count")
    finished = sample("easel_worker_attempts_total", outcome="finished")
    talk = await scene.opened()
    work = await scene.begun(talk, image_count=2)
    for _ in range(2):
        scene.engine.step(work.attempt_id)
    talk.say(Park(work.attempt_id))
    await talk.hear("parked", skip=("progress",))
    await asyncio.sleep(0.05)
    talk.say(Resume(work.attempt_id))
    await talk.hear("resumed", skip=("capacity", "progress"))
    figures = Figures(device_s=1.23456, mean_rows=7.5, first_step_s=0.01, parked_s=0.05)
    scene.engine.finish(work.attempt_id, figures=figures)
    await talk.hear("finished", skip=("capacity", "progress"))

    line = summary(logs)
    assert {
        name: line[name]
        for name in ("outcome", "model", "steps", "pictures", "device_s", "mean_rows", "bytes")
    } == {
        "outcome": "finished",
        "model": "shapes-64",
        "steps": 20,
        "pictures": 2,
        "device_s": 1.235,
        "mean_rows": 7.5,
        "bytes": sum(len(stored.data) for stored in scene.gallery.stored.values()),
    }
    assert 0 <= line["queue_s"] <= line["duration_s"] < 5
    assert 0.05 <= line["parked_s"] < 5
    assert 0 <= line["upload_s"] <= line["duration_s"]
    assert work.generation.prompt not in str(logs)
    assert sample("easel_worker_first_step_seconds_count") == firsts + 1
    assert sample("easel_worker_upload_seconds_count") == uploads + 1
    assert sample("easel_worker_attempts_total", outcome="finished") == finished + 1


async def test_the_line_is_written_whatever_the_end(
    scene: Scene, logs: list[MutableMapping[str, Any]]
) -> None:
    figures = Figures(device_s=0.5, mean_rows=2.0)
    ends: dict[str, Outcome] = {
        "stopped": Stopped(3, figures),
        "failed": Failed(FailureKind.TRANSIENT, "engine_error", "words", 3, figures),
    }
    talk = await scene.opened()
    for kind, outcome in ends.items():
        logs.clear()
        work = await scene.begun(talk)
        scene.engine.end(work.attempt_id, outcome)
        await talk.hear(kind, skip=("capacity",))
        line = summary(logs)
        assert (line["outcome"], line["steps"], line["device_s"]) == (kind, 3, 0.5)
        assert "queue_s" not in line
        assert (line["pictures"], line["bytes"], line["upload_s"]) == (0, 0, 0.0)


async def test_what_is_handed_back_has_its_line_too(
    scene: Scene, logs: list[MutableMapping[str, Any]]
) -> None:
    talk = await scene.opened()
    work = await scene.begun(talk)
    scene.engine.step(work.attempt_id, 2)
    await asyncio.wait_for(scene.worker.drain(0.05), 5)
    await talk.hear("hand_back", skip=("capacity", "progress"))
    line = summary(logs)
    assert (line["outcome"], line["steps"]) == ("handed_back", 2)
