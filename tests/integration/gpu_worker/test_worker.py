"""The whole worker as `main.run` wires it, with a real engine, store and gRPC on both faces."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import ExifTags, Image

from easel.scheduler.v1 import lease_pb2
from easel.worker.v1 import worker_pb2, worker_pb2_grpc
from easel_kit.errors import InvalidInput, InvalidState, NotFound
from easel_kit.objects import ObjectSettings
from easel_kit.rpc.channel import open_channel
from gpu_worker.domain.generation import ImageFormat, InitImage, Output
from gpu_worker.domain.work import Acknowledged, Assign, Cancel, Drain, Park, Resume
from gpu_worker.main import run
from gpu_worker.settings import Settings
from tests.fakes.ecs_agent import ecs_agent
from tests.fakes.gpu_worker import Desk, Talk, assign, serve_lease_service
from tests.fakes.gpu_worker_models import MODELS_DIR, copy_model

OTHERS = ("progress", "heartbeat", "models_changed")
LONG = {"steps": 100, "image_count": 16}
"""Far longer than any test waits for it."""


@dataclass
class House:
    desk: Desk
    objects: Path
    stop: asyncio.Event
    running: asyncio.Task[None]
    logs: list[MutableMapping[str, Any]]

    async def opened(self) -> Talk:
        """The next stream, past its first Capacity."""
        talk = await self.desk.dialled()
        await talk.hear("capacity", skip=("heartbeat", "progress", "finished"))
        return talk

    async def begun(self, talk: Talk, **changes: object) -> Assign:
        """An attempt that has taken steps."""
        work = assign(**changes)
        talk.say(work)
        progress = (await talk.hear("progress", skip=OTHERS)).progress
        assert progress.attempt_id == work.attempt_id
        return work

    def stored(self) -> list[Path]:
        """All that it has put into the store."""
        return [path for path in self.objects.rglob("users/*/jobs/**/*") if path.is_file()]

    async def left(self) -> None:
        """The worker's process would end now."""
        await asyncio.wait_for(asyncio.shield(self.running), 20)


Opened = tuple[House, Settings]


@asynccontextmanager
async def a_house(
    tmp_path: Path, logs: list[MutableMapping[str, Any]], **changes: object
) -> AsyncIterator[House]:
    async with serve_lease_service() as (desk, address):
        options: dict[str, Any] = {
            "id": "wrk_1",
            "scheduler_address": address,
            "objects": ObjectSettings(url=f"file://{tmp_path}"),
            "models_dir": MODELS_DIR,
            "device": "cpu",
            "threads": 1,
            "grace_s": 20,
            "preview_interval_ms": 0,
        }
        stop = asyncio.Event()
        running = asyncio.ensure_future(run(Settings(**(options | changes)), stop))
        try:
            yield House(desk, tmp_path, stop, running, logs)
        finally:
            stop.set()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def house(tmp_path: Path, logs: list[MutableMapping[str, Any]]) -> AsyncIterator[House]:
    async with a_house(tmp_path, logs) as found:
        yield found


def opened(file: Path) -> Image.Image:
    return Image.open(io.BytesIO(file.read_bytes()))


