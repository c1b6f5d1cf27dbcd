"""Schedulers and stores that die and come back: no job is lost, none ends twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from easel.scheduler.v1 import jobs_pb2
from easel_kit.ids import new_job_id
from easel_local.redis import Redis as RedisServer
from tests.fakes.scheduler_process import scheduler_process
from tests.fakes.scheduler_stack import (
    BOB,
    SchedulerStack,
    entitlements,
    submission,
    within,
)

# longer than the moment between the end of a stream and that of its scheduler, which is a kill
GRACE_S = 30


@pytest.fixture(params=["redis kept", "redis emptied"])
def emptied(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "redis emptied")


async def _after_restart(stack: SchedulerStack, *, emptied: bool) -> None:
    if emptied:
        async with stack.redis as redis:
            await redis.flushall()


async def test_a_worker_keeps_its_attempt_over_a_restart(
    idle_stack: SchedulerStack, *, emptied: bool
) -> None:
    stack = idle_stack
    async with stack.running(reconnect_grace_s=GRACE_S):
        (job,) = await stack.submit()
        async with stack.worker() as worker:
            assigned = await worker.is_assigned()
            await stack.recorded()
    await _after_restart(stack, emptied=emptied)
    async with stack.running(reconnect_grace_s=GRACE_S):
        await asyncio.sleep(0.3)  # the worker is in no hurry: its lease stands
        assert (await stack.get(job.id)).state == jobs_pb2.JOB_STATE_RUNNING
        async with stack.worker(held=(assigned.attempt_id,)) as back:
            assert list(back.welcome.kept_attempt_ids) == [assigned.attempt_id]
            assert (await back.finishes(assigned)).accepted
        done = await stack.get(job.id)
    assert done.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert done.attempts == 1


async def test_a_limit_holds_over_a_restart(idle_stack: SchedulerStack, *, emptied: bool) -> None:
    stack = idle_stack
    plan = entitlements(running=1)
    async with stack.running(reconnect_grace_s=GRACE_S):
        first, second = await stack.submit(submission(), submission(), plan=plan)
        async with stack.worker() as worker:
            assigned = await worker.is_assigned()
            await stack.recorded(1)
    await _after_restart(stack, emptied=emptied)
    async with stack.running(reconnect_grace_s=GRACE_S), stack.worker("worker-2") as other:
        await other.hears_nothing(0.4)  # the slot belongs to the attempt that is still held
        async with stack.worker(held=(assigned.attempt_id,), offer=False) as back:
            await back.finishes(assigned)
        assert (await other.is_assigned()).job_id == second.id
    assert assigned.job_id == first.id


async def test_a_worker_that_never_returns_costs_one_lease(
    idle_stack: SchedulerStack, *, emptied: bool
) -> None:
    stack = idle_stack
    async with stack.running(reconnect_grace_s=GRACE_S, lease_ttl_s=0.6, heartbeat_s=0.1):
        (job,) = await stack.submit()
        async with stack.worker() as worker:
            await worker.is_assigned()
            await stack.recorded()
    await _after_restart(stack, emptied=emptied)
    async with (
        stack.running(reconnect_grace_s=GRACE_S, lease_ttl_s=0.6, heartbeat_s=0.1),
        stack.worker("worker-2") as other,
    ):
        again = await other.is_assigned()
        assert (again.job_id, again.attempt_number) == (job.id, 2)
        counted = await stack.row("SELECT counted FROM attempts WHERE number = 1")
        assert counted is not emptied  # a lost store is nobody's failure
        assert (await other.finishes(again)).accepted


async def test_waiting_jobs_survive_in_their_order(
    idle_stack: SchedulerStack, *, emptied: bool
) -> None:
    stack = idle_stack
    async with stack.running(reconnect_grace_s=GRACE_S):
        jobs = await stack.submit(*[submission() for _ in range(5)])
    await _after_restart(stack, emptied=emptied)
    async with stack.running(reconnect_grace_s=GRACE_S), stack.worker(slots=5) as worker:
        assert [(await worker.is_assigned()).job_id for _ in jobs] == [job.id for job in jobs]


async def test_an_emptied_redis_is_filled_again_while_all_run(stack: SchedulerStack) -> None:
    plan = entitlements(running=1)
    first, second = await stack.submit(submission(), submission(), plan=plan)
    async with stack.worker() as worker, stack.worker("worker-2", offer=False) as other:
        assigned = await worker.is_assigned()
        assert assigned.job_id == first.id
        await stack.recorded(1)
        await _after_restart(stack, emptied=True)
        await other.takes(1)
        await other.hears_nothing(0.5)  # the limit holds
        await worker.finishes(assigned)
        await worker.takes(0)
        assert (await other.is_assigned()).job_id == second.id
        await stack.recorded(2)


async def test_a_job_whose_admission_was_lost_is_admitted(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.redis as redis:
        await redis.flushall()
    async with stack.worker() as worker:
        assert (await worker.is_assigned()).job_id == job.id


async def test_a_job_that_ended_behind_the_queues_back_is_forgotten(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    await stack.execute("UPDATE jobs SET state = 'cancelled', finished_at = now()")

    async def gone() -> bool:
        async with stack.redis as redis:
            return not await redis.exists(f"easel:{{default}}:j:{job.id}")

    await stack.eventually(gone)
    async with stack.worker() as worker:
        await worker.hears_nothing()


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that a test may stop."""
    async with RedisServer(tmp_path) as server:
        yield server


