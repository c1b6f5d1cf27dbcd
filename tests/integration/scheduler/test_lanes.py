"""Two lanes on one database: a user is at home in one of them while any of the jobs is open."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from easel.scheduler.v1 import jobs_pb2
from easel_kit.errors import RateLimited
from tests.fakes.scheduler_stack import ALICE, BOB, SchedulerStack, entitlements, submission

Lanes = tuple[SchedulerStack, SchedulerStack]
ONE = entitlements(running=1, waiting=3)


@pytest.fixture
async def lanes(scheduler_url: str, redis_url: str) -> AsyncIterator[Lanes]:
    """West and east."""
    west, east = (SchedulerStack(scheduler_url, redis_url) for _ in range(2))
    async with west.running(lane="west"), east.running(lane="east"):
        yield west, east


async def position(stack: SchedulerStack, job_id: str) -> int:
    return int((await stack.get(job_id)).position)


async def test_a_users_jobs_stay_in_one_lane_and_its_limits_hold_over_all(lanes: Lanes) -> None:
    west, east = lanes
    (first,) = await west.submit(plan=ONE)
    (second,) = await east.submit(plan=ONE)
    assert second.position == 0  # it is on its way to the west
    with pytest.raises(RateLimited):
        await east.submit(*[submission() for _ in range(3)], plan=ONE)
    async with (
        west.worker("w", slots=2, lane="west") as worker,
        east.worker("e", slots=2, lane="east") as idle,
    ):
        job = await worker.is_assigned()
        assert job.job_id == first.id
        await west.eventually(lambda: position(west, second.id))
        await worker.hears_nothing()  # one runs
        await idle.hears_nothing()
        await worker.finishes(job)
        job = await worker.is_assigned()
        assert job.job_id == second.id
        await worker.finishes(job)
        # nothing is open: the next submit may make another lane the home
        (third,) = await east.submit(plan=ONE)
        job = await idle.is_assigned()
        assert job.job_id == third.id
        (fourth,) = await west.submit(plan=ONE)
        await worker.hears_nothing()
        await idle.finishes(job)
        assert (await idle.is_assigned()).job_id == fourth.id


async def test_what_is_done_elsewhere_comes_home(lanes: Lanes) -> None:
    west, east = lanes
    await west.submit(*[submission() for _ in range(5)], user=BOB)
    a, b, c = await west.submit(submission(), submission(), submission())
    assert (a.position, b.position, c.position) == (2, 4, 6)
    await east.jobs.PrependJobs(jobs_pb2.PrependJobsRequest(user_id=ALICE, job_ids=[c.id]))

    async def moved() -> bool:
        return await position(west, c.id) < await position(west, a.id)

    await west.eventually(moved)
    await east.jobs.SetEntitlements(
        jobs_pb2.SetEntitlementsRequest(
            user_id=ALICE, entitlements=entitlements(version=2, priority=100, weight=16)
        )
    )

    async def risen() -> bool:
        return await position(west, b.id) <= 4 and await position(west, c.id) == 1

    await west.eventually(risen)
    await east.cancel(c.id)

    async def gone() -> bool:
        return await position(west, a.id) == 1

    await west.eventually(gone)
    async with west.worker(lane="west") as worker:
        assert (await worker.is_assigned()).job_id == a.id


async def test_a_running_job_is_stopped_from_elsewhere(lanes: Lanes) -> None:
    west, east = lanes
    (job,) = await west.submit()
    async with west.worker(lane="west") as worker:
        assigned = await worker.is_assigned()
        await west.recorded()
        assert (await east.cancel(job.id)).cancel_requested
        assert (await worker.hears("cancel")).attempt_id == assigned.attempt_id
        await worker.stops(assigned)
    assert (await east.get(job.id)).state == jobs_pb2.JOB_STATE_CANCELLED
