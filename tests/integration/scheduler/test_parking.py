"""Attempts that give way to jobs of a higher priority, over real streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from easel.scheduler.v1 import jobs_pb2
from easel.scheduler.v1 import lease_pb2 as lease
from tests.fakes.scheduler_stack import (
    BOB,
    FakeWorker,
    SchedulerStack,
    entitlements,
    submission,
)

FREE = entitlements(priority=0, weight=1)
PAID = entitlements(priority=100, weight=16)


async def _holds(stack: SchedulerStack, running: int, *, parked: int) -> None:
    """Waits until the only worker is listed with these."""

    async def look() -> bool:
        answer = await stack.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())
        return [(one.running, one.parked) for one in answer.workers] == [(running, parked)]

    await stack.eventually(look)


async def _preempted(
    stack: SchedulerStack, worker: FakeWorker
) -> tuple[lease.Assign, lease.Assign]:
    """A free user's attempt that was set aside, and the paid one in its place."""
    await stack.submit(plan=FREE)
    free = await worker.is_assigned()
    await stack.submit(user=BOB, plan=PAID)
    await worker.parks(free)
    await worker.takes(1)
    paid = await worker.is_assigned()
    assert paid.user_id == BOB
    return free, paid


async def test_a_paid_job_takes_the_slot_of_a_free_one_which_goes_on_after_it(
    stack: SchedulerStack,
) -> None:
    async with stack.worker(can_park=True) as worker:
        free, paid = await _preempted(stack, worker)
        await _holds(stack, 2, parked=1)
        seen = await stack.get(free.job_id)
        assert (seen.state, seen.parked) == (jobs_pb2.JOB_STATE_RUNNING, True)
        assert (await worker.finishes(paid)).accepted
        await worker.takes(1)
        await worker.resumes(free)
        await worker.takes(0)
        await _holds(stack, 1, parked=0)
        assert not (await stack.get(free.job_id)).parked
        assert (await worker.finishes(free)).accepted
    assert await stack.row("SELECT max(attempts) FROM jobs") == 1


async def test_nothing_is_set_aside_while_someone_has_room_or_cannot_park(
    stack: SchedulerStack,
) -> None:
    async with stack.worker("a", can_park=True) as parker, stack.worker("b", offer=False) as other:
        await stack.submit(plan=FREE)
        free = await parker.is_assigned()
        await other.takes(1)
        await other.hears_nothing()
        await stack.submit(user=BOB, plan=PAID)
        paid = await other.is_assigned()
        await parker.hears_nothing()
        await stack.submit(plan=FREE)  # no reason to set anything aside
        await parker.hears_nothing()
        await parker.finishes(free)
        await parker.takes(1)
        free = await parker.is_assigned()
        await stack.submit(user=BOB, plan=PAID)
        await parker.parks(free)
        assert (await other.finishes(paid)).accepted


async def test_a_worker_that_cannot_park_is_not_asked_to(stack: SchedulerStack) -> None:
    async with stack.worker() as worker:
        await stack.submit(plan=FREE)
        free = await worker.is_assigned()
        await stack.submit(user=BOB, plan=PAID)
        await worker.hears_nothing()
        await worker.finishes(free)


async def test_a_running_limit_counts_what_is_parked(stack: SchedulerStack) -> None:
    one = entitlements(priority=0, weight=1, running=1)
    async with stack.worker(can_park=True) as worker, stack.worker("b", offer=False) as other:
        await stack.submit(plan=one)
        free = await worker.is_assigned()
        await stack.submit(user=BOB, plan=PAID)
        await worker.parks(free)
        await worker.takes(1)
        await worker.is_assigned()
        (second,) = await stack.submit(plan=one)
        await other.takes(1)
        await other.hears_nothing()
        await stack.cancel(free.job_id)
        assert (await worker.hears("cancel")).attempt_id == free.attempt_id
        assert (await worker.stops(free)).accepted
        assert (await other.is_assigned()).job_id == second.id
    assert (await stack.get(free.job_id)).state == jobs_pb2.JOB_STATE_CANCELLED


async def test_a_parked_attempt_may_end_without_going_on(stack: SchedulerStack) -> None:
    async with stack.worker(can_park=True) as worker:
        free, paid = await _preempted(stack, worker)
        assert (await worker.hands_back(free)).accepted
        await _holds(stack, 1, parked=0)
        await worker.finishes(paid)
        await worker.takes(1)
        again = await worker.is_assigned()
        assert (again.job_id, again.attempt_number) == (free.job_id, 2)