async def test_jobs_are_accepted_while_redis_is_away(
    scheduler_url: str, own_redis: RedisServer
) -> None:
    stack = SchedulerStack(scheduler_url, own_redis.url)
    async with stack.running(reconnect_grace_s=GRACE_S):
        await own_redis.stop()
        (job,) = await stack.submit()
        assert (await stack.get(job.id)).state == jobs_pb2.JOB_STATE_QUEUED
        (gone,) = await stack.submit(user=BOB)
        assert (await stack.cancel(gone.id, BOB)).state == jobs_pb2.JOB_STATE_CANCELLED
        await own_redis.start()
        async with stack.worker() as worker:
            assigned = await worker.is_assigned()
            assert assigned.job_id == job.id
            await worker.finishes(assigned)


async def test_work_goes_on_while_redis_is_away(scheduler_url: str, own_redis: RedisServer) -> None:
    stack = SchedulerStack(scheduler_url, own_redis.url)
    async with stack.running(reconnect_grace_s=GRACE_S, lease_ttl_s=2, heartbeat_s=0.2):
        first, second = await stack.submit(submission(), submission())
        async with stack.worker(slots=2) as worker:
            one, two = await worker.is_assigned(), await worker.is_assigned()
            await stack.recorded(2)
            await own_redis.stop()
            assert (await worker.finishes(one)).accepted
            assert (await stack.get(first.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED
            await own_redis.start()
            await worker.hears_nothing(0.5)
            assert (await worker.finishes(two)).accepted
            (third,) = await stack.submit()
            await worker.takes(2)
            assert (await worker.is_assigned()).job_id == third.id
        assert (await stack.get(second.id)).attempts == 1


async def test_kill_9_in_the_middle_of_a_job_ends_it_once(
    idle_stack: SchedulerStack, tmp_path: Path
) -> None:
    stack = idle_stack
    database = await asyncpg.connect(
        stack.database_url, server_settings={"search_path": "scheduler"}
    )
    async with scheduler_process(stack, tmp_path) as replica, stack.worker() as worker:
        job_id = new_job_id()
        await stack.submit(submission(job_id))
        assigned = await worker.is_assigned()
        await replica.kill()
    async with scheduler_process(stack, tmp_path) as replica:
        async with stack.worker(held=(assigned.attempt_id,)) as back:
            assert list(back.welcome.kept_attempt_ids) == [assigned.attempt_id]
            assert (await back.finishes(assigned)).accepted
        replica.process.terminate()
        assert await within(replica.process.wait()) == 0
    assert await database.fetchval("SELECT count(*) FROM events WHERE type = 'succeeded'") == 1
    assert await database.fetchval("SELECT open FROM open_jobs") == 0
    await database.close()
