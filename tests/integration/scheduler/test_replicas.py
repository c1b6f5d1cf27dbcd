"""Several schedulers on one database and one Redis: workers, callers, watchers on any of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from easel.scheduler.v1 import jobs_pb2
from tests.fakes.scheduler_process import scheduler_process
from tests.fakes.scheduler_stack import (
    ALICE,
    BOB,
    SchedulerStack,
    entitlements,
    submission,
    within,
)


@pytest.fixture
def idle_pair(idle_stack: SchedulerStack) -> tuple[SchedulerStack, SchedulerStack]:
    """Two replicas that a test starts and stops itself."""
    return idle_stack, SchedulerStack(idle_stack.database_url, idle_stack.redis_url)


@pytest.fixture
async def pair(
    idle_pair: tuple[SchedulerStack, SchedulerStack],
) -> AsyncIterator[tuple[SchedulerStack, SchedulerStack]]:
    """Two replicas that run."""
    here, there = idle_pair
    # nothing but signals between them brings the tests on in time
    async with (
        here.running(reconcile_every_s=60, expire_every_s=60),
        there.running(reconcile_every_s=60, expire_every_s=60),
    ):
        yield idle_pair


Pair = tuple[SchedulerStack, SchedulerStack]


async def test_a_job_submitted_here_starts_at_an_idle_worker_there(pair: Pair) -> None:
    here, there = pair
    async with there.worker() as worker:
        await worker.hears_nothing()
        (job,) = await here.submit()
        assigned = await worker.is_assigned()
        assert assigned.job_id == job.id
        assert (await worker.finishes(assigned)).accepted
    assert (await here.get(job.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_a_slot_freed_here_is_filled_there(pair: Pair) -> None:
    here, there = pair
    plan = entitlements(running=1)
    first, second = await here.submit(submission(), submission(), plan=plan)
    async with here.worker() as one, there.worker("worker-2", offer=False) as two:
        assigned = await one.is_assigned()
        assert assigned.job_id == first.id
        await two.takes(1)
        await two.hears_nothing()  # the limit holds over all replicas
        await one.takes(0)
        await one.finishes(assigned)
        assert (await two.is_assigned()).job_id == second.id


async def test_a_drain_and_a_paid_job_here_reach_a_worker_there(pair: Pair) -> None:
    here, there = pair
    async with there.worker(can_park=True) as worker:
        await here.submit(plan=entitlements(priority=0, weight=1))
        free = await worker.is_assigned()
        await here.submit(user=BOB, plan=entitlements(priority=100, weight=16))
        await worker.parks(free)
        await worker.takes(1)
        assert (await worker.is_assigned()).user_id == BOB
        await here.jobs.DrainWorker(jobs_pb2.DrainWorkerRequest(worker_id="worker-1"))
        await worker.hears("drain")


async def test_a_cancel_here_stops_a_worker_there(pair: Pair) -> None:
    here, there = pair
    async with there.worker() as worker:
        (job,) = await here.submit()
        assigned = await worker.is_assigned()
        await here.recorded()
        await here.cancel(job.id)
        assert (await worker.hears("cancel")).attempt_id == assigned.attempt_id
        assert (await worker.stops(assigned)).accepted
    assert (await here.get(job.id)).state == jobs_pb2.JOB_STATE_CANCELLED


async def test_progress_and_previews_there_are_seen_here(pair: Pair) -> None:
    here, there = pair
    async with there.worker() as worker:
        (job,) = await here.submit()
        assigned = await worker.is_assigned()
        watch = here.jobs.WatchJob(jobs_pb2.WatchJobRequest(user_id=ALICE, job_id=job.id))
        seen = aiter(watch)
        await within(anext(seen))
        await worker.progresses(assigned, 4, preview=b"\x89PNG")

        async def step() -> jobs_pb2.WatchJobResponse:
            while (found := await anext(seen)).job.progress.step < 4:
                pass
            return found

        assert (await within(step())).preview == b"\x89PNG"
        await worker.finishes(assigned)

        async def end() -> jobs_pb2.WatchJobResponse:
            found = [one async for one in seen]
            return found[-1]

        assert (await within(end())).job.state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_the_feed_here_tells_what_ended_there(pair: Pair) -> None:
    here, there = pair
    (job,) = await there.submit()
    await there.cancel(job.id)
    events = await here.events(2)
    assert [event.job_id for event in events] == [job.id, job.id]


async def test_a_worker_moves_with_its_attempt_when_its_replica_is_killed(
    idle_pair: Pair, tmp_path: Path
) -> None:
    here, there = idle_pair
    async with scheduler_process(there, tmp_path):
        async with scheduler_process(here, tmp_path) as replica:
            (job,) = await there.submit()
            async with here.worker() as worker:
                assigned = await worker.is_assigned()
                await there.recorded()
                await replica.kill()
        async with there.worker(held=(assigned.attempt_id,)) as moved:
            assert list(moved.welcome.kept_attempt_ids) == [assigned.attempt_id]
            assert (await moved.finishes(assigned)).accepted
        done = await there.get(job.id)
        assert (done.state, done.attempts) == (jobs_pb2.JOB_STATE_SUCCEEDED, 1)


async def test_a_worker_moves_although_its_old_replica_lives(pair: Pair) -> None:
    here, there = pair
    (job,) = await here.submit()
    async with here.worker() as worker:
        assigned = await worker.is_assigned()
        async with there.worker(held=(assigned.attempt_id,)) as moved:
            assert list(moved.welcome.kept_attempt_ids) == [assigned.attempt_id]
            worker.dies()  # the old stream's end takes nothing from the new one
            await moved.hears_nothing(0.4)
            assert (await moved.finishes(assigned)).accepted
    assert (await there.get(job.id)).attempts == 1


async def test_a_storm_of_reconnects_keeps_every_attempt(idle_pair: Pair) -> None:
    here, there = idle_pair
    names = [f"worker-{number}" for number in range(8)]
    async with there.running(reconnect_grace_s=5):
        async with here.running(reconnect_grace_s=5), AsyncExitStack() as streams:
            await here.submit(*[submission() for _ in names])
            workers = [await streams.enter_async_context(here.worker(name)) for name in names]
            held = [await worker.is_assigned() for worker in workers]
            await here.recorded(len(names))
        async with AsyncExitStack() as streams:
            moved = [
                there.worker(name, held=(job.attempt_id,))
                for name, job in zip(names, held, strict=True)
            ]
            workers = await asyncio.gather(*map(streams.enter_async_context, moved))
            for worker, job in zip(workers, held, strict=True):
                assert list(worker.welcome.kept_attempt_ids) == [job.attempt_id]
                assert (await worker.finishes(job)).accepted
        assert await there.row("SELECT count(*) FROM attempts") == len(names)


async def test_an_emptied_redis_is_filled_while_workers_of_both_keep_their_work(
    idle_pair: Pair,
) -> None:
    here, there = idle_pair
    plan = entitlements(running=2)
    async with here.running(), there.running():
        jobs = await here.submit(*[submission() for _ in range(4)], plan=plan)
        async with here.worker() as one, there.worker("worker-2") as two:
            first, second = await one.is_assigned(), await two.is_assigned()
            await here.recorded(2)
            async with here.redis as redis:
                await redis.flushall()
            (late,) = await there.submit(user=BOB)  # accepted all the same
            assert (await one.finishes(first)).accepted
            await one.takes(1)
            third = await one.is_assigned()
            assert {first.job_id, second.job_id} == {jobs[0].id, jobs[1].id}
            assert third.job_id in {jobs[2].id, late.id}
            assert (await two.finishes(second)).accepted
            assert (await one.finishes(third)).accepted
        assert await here.row("SELECT max(attempts) FROM jobs") == 1


async def test_leases_that_run_out_are_taken_back_once(idle_pair: Pair) -> None:
    here, there = idle_pair
    async with (
        here.running(lease_ttl_s=0.6, heartbeat_s=0.1),
        there.running(lease_ttl_s=0.6, heartbeat_s=0.1),
    ):
        (job,) = await here.submit()
        async with here.worker(hung=True) as silent:
            lost = await silent.is_assigned()
            await here.recorded()
            async with there.worker("worker-2") as other:
                again = await other.is_assigned()
                assert (again.job_id, again.attempt_number) == (job.id, 2)
                assert (await silent.hears("cancel")).attempt_id == lost.attempt_id
                assert (await other.finishes(again)).accepted
        assert await here.row("SELECT count(*) FROM attempts WHERE counted") == 1
        assert await here.row("SELECT attempts FROM jobs") == 2
