"""A job's events: their order, taking up a cut stream, and streams that end with the process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from easel.scheduler.v1 import jobs_pb2
from easel_kit import errors
from tests.fakes.gateway import Gateway, Start, until

Event = tuple[str, str, dict[str, Any]]


class Stream:
    """Reads events one by one; keeps comments apart."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.comments: list[str] = []

    async def next(self) -> Event | None:
        """Name, id and data of the next event; None at the end."""
        found: dict[str, str] = {}
        async with asyncio.timeout(5):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments.append(line)
                elif line:
                    name, _, value = line.partition(": ")
                    found[name] = value
                elif "data" in found:
                    return found["event"], found["id"], json.loads(found["data"])
        return None


@asynccontextmanager
async def events(gateway: Gateway, job: str, last: str = "") -> AsyncIterator[Stream]:
    headers = gateway.auth() | ({"Last-Event-ID": last} if last else {})
    path = f"/v1/generations/{job}/events"
    async with gateway.http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Stream(answer.aiter_lines())


async def test_a_job_is_told_from_queue_to_end(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    async with events(gateway, job) as stream:
        assert await stream.next() == ("queued", "queued-1", {"position": 1, "eta_seconds": 2.5})
        await gateway.scheduler.start(job)
        assert await stream.next() == ("started", "started-1", {"attempt": 1})
        await gateway.scheduler.step(job, 4, preview=b"\x89PNG")
        name, event_id, data = await stream.next() or ("", "", {})
        assert (name, event_id) == ("progress", "progress-1-4")
        assert data == {
            "step": 4,
            "steps": 10,
            "percent": 40,
            "preview": "data:image/png;base64,iVBORw==",
        }
        image = await gateway.scheduler.succeed(job)
        name, event_id, data = await stream.next() or ("", "", {})
        assert (name, event_id) == ("succeeded", "succeeded")
        assert data["generation"]["state"] == "succeeded"
        assert data["generation"]["price_millicredits"] == 40
        assert await stream.next() is None
    url = data["generation"]["images"][0]["url"]
    assert url == f"/v1/images/{image.id}/content"
    assert (await gateway.http.get(url, headers=gateway.auth())).status_code == 307


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_other_ends_are_told_too(gateway: Gateway, state: str) -> None:
    job = (await gateway.submit())["id"]
    await gateway.scheduler.end(job, jobs_pb2.JobState.Value(f"JOB_STATE_{state.upper()}"))
    async with events(gateway, job) as stream:
        event = await stream.next()
        assert event is not None
        assert (event[0], event[2]["generation"]["state"]) == (state, state)
        assert await stream.next() is None


async def test_a_cut_stream_goes_on_after_the_last_event(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    await gateway.scheduler.start(job)
    await gateway.scheduler.step(job, 3)
    async with events(gateway, job, last="started-1") as stream:
        assert (await stream.next() or ("",))[0] == "progress"
    await gateway.scheduler.end(job, jobs_pb2.JOB_STATE_FAILED)
    headers = gateway.auth() | {"Last-Event-ID": "failed"}
    over = await gateway.http.get(f"/v1/generations/{job}/events", headers=headers)
    assert (over.status_code, over.content) == (204, b"")


async def test_a_second_try_is_told(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    await gateway.scheduler.start(job)
    async with events(gateway, job) as stream:
        assert (await stream.next() or ("", ""))[1] == "started-1"
        await gateway.scheduler.step(job, 5)
        assert (await stream.next() or ("", ""))[1] == "progress-1-5"
        await gateway.scheduler.start(job)
        assert (await stream.next() or ("", ""))[1] == "started-2"


async def test_an_outage_of_the_scheduler_is_bridged(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    asked = 0

    async def away() -> None:
        nonlocal asked
        asked += 1
        raise errors.DependencyDown("away")

    async with events(gateway, job) as stream:
        assert (await stream.next() or ("",))[0] == "queued"
        gateway.scheduler.fault = away
        await gateway.scheduler.start(job)
        await until(lambda: asked >= 2)
        gateway.scheduler.fault = None
        assert (await stream.next() or ("",))[0] == "started"


async def test_a_client_that_leaves_is_watched_for_no_longer(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    async with events(gateway, job) as stream:
        await stream.next()
        assert gateway.scheduler.watchers == 1
    await until(lambda: gateway.scheduler.watchers == 0)


async def test_open_streams_end_when_the_gateway_stops(start: Start) -> None:
    async with start(grace_s=30) as gateway:
        job = (await gateway.submit())["id"]
        async with events(gateway, job) as stream:
            await stream.next()
            gateway.stop.set()
            assert await stream.next() is None
            await until(lambda: gateway.scheduler.watchers == 0)


async def test_a_refusal_comes_before_the_stream(gateway: Gateway) -> None:
    path = "/v1/generations/job_x/events"
    assert (await gateway.http.get(path)).status_code == 401
    answer = await gateway.http.get(path, headers=gateway.auth())
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