async def test_a_job_becomes_pictures_in_the_store(house: House) -> None:
    talk = await house.opened()
    assert talk.hello.worker_id == "wrk_1"
    assert [model.key for model in talk.hello.models if model.loaded] == ["shapes-64"]
    work = assign(image_count=2)
    talk.say(work)
    progress = (await talk.hear("progress")).progress
    assert progress.steps == 20
    look = Image.open(io.BytesIO(progress.preview))
    assert (progress.preview_media_type, look.format, look.size) == ("image/png", "PNG", (16, 16))

    finished = (await talk.hear("finished", skip=OTHERS)).finished
    assert finished.steps_done == 20
    assert 0 < finished.first_step_ms <= finished.total_ms
    for image in finished.images:
        data = (house.objects / image.object_key).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (image.size_bytes, image.sha256)
        picture = Image.open(io.BytesIO(data))
        assert picture.size == (64, 64)
        picture.load()
        assert picture.info["prompt"] == work.generation.prompt
        assert picture.info["seed"] == str(image.seed)
        small = opened(house.objects / image.thumbnail_object_key)
        assert (small.format, small.size) == ("WEBP", (64, 64))
    assert len(house.stored()) == 4

    events = [entry for entry in house.logs if str(entry["event"]).startswith("attempt.")]
    assert [entry["event"] for entry in events] == ["attempt.started", "attempt.finished"]
    line = events[-1]
    assert (line["outcome"], line["model"], line["pictures"]) == ("finished", "shapes-64", 2)
    assert line["bytes"] == sum(path.stat().st_size for path in house.stored())
    assert 0 < line["queue_s"] <= line["duration_s"]
    for entry in house.logs:
        assert work.generation.prompt not in str(entry)


async def test_the_same_job_gives_the_same_bytes(house: House) -> None:
    talk = await house.opened()
    sums = []
    for _ in range(2):
        talk.say(assign(sampler="euler_a"))
        finished = (await talk.hear("finished", skip=(*OTHERS, "capacity"))).finished
        sums.append(finished.images[0].sha256)
    assert sums[0] == sums[1]


@pytest.mark.parametrize(
    ("file_format", "name", "extension"),
    [(ImageFormat.WEBP, "WEBP", "webp"), (ImageFormat.JPEG, "JPEG", "jpg")],
)
async def test_a_job_may_ask_for_other_files(
    house: House, file_format: ImageFormat, name: str, extension: str
) -> None:
    talk = await house.opened()
    work = assign(output=Output(file_format, 80))
    talk.say(work)
    (image,) = (await talk.hear("finished", skip=OTHERS)).finished.images
    assert image.object_key.endswith(f"/0.{extension}")
    picture = opened(house.objects / image.object_key)
    assert (picture.format, picture.size) == (name, (64, 64))
    told = picture.getexif()[ExifTags.Base.ImageDescription]
    assert json.loads(told)["prompt"] == work.generation.prompt