async def test_an_attempt_that_ends_before_it_is_parked_needs_no_parking(
    stack: SchedulerStack,
) -> None:
    async with stack.worker(can_park=True) as worker:
        await stack.submit(plan=FREE)
        free = await worker.is_assigned()
        await stack.submit(user=BOB, plan=PAID)
        await worker.hears("park")
        assert (await worker.finishes(free)).accepted
        await worker.takes(1)
        assert (await worker.is_assigned()).user_id == BOB
        await _holds(stack, 1, parked=0)


@pytest.fixture
async def brief(idle_stack: SchedulerStack) -> AsyncIterator[SchedulerStack]:
    """A scheduler that lets nothing be parked for long, and nothing more than once."""
    async with idle_stack.running(park_max_s=0.3, park_max_times=1):
        yield idle_stack


async def test_a_parked_attempt_goes_on_in_time_room_or_not_and_is_not_parked_too_often(
    brief: SchedulerStack,
) -> None:
    async with brief.worker(can_park=True) as worker:
        free, paid = await _preempted(brief, worker)
        await worker.resumes(free)
        await worker.takes(0)
        await _holds(brief, 2, parked=0)
        await worker.finishes(paid)
        await brief.submit(user=BOB, plan=PAID)
        await worker.hears_nothing()  # the slot is the free job's, which was parked once
        await worker.finishes(free)
        await worker.takes(1)
        assert (await worker.is_assigned()).user_id == BOB


async def test_the_death_of_its_worker_loses_a_parked_attempt_like_any_other(
    stack: SchedulerStack,
) -> None:
    async with stack.worker(can_park=True) as worker, stack.worker("b", offer=False) as other:
        free, paid = await _preempted(stack, worker)
        worker.dies()
        await other.takes(1)
        again = await other.is_assigned()
        assert (again.job_id, again.attempt_number) == (paid.job_id, 2)
        await other.finishes(again)
        await other.takes(1)
        again = await other.is_assigned()
        assert (again.job_id, again.attempt_number) == (free.job_id, 2)


async def test_a_worker_that_reconnects_says_what_it_has_parked(stack: SchedulerStack) -> None:
    async with stack.worker(can_park=True) as worker:
        free, paid = await _preempted(stack, worker)
    held = (free.attempt_id, paid.attempt_id)
    async with stack.worker(can_park=True, held=held, parked=held[:1], offer=False) as back:
        assert set(back.welcome.kept_attempt_ids) == set(held)
        await _holds(stack, 2, parked=1)
        await back.finishes(paid)
        await back.takes(1)
        await back.resumes(free)
        assert (await back.finishes(free)).accepted


async def test_a_lost_redis_forgets_nothing_that_workers_have_parked(
    stack: SchedulerStack,
) -> None:
    async with stack.worker(can_park=True) as worker:
        free, paid = await _preempted(stack, worker)
        await stack.recorded(2)
        async with stack.redis as redis:
            await redis.flushall()

        await _holds(stack, 2, parked=1)
        assert (await worker.finishes(paid)).accepted
        await worker.takes(1)
        await worker.resumes(free)
        assert (await worker.finishes(free)).accepted


async def test_a_lost_order_is_given_again(stack: SchedulerStack) -> None:
    async with stack.worker(can_park=True) as worker:
        await stack.submit(plan=FREE)
        free = await worker.is_assigned()
        await stack.submit(user=BOB, plan=PAID)
        await worker.hears("park")  # and says nothing
        async with stack.redis as redis:
            await redis.zadd("easel:{default}:asked", {free.attempt_id: 0})
        await worker.parks(free)
        await worker.says(parked=lease.AttemptParked(attempt_id=free.attempt_id, steps_done=3))
        await worker.takes(1)
        assert (await worker.is_assigned()).user_id == BOB
        await _holds(stack, 2, parked=1)


async def test_a_job_has_one_attempt_set_aside_for_it_the_last_started_first(
    stack: SchedulerStack,
) -> None:
    async with stack.worker(slots=2, can_park=True) as worker:
        await stack.submit(plan=FREE)
        first = await worker.is_assigned()
        await stack.submit(submission(), plan=FREE)
        second = await worker.is_assigned()
        await stack.submit(user=BOB, plan=PAID)
        await worker.parks(second)
        await worker.hears_nothing()
        await worker.takes(1)
        assert (await worker.is_assigned()).user_id == BOB
        await stack.submit(user=BOB, plan=PAID)
        await worker.parks(first)
        await _holds(stack, 3, parked=2)


async def test_work_of_the_same_priority_gives_way_to_none(stack: SchedulerStack) -> None:
    async with stack.worker(can_park=True) as worker:
        await stack.submit(plan=PAID)
        await worker.is_assigned()
        await stack.submit(user=BOB, plan=PAID)
        await stack.submit(user="carol", plan=FREE)
        await worker.hears_nothing()
