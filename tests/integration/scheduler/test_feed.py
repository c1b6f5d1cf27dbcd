"""The event feed on a real database: every change once, in commit order, without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from easel.scheduler.v1 import events_pb2, events_pb2_grpc, jobs_pb2, lease_pb2
from easel_kit.db import open_pool
from easel_kit.errors import InvalidInput, OutOfRange
from easel_kit.telemetry import span
from scheduler.storage.events import PostgresFeed
from tests.fakes.scheduler_stack import ALICE, SchedulerStack, entitlements, submission, within

EVENT = """
    INSERT INTO events (generation, type, job_id, user_id, occurred_at, steps_done, steps, images,
        traceparent)
    VALUES (1, 'queued', $1, 'alice', now(), 0, 10, '[]', '')
"""


@pytest.fixture
async def other(stack: SchedulerStack) -> AsyncIterator[asyncpg.Connection]:
    """Another connection to the scheduler's schema."""
    connection = await asyncpg.connect(
        stack.database_url, server_settings={"search_path": "scheduler"}
    )
    yield connection
    await connection.close()


async def test_each_change_is_told_once_with_all_it_takes(stack: SchedulerStack) -> None:
    done, failed, cancelled = await stack.submit(submission(), submission(), submission())
    async with stack.worker() as worker:
        await worker.finishes(await worker.is_assigned())
        await worker.takes(1)
        await worker.fails(await worker.is_assigned(), lease_pb2.FAILURE_KIND_CALLER)
    await stack.cancel(cancelled.id)
    events = await stack.events(6)
    kinds = [(event.job_id, event.type) for event in events]
    assert kinds == [
        (done.id, events_pb2.EVENT_TYPE_QUEUED),
        (failed.id, events_pb2.EVENT_TYPE_QUEUED),
        (cancelled.id, events_pb2.EVENT_TYPE_QUEUED),
        (done.id, events_pb2.EVENT_TYPE_SUCCEEDED),
        (failed.id, events_pb2.EVENT_TYPE_FAILED),
        (cancelled.id, events_pb2.EVENT_TYPE_CANCELLED),
    ]
    assert {event.user_id for event in events} == {ALICE}
    assert len(events[3].images) == 1
    assert (events[3].progress.step, events[3].progress.steps) == (10, 10)
    assert events[4].error.code == "out_of_memory"
    assert not events[3].HasField("error")
    places = [
        (event.cursor.generation, event.cursor.transaction_id, event.cursor.sequence)
        for event in events
    ]
    assert places == sorted(places)


async def test_the_trace_of_the_submit_leads_on(stack: SchedulerStack) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    request = jobs_pb2.SubmitJobsRequest(
        user_id=ALICE, entitlements=entitlements(), jobs=[submission()]
    )
    with span("caller", traceparent=f"00-{trace_id}-b7ad6b7169203331-01"):
        await stack.jobs.SubmitJobs(request)
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        await worker.finishes(assigned)
    queued, done = await stack.events(2)
    for traceparent in (assigned.traceparent, queued.traceparent, done.traceparent):
        assert traceparent.split("-")[1] == trace_id


async def test_a_reader_goes_on_after_its_cursor(stack: SchedulerStack) -> None:
    await stack.submit(submission(), submission())
    first, second = await stack.events(2)
    assert await stack.events(1, after=first.cursor) == [second]


async def test_new_events_reach_a_waiting_reader(stack: SchedulerStack) -> None:
    reading = asyncio.create_task(stack.events(1))
    await asyncio.sleep(0.05)
    assert not reading.done()
    (job,) = await stack.submit()
    (event,) = await within(reading)
    assert event.job_id == job.id


async def test_a_ring_of_another_process_is_heard(
    stack: SchedulerStack, other: asyncpg.Connection
) -> None:
    reading = asyncio.create_task(stack.events(1))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(3):  # well below the slow re-check
        while not reading.done():
            await other.execute(EVENT, "job_elsewhere") if not reading.done() else None
            await other.execute("SELECT pg_notify('easel_scheduler_events', '')")
            await asyncio.wait({reading}, timeout=0.2)
    assert (await reading)[0].job_id == "job_elsewhere"


