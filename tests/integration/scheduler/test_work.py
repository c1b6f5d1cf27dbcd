"""Jobs through real streams: claimed under a lease, worked off, reported, ended once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from easel.scheduler.v1 import jobs_pb2
from easel.scheduler.v1 import lease_pb2 as lease
from easel.scheduler.v1.lease_pb2_grpc import LeaseServiceStub
from easel_kit.errors import InvalidInput, NotFound
from easel_kit.ids import new_attempt_id
from tests.fakes.scheduler_stack import (
    ALICE,
    BOB,
    SchedulerStack,
    entitlements,
    model,
    submission,
    within,
)


async def test_a_job_goes_to_a_waiting_worker_and_comes_back_done(stack: SchedulerStack) -> None:
    async with stack.worker() as worker:
        (job,) = await stack.submit()
        assigned = await worker.is_assigned()
        assert (assigned.job_id, assigned.user_id) == (job.id, ALICE)
        assert assigned.attempt_number == 1
        assert assigned.generation == job.generation
        assert (await worker.finishes(assigned)).accepted
    done = await stack.get(job.id)
    assert done.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [image.object_key for image in done.images] == [
        f"users/alice/jobs/{job.id}/{assigned.attempt_id}/0.png"
    ]
    assert [image.thumbnail_object_key for image in done.images] == [
        f"users/alice/jobs/{job.id}/{assigned.attempt_id}/0.t.webp"
    ]
    assert list(done.warnings) == ["the prompt was cut"]
    assert (done.progress.step, done.progress.steps) == (10, 10)
    line = done.timeline
    points = [line.queued_at, line.claimed_at, line.first_step_at, line.finished_at]
    assert all(point.seconds for point in points)
    assert await stack.row("SELECT open FROM open_jobs") == 0


async def test_a_worker_takes_no_more_than_it_has_room_for(stack: SchedulerStack) -> None:
    jobs = await stack.submit(*[submission() for _ in range(3)])
    async with stack.worker(slots=2) as worker:
        first, second = await worker.is_assigned(), await worker.is_assigned()
        assert [first.job_id, second.job_id] == [jobs[0].id, jobs[1].id]
        await worker.takes(2)  # said before it had heard of its jobs
        await worker.hears_nothing()
        await worker.finishes(first)
        await worker.takes(1)
        assert (await worker.is_assigned()).job_id == jobs[2].id


async def test_a_user_at_the_running_limit_waits_and_others_go_by(stack: SchedulerStack) -> None:
    plan = entitlements(running=1)
    mine = await stack.submit(submission(), submission(), plan=plan)
    (other,) = await stack.submit(user=BOB, plan=plan)
    async with stack.worker(slots=3) as worker:
        first, second = await worker.is_assigned(), await worker.is_assigned()
        assert {first.job_id, second.job_id} == {mine[0].id, other.id}
        await worker.hears_nothing()
        await worker.finishes(first if first.job_id == mine[0].id else second)
        await worker.takes(2)
        assert (await worker.is_assigned()).job_id == mine[1].id


async def test_a_worker_gets_only_jobs_whose_model_it_has(stack: SchedulerStack) -> None:
    (job,) = await stack.submit(submission(model_key="other"))
    broken = model("other", unavailable_reason="its weights are damaged")
    async with stack.worker(models=(model(), broken)) as worker:
        await worker.hears_nothing()
        repaired = lease.ModelsChanged(models=[model(), model("other")])
        await worker.says(models_changed=repaired)
        assert (await worker.is_assigned()).job_id == job.id


async def test_a_failure_of_the_request_ends_the_job_at_once(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        await worker.fails(assigned, lease.FAILURE_KIND_CALLER, "bad_size")
    ended = await stack.get(job.id)
    assert ended.state == jobs_pb2.JOB_STATE_FAILED
    assert ended.error == jobs_pb2.JobError(code="bad_size", message="no room")


async def test_a_job_is_tried_three_times_and_fails_with_the_last_error(
    stack: SchedulerStack,
) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        for number, code in enumerate(("one", "two", "three"), start=1):
            assigned = await worker.is_assigned()
            assert assigned.attempt_number == number
            await worker.fails(assigned, code=code)
            await worker.takes(1)
        await worker.hears_nothing()
    ended = await stack.get(job.id)
    assert ended.state == jobs_pb2.JOB_STATE_FAILED
    assert ended.error.code == "three"
    assert ended.attempts == 3


@pytest.fixture
async def patient(idle_stack: SchedulerStack) -> AsyncIterator[SchedulerStack]:
    """A scheduler whose pauses outlast a test."""
    async with idle_stack.running(retry_base_s=3600, retry_cap_s=3600):
        yield idle_stack


async def test_a_pause_outlives_redis_and_ends_with_a_cancel(patient: SchedulerStack) -> None:
    (job,) = await patient.submit()
    async with patient.worker() as worker:
        await worker.fails(await worker.is_assigned())
        await worker.takes(1)
        (other,) = await patient.submit(user=BOB)
        await worker.finishes(await worker.is_assigned())
        await worker.takes(1)
        await worker.hears_nothing()

        async def is_paused() -> bool:  # where the queue is slow to answer, nothing is said of it
            paused = await patient.get(job.id)
            assert paused.state == jobs_pb2.JOB_STATE_QUEUED
            # a job that was over at once tells nothing of the pace: then there is no estimate
            late = not paused.HasField("eta_seconds") or paused.eta_seconds > 1000
            return paused.position == 1 and late

        await patient.eventually(is_paused)
        async with patient.redis as redis:
            await redis.flushall()

        async def is_known() -> bool:
            return (await patient.get(job.id)).position == 1

        await patient.eventually(is_known)
        await worker.hears_nothing()
    assert (await patient.get(other.id, BOB)).state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert (await patient.cancel(job.id)).state == jobs_pb2.JOB_STATE_CANCELLED

    async def is_gone() -> bool:
        async with patient.redis as redis:
            return not await redis.exists(
                "easel:{default}:delayed", f"easel:{{default}}:j:{job.id}"
            )

    await patient.eventually(is_gone)


async def test_a_worker_that_cannot_go_on_costs_no_pause(patient: SchedulerStack) -> None:
    (job,) = await patient.submit()
    async with patient.worker() as worker, patient.worker("other", offer=False) as other:
        await worker.fails(await worker.is_assigned(), lease.FAILURE_KIND_WORKER)
        await other.takes(1)
        again = await other.is_assigned()
        assert (again.job_id, again.attempt_number) == (job.id, 2)
        await other.finishes(again)
    assert await patient.row("SELECT count(*) FROM attempts WHERE counted") == 1


async def test_a_sick_worker_does_not_eat_the_jobs_of_the_lane(stack: SchedulerStack) -> None:
    jobs = await stack.submit(*[submission() for _ in range(12)])
    failed = 0

    async with stack.worker("sick") as sick, stack.worker("healthy", offer=False) as healthy:

        async def fail() -> None:
            nonlocal failed
            while True:
                await sick.fails(await sick.is_assigned(), lease.FAILURE_KIND_WORKER)
                failed += 1
                await sick.takes(1)

        first = await sick.is_assigned()
        await sick.fails(first, lease.FAILURE_KIND_WORKER)
        failing = asyncio.create_task(fail())
        await sick.takes(1)
        await healthy.takes(1)
        for _ in jobs:
            await healthy.finishes(await healthy.is_assigned())
            await healthy.takes(1)
        failing.cancel()
    for job in jobs:
        assert (await stack.get(job.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert failed <= len(jobs) / 2


async def test_handing_back_counts_no_try_and_keeps_the_place(stack: SchedulerStack) -> None:
    first, second = await stack.submit(submission(), submission(), plan=entitlements(running=1))
    async with stack.worker() as worker:
        for _ in range(4):
            assigned = await worker.is_assigned()
            assert assigned.job_id == first.id
            await worker.hands_back(assigned)
            await worker.takes(1)
        await worker.finishes(await worker.is_assigned())
        await worker.takes(1)
        assert (await worker.is_assigned()).job_id == second.id
    assert (await stack.get(first.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_a_draining_worker_gets_nothing_and_says_so(stack: SchedulerStack) -> None:
    async with stack.worker(offer=False) as worker:
        await worker.takes(1, draining=True)
        await stack.submit()
        await worker.hears_nothing()
        (listed,) = (await stack.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())).workers
        assert listed.draining
        await worker.takes(1)
        await worker.is_assigned()


async def test_an_operator_drains_a_worker(stack: SchedulerStack) -> None:
    await stack.submit()
    async with stack.worker(slots=2) as worker:
        assigned = await worker.is_assigned()
        await stack.jobs.DrainWorker(jobs_pb2.DrainWorkerRequest(worker_id="worker-1"))
        await worker.hears("drain")
        await stack.submit()
        await worker.takes(1)
        await worker.hears_nothing()
        (listed,) = (await stack.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())).workers
        assert listed.draining
        assert (await worker.finishes(assigned)).accepted
        await worker.takes(0, draining=True)
        await worker.ends()
    with pytest.raises(NotFound):
        await stack.jobs.DrainWorker(jobs_pb2.DrainWorkerRequest(worker_id="nobody"))
    with pytest.raises(InvalidInput):
        await stack.jobs.DrainWorker(jobs_pb2.DrainWorkerRequest(worker_id="no name"))


async def test_the_job_of_a_dead_worker_goes_to_another(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.worker("worker-2", offer=False) as other:
        async with stack.worker("worker-1") as worker:
            lost = await worker.is_assigned()
            worker.dies()
        await other.takes(1)
        again = await other.is_assigned()
        assert again.job_id == job.id
        assert again.attempt_number == 2
        assert again.attempt_id != lost.attempt_id
        await other.finishes(again)
    outcomes = await stack.row("SELECT array_agg(outcome ORDER BY number) FROM attempts")
    assert outcomes == ["lost", "succeeded"]


async def test_a_job_whose_workers_die_three_times_fails(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    for number in range(3):
        async with stack.worker(f"worker-{number}") as worker:
            await worker.is_assigned()
            worker.dies()
    ended = await stack.becomes(job.id, jobs_pb2.JOB_STATE_FAILED)
    assert ended.error.code == "worker_lost"
    assert await stack.row("SELECT open FROM open_jobs") == 0


@pytest.fixture
async def hasty(idle_stack: SchedulerStack) -> AsyncIterator[SchedulerStack]:
    """A scheduler whose leases are short."""
    async with idle_stack.running(lease_ttl_s=0.6, heartbeat_s=0.1):
        yield idle_stack


async def test_a_hung_worker_loses_its_lease_and_is_told_to_stop(hasty: SchedulerStack) -> None:
    (job,) = await hasty.submit()
    async with hasty.worker("worker-1", hung=True) as hung:
        first = await hung.is_assigned()
        async with hasty.worker("worker-2") as other:
            again = await other.is_assigned()
            assert (again.job_id, again.attempt_number) == (job.id, 2)
            assert (await hung.hears("cancel")).attempt_id == first.attempt_id
            await other.finishes(again)
            assert not (await hung.stops(first)).accepted


async def test_heartbeats_keep_a_lease(hasty: SchedulerStack) -> None:
    await hasty.submit()
    async with hasty.worker() as worker:
        assigned = await worker.is_assigned()
        await worker.hears_nothing(1.5)  # more than two leases
        assert (await worker.finishes(assigned)).accepted
    assert await hasty.row("SELECT attempts FROM jobs") == 1


async def test_the_first_success_wins_from_whichever_attempt(hasty: SchedulerStack) -> None:
    (job,) = await hasty.submit()
    async with hasty.worker("worker-1", hung=True) as slow:
        first = await slow.is_assigned()
        await slow.hears("cancel")  # its lease ran out; it does not obey
        async with hasty.worker("worker-2") as other:
            second = await other.is_assigned()
            assert (await slow.finishes(first)).accepted
            assert (await other.hears("cancel")).attempt_id == second.attempt_id
            assert not (await other.finishes(second)).accepted
    done = await hasty.get(job.id)
    assert first.attempt_id in done.images[0].object_key
    assert await hasty.row("SELECT count(*) FROM events WHERE type = 'succeeded'") == 1


async def test_a_failure_of_a_superseded_attempt_changes_nothing(hasty: SchedulerStack) -> None:
    (job,) = await hasty.submit()
    async with hasty.worker("worker-1", hung=True) as slow:
        first = await slow.is_assigned()
        await slow.hears("cancel")
        async with hasty.worker("worker-2") as other:
            second = await other.is_assigned()
            assert not (await slow.fails(first, lease.FAILURE_KIND_CALLER)).accepted
            assert (await other.finishes(second)).accepted
    assert (await hasty.get(job.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_a_result_sent_twice_is_accepted_twice_and_counts_once(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        assert (await worker.finishes(assigned)).accepted
        assert (await worker.finishes(assigned)).accepted
    assert await stack.row("SELECT count(*) FROM events WHERE type = 'succeeded'") == 1
    assert len((await stack.get(job.id)).images) == 1


async def test_a_report_of_an_unknown_attempt_is_put_aside(stack: SchedulerStack) -> None:
    async with stack.worker() as worker:
        stranger = lease.Assign(attempt_id=new_attempt_id(), job_id="job", user_id="user")
        assert not (await worker.finishes(stranger)).accepted


async def test_a_worker_that_reconnects_in_time_keeps_its_attempt(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
    async with stack.worker(held=(assigned.attempt_id, new_attempt_id())) as back:
        assert list(back.welcome.kept_attempt_ids) == [assigned.attempt_id]
        assert (await back.finishes(assigned)).accepted
    assert (await stack.get(job.id)).attempts == 1


async def test_a_worker_that_returns_late_still_keeps_what_nobody_took(
    stack: SchedulerStack,
) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
    await stack.becomes(job.id, jobs_pb2.JOB_STATE_QUEUED)
    async with stack.worker(held=(assigned.attempt_id,), offer=False) as back:
        assert list(back.welcome.kept_attempt_ids) == [assigned.attempt_id]
        assert (await stack.get(job.id)).state == jobs_pb2.JOB_STATE_RUNNING
        assert (await back.finishes(assigned)).accepted
    assert await stack.row("SELECT count(*) FROM attempts WHERE counted") == 0


async def test_a_worker_that_comes_back_without_its_attempt_has_lost_it(
    stack: SchedulerStack,
) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        await worker.is_assigned()
    async with stack.worker() as back:
        again = await back.is_assigned()
        assert (again.job_id, again.attempt_number) == (job.id, 2)


async def test_a_second_stream_of_a_worker_takes_over(stack: SchedulerStack) -> None:
    async with stack.worker() as old, stack.worker():
        with pytest.raises(AssertionError, match="ended before assign"):
            await old.is_assigned()
        assert "taken over" in await old.call.details()


async def test_models_and_workers_are_those_that_are_connected(stack: SchedulerStack) -> None:
    async with (
        stack.worker("worker-1", models=(model(loaded=False), model("b"))),
        stack.worker("worker-2", slots=4) as second,
    ):
        workers = (await stack.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())).workers
        assert [(one.id, one.slots) for one in workers] == [("worker-1", 1), ("worker-2", 4)]
        models = (await stack.jobs.ListModels(jobs_pb2.ListModelsRequest())).models
        assert [(one.key, one.loaded) for one in models] == [("b", True), ("shapes-64", True)]
        assert models[1] == model()
        await second.ends()

        async def gone() -> bool:
            found = (await stack.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())).workers
            return len(found) == 1

        await stack.eventually(gone)
        models = (await stack.jobs.ListModels(jobs_pb2.ListModelsRequest())).models
        assert [(one.key, one.loaded) for one in models] == [("b", True), ("shapes-64", False)]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"worker_id": ""}, "hello.worker_id"),
        ({"worker_id": "has space"}, "hello.worker_id"),
        ({"lane": "mars"}, "hello.lane"),
        ({"slots": 0}, "hello.slots"),
        ({"held_attempt_ids": ["x"]}, "hello.held_attempt_ids"),
        ({"models": [model("no key")]}, "hello.models.key"),
    ],
)
async def test_a_wrong_hello_is_refused_by_field(
    stack: SchedulerStack, message: dict[str, object], field: str
) -> None:
    wrong = {"worker_id": "worker-1", "slots": 1} | message
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.port}") as channel:
        stream = LeaseServiceStub(channel).Work()
        await stream.write(lease.WorkRequest(hello=lease.Hello(**wrong)))  # type: ignore[arg-type]
        assert await within(stream.code()) is grpc.StatusCode.INVALID_ARGUMENT
        assert field in await stream.details()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"hello": lease.Hello(worker_id="worker-1", slots=1)}, "only once"),
        ({"capacity": lease.Capacity(free_slots=-1)}, "capacity.free_slots"),
        ({"progress": lease.AttemptProgress(attempt_id="x", step=1)}, "attempt_id"),
        ({"finished": lease.AttemptFinished(attempt_id=new_attempt_id())}, "finished.images"),
        ({"failed": lease.AttemptFailed(attempt_id=new_attempt_id())}, "failed.kind"),
        ({"stopped": lease.AttemptStopped(attempt_id="x")}, "attempt_id"),
        ({"hand_back": lease.HandBack()}, "attempt_id"),
        ({"models_changed": lease.ModelsChanged(models=[model("")])}, "models_changed.key"),
    ],
)
async def test_a_wrong_message_ends_the_stream_and_says_why(
    stack: SchedulerStack, message: dict[str, object], said: str
) -> None:
    # it says nothing else: gRPC's client loses the reason when it fails to write meanwhile
    async with stack.worker(offer=False, hung=True) as worker:
        await worker.says(**message)
        assert await within(worker.call.code()) is grpc.StatusCode.INVALID_ARGUMENT
        assert said in await worker.call.details()


async def test_a_stream_that_does_not_begin_with_hello_is_refused(stack: SchedulerStack) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.port}") as channel:
        for silent in (True, False):
            stream = LeaseServiceStub(channel).Work()
            if silent:
                await stream.done_writing()
            else:
                await stream.write(lease.WorkRequest(heartbeat=lease.Heartbeat()))
            assert await within(stream.code()) is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_this_scheduler_does_not_know_is_passed_over(stack: SchedulerStack) -> None:
    await stack.submit()
    async with stack.worker(offer=False) as worker:
        await worker.says()  # a message of a later version has no field that is known here
        await worker.says(progress=lease.AttemptProgress(attempt_id=new_attempt_id(), step=0))
        await worker.takes(1)
        await worker.is_assigned()
