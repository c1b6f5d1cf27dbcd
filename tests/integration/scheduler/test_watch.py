"""Watching jobs: state, position, progress, previews, and the end of the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from easel.scheduler.v1 import jobs_pb2
from tests.fakes.scheduler_stack import (
    ALICE,
    BOB,
    PATIENCE_S,
    SchedulerStack,
    entitlements,
    submission,
    within,
)


class Watcher:
    """Reads one watch stream."""

    def __init__(self, stream: AsyncIterator[jobs_pb2.WatchJobResponse]) -> None:
        self._stream = stream

    async def sees(self) -> jobs_pb2.WatchJobResponse:
        return await within(anext(self._stream))

    async def sees_step(self, step: int) -> jobs_pb2.WatchJobResponse:
        async with asyncio.timeout(PATIENCE_S):
            while (seen := await anext(self._stream)).job.progress.step < step:
                pass
        return seen

    async def sees_state(self, state: jobs_pb2.JobState.ValueType) -> jobs_pb2.WatchJobResponse:
        async with asyncio.timeout(PATIENCE_S):
            while (seen := await anext(self._stream)).job.state != state:
                pass
        return seen

    async def ends(self) -> bool:
        return await within(anext(self._stream, None)) is None


@asynccontextmanager
async def watching(stack: SchedulerStack, job_id: str, user: str = ALICE) -> AsyncIterator[Watcher]:
    call = stack.jobs.WatchJob(jobs_pb2.WatchJobRequest(user_id=user, job_id=job_id))
    try:
        yield Watcher(aiter(call))
    finally:
        call.cancel()


async def test_a_watcher_sees_a_jobs_whole_life(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with watching(stack, job.id) as watcher:
        first = await watcher.sees()
        assert first.job.state == jobs_pb2.JOB_STATE_QUEUED
        assert first.job.position == 1
        async with stack.worker() as worker:
            assigned = await worker.is_assigned()
            await watcher.sees_state(jobs_pb2.JOB_STATE_RUNNING)
            await worker.progresses(assigned, 3, preview=b"\x89PNG\n\nbytes")
            seen = await watcher.sees_step(3)
            assert (seen.preview, seen.preview_media_type) == (b"\x89PNG\n\nbytes", "image/png")
            assert seen.job.progress == jobs_pb2.Progress(step=3, steps=10)
            assert seen.job.timeline.first_step_at.seconds
            await worker.progresses(assigned, 7)
            assert (await watcher.sees_step(7)).preview == b""
            await worker.finishes(assigned)
            last = await watcher.sees_state(jobs_pb2.JOB_STATE_SUCCEEDED)
            assert len(last.job.images) == 1
            assert await watcher.ends()


async def test_watching_a_job_that_has_ended_shows_it_and_ends(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    await stack.cancel(job.id)
    async with watching(stack, job.id) as watcher:
        assert (await watcher.sees()).job.state == jobs_pb2.JOB_STATE_CANCELLED
        assert await watcher.ends()


async def test_the_position_moves_as_others_go(stack: SchedulerStack) -> None:
    jobs = await stack.submit(*[submission() for _ in range(3)], plan=entitlements(running=1))
    async with watching(stack, jobs[2].id) as watcher:
        assert (await watcher.sees()).job.position == 3
        await stack.cancel(jobs[0].id)
        assert (await watcher.sees()).job.position == 2
        await stack.cancel(jobs[1].id)
        assert (await watcher.sees()).job.position == 1


async def test_the_position_follows_what_others_do(stack: SchedulerStack) -> None:
    await stack.submit(submission(), submission(), user=BOB, plan=entitlements(priority=10))
    first, last = await stack.submit(submission(), submission(), plan=entitlements(priority=5))
    async with watching(stack, last.id) as watcher:
        assert (await watcher.sees()).job.position == 4
        await stack.jobs.PrependJobs(jobs_pb2.PrependJobsRequest(user_id=ALICE, job_ids=[last.id]))
        assert (await watcher.sees()).job.position == 2
        plan = entitlements(version=2, priority=0)
        await stack.jobs.SetEntitlements(
            jobs_pb2.SetEntitlementsRequest(user_id=BOB, entitlements=plan)
        )
        assert (await watcher.sees()).job.position == 1
        assert await positions(stack) == {last.id: 1, first.id: 3}
        await stack.jobs.CancelJobs(jobs_pb2.CancelJobsRequest(user_id=BOB))
        assert await positions(stack) == {last.id: 1, first.id: 2}


async def test_a_change_that_nobody_can_see_is_not_told(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with watching(stack, job.id) as watcher:
        assert (await watcher.sees()).job.position == 1
        # it is first already: only the order that the database keeps changes
        await stack.jobs.PrependJobs(jobs_pb2.PrependJobsRequest(user_id=ALICE, job_ids=[job.id]))
        await stack.cancel(job.id)
        assert (await watcher.sees()).job.state == jobs_pb2.JOB_STATE_CANCELLED
        assert await watcher.ends()


async def positions(stack: SchedulerStack) -> dict[str, int]:
    listed = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(user_id=ALICE))
    return {job.id: job.position for job in listed.jobs}


async def test_a_paying_users_job_stands_before_a_free_backlog(stack: SchedulerStack) -> None:
    await stack.submit(*[submission() for _ in range(20)])
    (paid,) = await stack.submit(
        user=BOB, plan=entitlements(priority=100, weight=16, running=10, waiting=100)
    )
    assert paid.position == 1
    async with stack.worker() as worker:
        assert (await worker.is_assigned()).job_id == paid.id


async def test_an_estimate_appears_once_a_job_was_timed(stack: SchedulerStack) -> None:
    first, second, third = await stack.submit(submission(), submission(), submission())
    assert not first.HasField("eta_seconds")
    async with stack.worker() as worker:
        await worker.finishes(await worker.is_assigned())

        async def estimated() -> bool:
            return (await stack.get(third.id)).eta_seconds > 0

        await stack.eventually(estimated)
        await worker.takes(1)
        await worker.is_assigned()
        running = await stack.get(second.id)
        assert running.HasField("eta_seconds")


async def test_many_watch_one_job_and_each_sees_its_end(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    watchers = [
        asyncio.create_task(stack.becomes(job.id, jobs_pb2.JOB_STATE_CANCELLED)) for _ in range(10)
    ]
    await asyncio.sleep(0.05)
    await stack.cancel(job.id)
    await within(asyncio.gather(*watchers))


async def test_a_requeued_job_is_seen_to_wait_again(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        await worker.progresses(assigned, 5)
        async with watching(stack, job.id) as watcher:
            await watcher.sees_step(5)
            await worker.hands_back(assigned)
            again = await watcher.sees_state(jobs_pb2.JOB_STATE_QUEUED)
            assert again.job.progress.step == 0
            assert again.job.attempts == 1


async def test_an_ended_watch_is_no_longer_heard(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    channel = f"easel:{{default}}:job:{job.id}"

    async def subscribers() -> int:
        async with stack.redis as redis:
            ((_, count),) = await redis.pubsub_numsub(channel)
        return int(count)

    async with watching(stack, job.id) as watcher, watching(stack, job.id) as second:
        await watcher.sees()
        await second.sees()
        assert await subscribers() == 1

    async def nobody() -> bool:
        return await subscribers() == 0

    await stack.eventually(nobody)