async def test_a_transaction_that_commits_late_is_not_skipped(
    stack: SchedulerStack, other: asyncpg.Connection
) -> None:
    early = other.transaction()
    await early.start()
    await other.execute(EVENT, "job_early")  # takes the lower transaction id
    (job,) = await stack.submit()  # commits first
    reading = asyncio.create_task(stack.events(2))
    await asyncio.sleep(0.1)
    assert not reading.done()  # what commits first is held back
    await early.commit()
    events = await within(reading)
    assert [event.job_id for event in events] == ["job_early", job.id]
    assert events[0].cursor.transaction_id < events[1].cursor.transaction_id
    assert await stack.events(1, after=events[0].cursor) == [events[1]]


async def test_many_writers_and_a_reader_that_stops_often_miss_nothing(
    stack: SchedulerStack,
) -> None:
    async def write(user: str) -> None:
        for _ in range(8):
            await stack.submit(user=user)

    writing = asyncio.gather(*[write(f"user-{number}") for number in range(6)])
    seen: list[str] = []
    cursor = events_pb2.Cursor()
    while len(seen) < 48:
        events = await stack.events(1, after=cursor)
        seen += [event.job_id for event in events]
        cursor = events[-1].cursor
    await writing
    assert len(seen) == len(set(seen)) == 48


async def test_a_cursor_below_what_is_kept_is_out_of_range(stack: SchedulerStack) -> None:
    await stack.submit(submission(), submission())
    first, second = await stack.events(2)
    await stack.execute(
        "UPDATE events SET occurred_at = now() - interval '40 days' WHERE sequence = $1",
        first.cursor.sequence,
    )
    async with open_pool(stack.database_url, schema="scheduler", name="test") as pool:
        feed = PostgresFeed(pool)
        assert await feed.prune(older_than_s=30 * 86_400) == 1
        assert await feed.prune(older_than_s=30 * 86_400) == 0
    below = events_pb2.Cursor(generation=first.cursor.generation, transaction_id=1)
    with pytest.raises(OutOfRange):
        await stack.events(1, after=below)
    assert await stack.events(1, after=first.cursor) == [second]
    assert await stack.events(1) == [second], "a new consumer begins with what is kept"


async def test_a_restored_database_goes_on_under_a_higher_generation(
    stack: SchedulerStack,
) -> None:
    await stack.submit()
    (before,) = await stack.events(1)
    # as after a restore: old rows bear transaction ids that this server has not reached
    await stack.execute("UPDATE events SET transaction_id = 2^40")
    await stack.execute("UPDATE feed SET generation = 2")
    (job,) = await stack.submit()
    old, new = await stack.events(2)
    assert old.job_id == before.job_id
    assert (new.job_id, new.cursor.generation) == (job.id, 2)
    assert await stack.events(1, after=old.cursor) == [new]
    with pytest.raises(OutOfRange):
        await stack.events(1, after=events_pb2.Cursor(generation=3))


async def test_a_cursor_that_cannot_be_is_refused(stack: SchedulerStack) -> None:
    for wrong in ({"generation": -1}, {"sequence": -1}, {"transaction_id": 2**64 - 1}):
        with pytest.raises(InvalidInput):
            await stack.events(1, after=events_pb2.Cursor(**wrong))


async def test_a_stopping_scheduler_sends_its_readers_away(idle_stack: SchedulerStack) -> None:
    async with idle_stack.running(graceful=True, grace_s=30) as stack:
        assert stack._channel is not None
        stub = events_pb2_grpc.EventServiceStub(stack._channel)
        call = stub.Subscribe(events_pb2.SubscribeRequest())
        await stack.submit()
        assert (await within(anext(aiter(call)))).events