async def test_a_picture_to_begin_with_that_is_not_there_is_the_callers_fault(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    models = tmp_path / "models"
    copy_model(models)
    async with a_house(tmp_path, logs, models_dir=models, max_input_mb=1) as house:
        talk = await house.opened()
        can = "image_to_image" in talk.hello.models[0].features
        talk.say(assign(init_image=InitImage("users/alice/none.png", 0.5)))
        failed = (await talk.hear("failed", skip=OTHERS)).failed
        assert failed.kind == lease_pb2.FAILURE_KIND_CALLER
        assert failed.message == (
            "init_image.object_key: there is no such picture"
            if can
            else "init_image: model shapes-64 does not offer this"
        )


async def test_a_job_that_takes_too_long_is_stopped(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    async with a_house(tmp_path, logs, job_time_limit_s=0.5) as house:
        talk = await house.opened()
        work = await house.begun(talk, **LONG)
        failed = (await talk.hear("failed", skip=OTHERS)).failed
        assert (failed.attempt_id, failed.code) == (work.attempt_id, "deadline_exceeded")
        assert 1 <= failed.steps_done < 1600
        assert not house.stored()


async def test_a_job_is_set_aside_and_goes_on_to_the_same_bytes(house: House) -> None:
    talk = await house.opened()
    asked = {"steps": 10, "sampler": "euler_a", "image_count": 2}
    talk.say(assign(**asked))
    finished = (await talk.hear("finished", skip=OTHERS)).finished
    await talk.hear("capacity", skip=OTHERS)
    undisturbed = [image.sha256 for image in finished.images]

    work = await house.begun(talk, **asked)
    talk.say(Park(work.attempt_id))
    parked = (await talk.hear("parked", skip=OTHERS)).parked
    assert 1 <= parked.steps_done < 20
    assert (await talk.hear("capacity", skip=OTHERS)).capacity.free_slots == 8
    talk.say(assign(steps=2))
    await talk.hear("finished", skip=OTHERS)

    talk.lose()
    talk = await house.desk.dialled()
    assert list(talk.hello.parked_attempt_ids) == [work.attempt_id]
    talk.say(Resume(work.attempt_id))
    await talk.hear("resumed", skip=(*OTHERS, "capacity", "finished"))
    while True:
        finished = (await talk.hear("finished", skip=(*OTHERS, "capacity"))).finished
        if finished.attempt_id == work.attempt_id:
            break
    assert [image.sha256 for image in finished.images] == undisturbed


async def test_a_parked_job_is_finished_before_it_leaves(house: House) -> None:
    talk = await house.opened()
    work = await house.begun(talk, steps=15)
    talk.say(Park(work.attempt_id))
    await talk.hear("parked", skip=OTHERS)
    house.stop.set()
    await talk.hear("resumed", skip=(*OTHERS, "capacity"))
    await talk.hear("finished", skip=(*OTHERS, "capacity"))
    talk.say(Acknowledged(work.attempt_id, accepted=True))
    await house.left()


async def test_a_busy_worker_is_protected_where_ecs_runs_it(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    with ecs_agent() as agent:
        async with a_house(tmp_path, logs, ecs_agent_uri=agent.uri) as house:
            await house.begun(await house.opened(), **LONG)
            asked = await asyncio.to_thread(agent.asked.get, timeout=10)
    assert asked[2] == {"ProtectionEnabled": True, "ExpiresInMinutes": 15}


async def test_a_lost_stream_loses_nothing(house: House) -> None:
    talk = await house.opened()
    work = await house.begun(talk, steps=15)
    talk.lose()
    talk = await house.desk.dialled()
    assert list(talk.hello.held_attempt_ids) == [work.attempt_id]
    first = (await talk.hear("finished", skip=(*OTHERS, "capacity"))).finished

    talk.lose()
    talk = await house.desk.dialled()
    assert list(talk.hello.held_attempt_ids) == [work.attempt_id]
    assert (await talk.hear("finished", skip=OTHERS)).finished == first
    talk.say(Acknowledged(work.attempt_id, accepted=True))
    talk.say(assign(steps=1))  # and goes on: the next one is not held up
    await talk.hear("finished", skip=(*OTHERS, "capacity"))


async def test_a_cancel_stops_within_steps(house: House) -> None:
    talk = await house.opened()
    work = await house.begun(talk, **LONG)
    talk.say(Cancel(work.attempt_id))
    stopped = (await talk.hear("stopped", skip=OTHERS)).stopped
    assert 1 <= stopped.steps_done < 1600
    assert not house.stored()


async def test_sigterm_finishes_what_fits_and_leaves(house: House) -> None:
    talk = await house.opened()
    work = await house.begun(talk, steps=20)
    house.stop.set()
    capacity = (await talk.hear("capacity", skip=OTHERS)).capacity
    assert (capacity.draining, capacity.free_slots) == (True, 0)
    finished = (await talk.hear("finished", skip=OTHERS)).finished
    assert finished.attempt_id == work.attempt_id
    talk.say(Acknowledged(work.attempt_id, accepted=True))
    await asyncio.wait_for(talk.over.wait(), 20)
    await house.left()


async def test_drain_hands_back_what_does_not_fit(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    async with a_house(tmp_path, logs, grace_s=0.5) as house:
        talk = await house.opened()
        work = await house.begun(talk, **LONG)
        talk.say(Drain())
        heard = await talk.hear("hand_back", skip=(*OTHERS, "capacity"))
        assert heard.hand_back == lease_pb2.HandBack(attempt_id=work.attempt_id)
        await house.left()
        assert not house.stored()


async def test_it_waits_for_a_scheduler_that_is_not_there_yet(tmp_path: Path) -> None:
    settings = Settings(
        scheduler_address="127.0.0.1:1",
        objects=ObjectSettings(url=f"file://{tmp_path}"),
        models_dir=tmp_path / "absent",
        device="cpu",
        threads=1,
        grace_s=0.2,
    )
    stop = asyncio.Event()
    running = asyncio.ensure_future(run(settings, stop))
    await asyncio.sleep(0.05)
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 20)


async def test_a_signal_while_it_warms_up_is_obeyed(tmp_path: Path) -> None:
    async with serve_lease_service() as (desk, address):
        stop = asyncio.Event()
        stop.set()
        settings = Settings(
            scheduler_address=address,
            objects=ObjectSettings(url=f"file://{tmp_path}"),
            models_dir=MODELS_DIR,
            device="cpu",
            threads=1,
        )
        await asyncio.wait_for(run(settings, stop), 20)
        assert desk.dials == 0


# --- its own face -----------------------------------------------------------------------------


@asynccontextmanager
async def face(talk: Talk) -> AsyncIterator[worker_pb2_grpc.WorkerServiceStub]:
    async with open_channel(talk.hello.address) as channel:
        yield worker_pb2_grpc.WorkerServiceStub(channel)


async def test_it_describes_itself(house: House) -> None:
    talk = await house.opened()
    work = await house.begun(talk, **LONG)
    async with face(talk) as stub:
        found = await stub.Describe(worker_pb2.DescribeRequest())
    assert (found.worker_id, found.device, found.slots) == ("wrk_1", "cpu", 8)
    assert found.version
    assert 0 < found.memory_used_bytes < found.memory_total_bytes
    assert not found.draining
    (running,) = found.running
    assert (running.job_id, running.attempt_id) == (work.job_id, work.attempt_id)
    assert (running.model_key, running.steps) == ("shapes-64", 1600)
    assert running.step >= 1
    talk.say(Cancel(work.attempt_id))


async def test_models_are_loaded_and_unloaded_by_hand(house: House) -> None:
    talk = await house.opened()
    async with face(talk) as stub:
        unload = worker_pb2.UnloadModelRequest(model_key="shapes-64")
        load = worker_pb2.LoadModelRequest(model_key="shapes-64")
        assert not (await stub.UnloadModel(unload)).model.loaded
        changed = (await talk.hear("models_changed")).models_changed
        assert not changed.models[0].loaded
        assert (await stub.LoadModel(load)).model.loaded
        assert (await talk.hear("models_changed")).models_changed.models[0].loaded

        work = await house.begun(talk, **LONG)
        with pytest.raises(InvalidState):
            await stub.UnloadModel(unload)
        talk.say(Cancel(work.attempt_id))
        with pytest.raises(NotFound):
            await stub.LoadModel(worker_pb2.LoadModelRequest(model_key="none"))
        with pytest.raises(InvalidInput):
            await stub.UnloadModel(worker_pb2.UnloadModelRequest())


async def test_an_operator_can_have_it_leave(house: House) -> None:
    talk = await house.opened()
    async with face(talk) as stub, open_channel(talk.hello.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stubs know no methods
        ask = health_pb2.HealthCheckRequest()
        assert (await health.Check(ask)).status == health_pb2.HealthCheckResponse.SERVING
        await stub.Drain(worker_pb2.DrainRequest())
        assert (await talk.hear("capacity")).capacity.draining
        await asyncio.wait_for(talk.over.wait(), 20)
    await house.left()


async def test_it_listens_where_it_says(house: House) -> None:
    talk = await house.opened()
    channel = grpc.aio.insecure_channel(talk.hello.address)
    await asyncio.wait_for(channel.channel_ready(), 10)
    await channel.close()


async def test_an_advertised_address_is_passed_on(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    async with a_house(tmp_path, logs, advertise="worker.internal:7100", id="") as house:
        talk = await house.opened()
        assert talk.hello.address == "worker.internal:7100"
        assert talk.hello.worker_id.startswith("wrk_")
