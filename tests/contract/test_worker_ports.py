"""The worker's ports: what the fakes promise, the real adapters keep."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from easel_kit.clock import SystemClock
from easel_kit.errors import DependencyDown, InvalidInput, NotFound
from easel_kit.ids import new_attempt_id
from easel_kit.objects import FolderStore
from easel_kit.rpc.channel import open_channel
from gpu_worker.clients.decoding import InputBounds
from gpu_worker.clients.encoding import encode_preview
from gpu_worker.clients.gallery import ObjectGallery, Patience
from gpu_worker.clients.scheduler import GrpcScheduler
from gpu_worker.domain.drawing import DrawnPicture
from gpu_worker.domain.generation import ImageFormat, Output
from gpu_worker.domain.work import (
    Acknowledged,
    AttemptParked,
    AttemptProgress,
    AttemptResumed,
    AttemptStopped,
    Cancel,
    Capacity,
    Command,
    Drain,
    Heartbeat,
    Hello,
    Malformed,
    Park,
    Resume,
)
from gpu_worker.ports import Gallery, Scheduler
from tests.fakes.gpu_worker import (
    CARD,
    PROFILE,
    Desk,
    MemoryGallery,
    MemoryScheduler,
    assign,
    generation,
    raster,
    serve_lease_service,
)

HELD, GONE = new_attempt_id(), new_attempt_id()
HELLO = Hello(PROFILE, "here:1", "cpu", (CARD,), (HELD, GONE), (GONE,))


# --- Scheduler --------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "grpc"])
async def scheduler(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Scheduler, Desk]]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            fake = MemoryScheduler()
            yield fake, fake.desk
        else:
            desk, address = await stack.enter_async_context(serve_lease_service())
            channel = await stack.enter_async_context(open_channel(address))
            yield GrpcScheduler(channel), desk


Pair = tuple[Scheduler, Desk]


async def test_a_greeting_is_answered(scheduler: Pair) -> None:
    port, desk = scheduler
    desk.greeting.keep = frozenset({HELD})
    desk.greeting.cancelled = frozenset({HELD})
    desk.greeting.heartbeat_interval_s = 5
    async with port.connect(HELLO) as stream:
        talk = await desk.dialled()
        assert (talk.hello.worker_id, talk.hello.address) == (PROFILE.worker_id, "here:1")
        assert list(talk.hello.held_attempt_ids) == [HELD, GONE]
        assert list(talk.hello.parked_attempt_ids) == [GONE]
        assert talk.hello.can_park
        assert stream.welcome.kept == stream.welcome.cancelled == {HELD}
        assert (stream.welcome.heartbeat_interval_s, stream.welcome.lease_ttl_s) == (5, 15)


async def test_what_is_said_arrives_in_order(scheduler: Pair) -> None:
    port, desk = scheduler
    async with port.connect(HELLO) as stream:
        talk = await desk.dialled()
        await stream.send(Capacity(2, draining=False))
        for step in range(20):
            await stream.send(AttemptProgress(HELD, step, 20))
        await stream.send(AttemptParked(HELD, 20))
        await stream.send(AttemptResumed(HELD))
        await stream.send(AttemptStopped(HELD, 20))
        await stream.send(Heartbeat())
        await talk.hear("capacity")
        for step in range(20):
            assert (await talk.hear("progress")).progress.step == step
        assert (await talk.hear("parked")).parked.steps_done == 20
        assert (await talk.hear("resumed")).resumed.attempt_id == HELD
        assert (await talk.hear("stopped")).stopped.steps_done == 20
        await talk.hear("heartbeat")


async def test_commands_arrive_in_order(scheduler: Pair) -> None:
    port, desk = scheduler
    commands: list[Command] = [
        assign(),
        Cancel(HELD),
        Park(HELD),
        Resume(HELD),
        Acknowledged(HELD, accepted=False),
        Drain(),
        assign(image_count=3),
    ]
    async with port.connect(HELLO) as stream:
        talk = await desk.dialled()
        for command in commands:
            talk.say(command)
        for command in commands:
            assert await stream.receive() == command


async def test_work_that_makes_no_sense_arrives_as_such(scheduler: Pair) -> None:
    port, desk = scheduler
    async with port.connect(HELLO) as stream:
        (await desk.dialled()).say(Malformed(HELD, "job_id: no id"))
        command = await stream.receive()
    assert isinstance(command, Malformed)
    assert command.attempt_id == HELD


async def test_a_lost_stream_is_told(scheduler: Pair) -> None:
    port, desk = scheduler
    async with port.connect(HELLO) as stream:
        talk = await desk.dialled()
        talk.say(Cancel(HELD))
        talk.lose()
        assert await stream.receive() == Cancel(HELD)
        with pytest.raises(DependencyDown):
            await stream.receive()
    async with port.connect(HELLO):
        await desk.dialled()


async def test_leaving_the_block_drops_the_stream(scheduler: Pair) -> None:
    port, desk = scheduler
    async with port.connect(HELLO):
        talk = await desk.dialled()
        assert not talk.over.is_set()
    await asyncio.wait_for(talk.over.wait(), 10)


async def test_a_farewell_comes_after_all_that_was_said(scheduler: Pair) -> None:
    port, desk = scheduler
    async with port.connect(HELLO) as stream:
        talk = await desk.dialled()
        listening = asyncio.ensure_future(stream.receive())
        for _ in range(20):
            await stream.send(AttemptStopped(HELD, 1))
        await stream.finish()
        assert talk.over.is_set()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert talk.heard.qsize() == 20


# --- Scheduler, over the wire only ------------------------------------------------------------


async def test_nobody_there_is_told_soon(free_port: int) -> None:
    async with open_channel(f"127.0.0.1:{free_port}") as channel:
        with pytest.raises(DependencyDown):
            async with GrpcScheduler(channel).connect(HELLO):
                raise AssertionError


async def test_a_scheduler_that_refuses_is_told() -> None:
    async with serve_lease_service() as (desk, address), open_channel(address) as channel:
        desk.greeting.refusals = 10
        with pytest.raises(DependencyDown, match="no scheduler here"):
            async with GrpcScheduler(channel).connect(HELLO):
                raise AssertionError


async def test_a_scheduler_that_greets_wrongly_is_told() -> None:
    async with serve_lease_service() as (desk, address), open_channel(address) as channel:
        desk.greeting.heartbeat_interval_s = 0
        with pytest.raises(DependencyDown, match="as agreed"):
            async with GrpcScheduler(channel).connect(HELLO):
                raise AssertionError


async def test_a_scheduler_that_stops_is_told() -> None:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(AsyncExitStack())
        desk, address = await house.enter_async_context(serve_lease_service())
        channel = await stack.enter_async_context(open_channel(address))
        async with GrpcScheduler(channel).connect(HELLO) as stream:
            await desk.dialled()
            listening = asyncio.ensure_future(stream.receive())
            await house.aclose()
            with pytest.raises(DependencyDown):
                await listening


# --- Gallery ----------------------------------------------------------------------------------


IN = "users/a/in.png"
BOUNDS = InputBounds(max_bytes=100_000, max_pixels=64 * 64)


@pytest.fixture(params=["memory", "folder"])
async def gallery(request: pytest.FixtureRequest, tmp_path: Path) -> Gallery:
    """One that holds a picture for jobs to read, and one that is too large."""
    if request.param == "memory":
        fake = MemoryGallery()
        fake.inputs[IN] = raster(9, 24, 16)
        fake.inputs["users/a/large.png"] = InvalidInput("picture", "must have at most 4096 pixels")
        return fake
    store = FolderStore(tmp_path, SystemClock())
    await store.put(IN, encode_preview(raster(9, 24, 16)).data, "image/png")
    await store.put("users/a/large.png", encode_preview(raster(9, 72, 64)).data, "image/png")
    return ObjectGallery(store, Patience(), BOUNDS)


async def test_a_picture_is_fetched_as_pixels(gallery: Gallery) -> None:
    assert await gallery.fetch(IN) == raster(9, 24, 16)


async def test_a_picture_that_is_not_there_or_too_large_is_not_fetched(gallery: Gallery) -> None:
    with pytest.raises(NotFound):
        await gallery.fetch("users/a/none.png")
    with pytest.raises(InvalidInput, match="must have at most 4096 pixels"):
        await gallery.fetch("users/a/large.png")


@pytest.mark.parametrize(
    ("file_format", "media_type"),
    [
        (ImageFormat.PNG, "image/png"),
        (ImageFormat.WEBP, "image/webp"),
        (ImageFormat.JPEG, "image/jpeg"),
    ],
)
async def test_a_picture_is_encoded_alike_each_time(
    gallery: Gallery, file_format: ImageFormat, media_type: str
) -> None:
    asked = generation(output=Output(file_format))
    one = await gallery.encode(DrawnPicture(7, raster()), asked)
    two = await gallery.encode(DrawnPicture(7, raster()), asked)
    assert one == two
    assert one.sha256 == hashlib.sha256(one.data).hexdigest()
    assert one.media_type == media_type
    assert one != await gallery.encode(DrawnPicture(8, raster()), asked)


async def test_a_look_and_a_small_picture_have_bytes_and_a_type(gallery: Gallery) -> None:
    look = await gallery.preview(raster(3, 16, 16))
    assert look.data
    assert look.media_type == "image/png"
    small = await gallery.thumbnail(raster(3, 16, 16))
    assert small.data
    assert small.media_type == "image/webp"
    assert small == await gallery.thumbnail(raster(3, 16, 16))


async def test_storing_twice_is_harmless(gallery: Gallery) -> None:
    picture = await gallery.encode(DrawnPicture(7, raster()), generation())
    await gallery.store("users/a/jobs/b/c/0.png", picture)
    await gallery.store("users/a/jobs/b/c/0.png", picture)
