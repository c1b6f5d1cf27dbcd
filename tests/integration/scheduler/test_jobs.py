"""Callers' face over gRPC on a real database: all or nothing, once, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from easel.common.v1 import generation_pb2
from easel.scheduler.v1 import jobs_pb2
from easel_kit.errors import (
    Conflict,
    InvalidInput,
    InvalidState,
    NotFound,
    RateLimited,
)
from easel_kit.ids import new_job_id
from tests.fakes.scheduler_stack import (
    ALICE,
    BOB,
    SchedulerStack,
    entitlements,
    fill,
    full_generation,
    generation,
    submission,
)


async def test_submitting_again_answers_with_the_job_as_it_stands(stack: SchedulerStack) -> None:
    wanted = submission()
    await stack.submit(wanted)
    async with stack.worker() as worker:
        await worker.finishes(await worker.is_assigned())
    (again,) = await stack.submit(wanted)
    assert again.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert await stack.row("SELECT count(*) FROM events WHERE type = 'queued'") == 1
    assert await stack.row("SELECT open FROM open_jobs") == 0


async def test_the_same_id_twenty_times_at_once_is_one_job(stack: SchedulerStack) -> None:
    wanted = submission()
    plan = entitlements(running=1, waiting=0)
    answers = await asyncio.gather(*[stack.submit(wanted, plan=plan) for _ in range(20)])
    assert {job.id for (job,) in answers} == {wanted.job_id}
    assert await stack.row("SELECT count(*) FROM jobs") == 1
    assert await stack.row("SELECT open FROM open_jobs") == 1


async def test_an_id_of_another_request_or_user_is_refused(stack: SchedulerStack) -> None:
    wanted = submission()
    await stack.submit(wanted)
    with pytest.raises(Conflict):
        await stack.submit(submission(wanted.job_id, prompt="a blue square"))
    with pytest.raises(NotFound):
        await stack.submit(wanted, user=BOB)
    assert await stack.row("SELECT coalesce(sum(open), 0) FROM open_jobs") == 1


async def test_over_the_limit_says_how_much_and_holds_nothing(stack: SchedulerStack) -> None:
    plan = entitlements(running=1, waiting=2)
    await stack.submit(submission(), submission(), plan=plan)
    with pytest.raises(RateLimited) as refused:
        await stack.submit(submission(), submission(), plan=plan)
    assert (refused.value.limit, refused.value.current) == (3, 2)
    assert refused.value.retry_after_s >= 1
    assert await stack.row("SELECT count(*) FROM jobs") == 2
    assert await stack.row("SELECT open FROM open_jobs") == 2
    await stack.submit(submission(), plan=plan)


async def test_many_submits_at_once_never_pass_the_limit(stack: SchedulerStack) -> None:
    plan = entitlements(running=2, waiting=5)

    async def one() -> bool:
        try:
            await stack.submit(plan=plan)
        except RateLimited:
            return False
        return True

    accepted = await asyncio.gather(*[one() for _ in range(40)])
    assert sum(accepted) == 7
    assert await stack.row("SELECT open FROM open_jobs") == 7
    assert await stack.row("SELECT count(*) FROM jobs") == 7


async def test_a_place_is_free_again_after_a_jobs_end(stack: SchedulerStack) -> None:
    plan = entitlements(running=1, waiting=0)
    async with stack.worker() as worker:
        for _ in range(3):
            await stack.submit(plan=plan)
            await worker.finishes(await worker.is_assigned())
            await worker.takes(1)


async def test_an_older_plan_never_replaces_a_newer_one(stack: SchedulerStack) -> None:
    await stack.submit(plan=entitlements(version=5, running=1, waiting=0))
    with pytest.raises(RateLimited):
        await stack.submit(plan=entitlements(version=4, running=10, waiting=10))
    await stack.submit(plan=entitlements(version=6, running=1, waiting=1))


def _change(path: str, value: object) -> Callable[[jobs_pb2.SubmitJobsRequest], None]:
    def change(request: jobs_pb2.SubmitJobsRequest) -> None:
        target: Any = request
        *parents, last = path.split(".")
        for part in parents:
            target = target[int(part)] if part.isdecimal() else getattr(target, part)
        setattr(target, last, value)

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("user_id", "no spaces"),
        ("jobs.0.job_id", "job_1"),
        ("jobs.0.cost_ms", 0),
        ("jobs.0.generation.prompt", ""),
        ("jobs.0.generation.prompt", "x" * 2001),
        ("jobs.0.generation.prompt", "a\0b"),
        ("jobs.0.generation.negative_prompt", "x" * 2001),
        ("jobs.0.generation.model_key", "no spaces"),
        ("jobs.0.generation.width_px", 65),
        ("jobs.0.generation.height_px", 0),
        ("jobs.0.generation.steps", 0),
        ("jobs.0.generation.guidance", float("nan")),
        ("jobs.0.generation.image_count", 0),
        ("jobs.0.generation.total_steps", -1),
        ("jobs.0.generation.loras.1.model_key", ""),
        ("jobs.0.generation.loras.0.weight", 4.5),
        ("jobs.0.generation.loras.0.weight", float("inf")),
        ("jobs.0.generation.init_image.object_key", ""),
        ("jobs.0.generation.init_image.object_key", "users/../a.png"),
        ("jobs.0.generation.init_image.strength", 0.0),
        ("jobs.0.generation.init_image.mask_object_key", "/a.png"),
        ("jobs.0.generation.init_image.image_id", "x" * 65),
        ("jobs.0.generation.controls.0.model_key", "no spaces"),
        ("jobs.0.generation.controls.0.object_key", "a b"),
        ("jobs.0.generation.controls.0.weight", -0.1),
        ("jobs.0.generation.controls.0.begin", float("nan")),
        ("jobs.0.generation.controls.0.end", 0.1),
        ("jobs.0.generation.hires.scale", 1.0),
        ("jobs.0.generation.hires.scale", 4.1),
        ("jobs.0.generation.hires.steps", 0),
        ("jobs.0.generation.hires.strength", 1.1),
        ("jobs.0.generation.output.format", 99),
        ("jobs.0.generation.output.quality", 101),
        ("jobs.0.generation.clip_skip", -1),
        ("entitlements.weight", 0),
        ("entitlements.max_running", 0),
        ("entitlements.max_waiting", -1),
        ("entitlements.queue_time_s", 0),
    ],
)
async def test_a_wrong_field_is_named(stack: SchedulerStack, path: str, value: object) -> None:
    wanted = submission()
    wanted.generation.CopyFrom(full_generation())
    request = jobs_pb2.SubmitJobsRequest(user_id=ALICE, entitlements=entitlements(), jobs=[wanted])
    _change(path, value)(request)
    with pytest.raises(InvalidInput) as refused:
        await stack.jobs.SubmitJobs(request)
    assert refused.value.field == path


async def test_what_a_job_is_told_can_be_asked_before(stack: SchedulerStack) -> None:
    wanted = submission()
    request = jobs_pb2.EstimateJobRequest(
        user_id=ALICE, entitlements=entitlements(), cost_ms=wanted.cost_ms
    )
    before = await stack.jobs.EstimateJob(request)
    assert (before.position, before.HasField("eta_seconds")) == (1, False)  # nobody works
    (job,) = await stack.submit(wanted)
    assert (await stack.get(job.id)).position == before.position
    assert (await stack.jobs.EstimateJob(request)).position == 2
    for wrong, field in ((0, "cost_ms"), (2**62, "cost_ms")):
        request.cost_ms = wrong
        with pytest.raises(InvalidInput, match=field):
            await stack.jobs.EstimateJob(request)


async def test_lists_are_bounded_and_an_adapter_stands_once(stack: SchedulerStack) -> None:
    for field, most in (("loras", 8), ("controls", 4)):
        wanted = submission()
        wanted.generation.CopyFrom(full_generation())
        asked = getattr(wanted.generation, field)
        asked.extend([asked[0]] * most)
        with pytest.raises(InvalidInput, match=f"generation.{field}"):
            await stack.submit(wanted)
    twice = submission()
    twice.generation.loras.extend([generation_pb2.Lora(model_key="fine")] * 2)
    with pytest.raises(InvalidInput, match=r"generation\.loras: must name each adapter once"):
        await stack.submit(twice)


async def test_a_second_pass_stays_within_the_largest_side(stack: SchedulerStack) -> None:
    wanted = submission()
    wanted.generation.width_px = 4096
    wanted.generation.hires.CopyFrom(generation_pb2.Hires(scale=2.01, steps=1, strength=1))
    with pytest.raises(InvalidInput, match=r"hires\.scale"):
        await stack.submit(wanted)


async def test_a_submit_needs_one_to_many_jobs_with_ids_of_their_own(stack: SchedulerStack) -> None:
    one = submission()
    for jobs in ([], [one, one], [submission() for _ in range(501)]):
        request = jobs_pb2.SubmitJobsRequest(
            user_id=ALICE, entitlements=entitlements(waiting=1000), jobs=jobs
        )
        with pytest.raises(InvalidInput, match="jobs"):
            await stack.jobs.SubmitJobs(request)


async def test_someone_elses_job_is_not_there(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    for method in (stack.get, stack.cancel):
        with pytest.raises(NotFound):
            await method(job.id, BOB)
        with pytest.raises(NotFound):
            await method(new_job_id(), ALICE)
    with pytest.raises(NotFound):
        await stack.becomes(job.id, jobs_pb2.JOB_STATE_QUEUED, BOB)


async def test_a_list_is_paged_newest_first_and_filtered(stack: SchedulerStack) -> None:
    jobs = await stack.submit(*[submission() for _ in range(5)])
    await stack.submit(user=BOB)
    await stack.cancel(jobs[1].id)

    async def page(token: str = "", **filters: object) -> jobs_pb2.ListJobsResponse:
        request = jobs_pb2.ListJobsRequest(
            user_id=ALICE,
            page_size=2,
            page_token=token,
            **filters,  # type: ignore[arg-type]
        )
        answer: jobs_pb2.ListJobsResponse = await stack.jobs.ListJobs(request)
        return answer

    seen, token = [], ""
    for _ in range(3):
        answer = await page(token)
        seen += [job.id for job in answer.jobs]
        token = answer.next_page_token
    assert seen == [job.id for job in reversed(jobs)]
    assert token == ""
    cancelled = await page(states=[jobs_pb2.JOB_STATE_CANCELLED])
    assert [job.id for job in cancelled.jobs] == [jobs[1].id]
    for wrong in ({"page_size": 101}, {"page_token": "x"}, {"states": [77]}):
        with pytest.raises(InvalidInput):
            await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(user_id=ALICE, **wrong))


async def test_cancelling_a_waiting_job_ends_it_at_once(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    for _ in range(2):
        ended = await stack.cancel(job.id)
        assert ended.state == jobs_pb2.JOB_STATE_CANCELLED
        assert ended.cancel_requested
    assert await stack.row("SELECT open FROM open_jobs") == 0
    queued, cancelled = await stack.events(2)
    assert (queued.job_id, cancelled.job_id) == (job.id, job.id)
    assert cancelled.progress.step == 0
    async with stack.worker() as worker:
        await worker.hears_nothing()


async def test_cancelling_a_running_job_stops_its_worker(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        await stack.recorded()
        answer = await stack.cancel(job.id)
        assert answer.cancel_requested
        assert (await worker.hears("cancel")).attempt_id == assigned.attempt_id
        assert (await worker.stops(assigned, 4)).accepted
    ended = await stack.get(job.id)
    assert ended.state == jobs_pb2.JOB_STATE_CANCELLED
    assert (ended.progress.step, ended.progress.steps) == (4, 10)
    assert (await stack.cancel(job.id)).state == jobs_pb2.JOB_STATE_CANCELLED


async def test_a_job_that_is_done_before_the_cancel_reaches_it_succeeds(
    stack: SchedulerStack,
) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        await stack.recorded()
        await stack.cancel(job.id)
        assert (await worker.finishes(assigned)).accepted
    assert (await stack.get(job.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_cancelling_after_the_workers_death_ends_the_job(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        await worker.progresses(assigned, 6)

        async def shown() -> bool:
            return (await stack.get(job.id)).progress.step == 6

        await stack.eventually(shown)
        await stack.recorded()
        worker.dies()
    await stack.cancel(job.id)
    ended = await stack.becomes(job.id, jobs_pb2.JOB_STATE_CANCELLED)
    assert ended.progress.step == 6  # what ran is what is paid
    assert ended.attempts == 1


async def test_a_worker_that_returns_hears_of_a_cancel(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.worker(offer=False) as idle:
        await idle.takes(1)
        assigned = await idle.is_assigned()
        await stack.recorded()
        await stack.execute("UPDATE jobs SET cancel_requested = true")  # its signal was lost
        async with stack.worker(held=(assigned.attempt_id,)) as back:
            assert list(back.welcome.cancelled_attempt_ids) == [assigned.attempt_id]
            assert (await back.stops(assigned)).accepted
    assert (await stack.get(job.id)).state == jobs_pb2.JOB_STATE_CANCELLED


async def test_a_lost_stop_is_said_again(stack: SchedulerStack) -> None:
    await stack.submit()
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        await stack.recorded()
        await stack.execute("UPDATE jobs SET cancel_requested = true")
        assert (await worker.hears("cancel")).attempt_id == assigned.attempt_id


async def test_an_unknown_id_is_buried_and_a_known_one_resolved(stack: SchedulerStack) -> None:
    late = submission()
    request = jobs_pb2.ResolveJobRequest(job_id=late.job_id)
    for _ in range(2):
        answer = await stack.jobs.ResolveJob(request)
        assert answer.state == jobs_pb2.JOB_STATE_UNSPECIFIED
    with pytest.raises(InvalidState):
        await stack.submit(submission(), late)
    assert await stack.row("SELECT count(*) FROM jobs") == 0
    assert not await stack.row("SELECT open FROM open_jobs")
    (job,) = await stack.submit()
    known = await stack.jobs.ResolveJob(jobs_pb2.ResolveJobRequest(job_id=job.id))
    assert known.state == jobs_pb2.JOB_STATE_QUEUED
    assert known.progress == jobs_pb2.Progress(step=0, steps=10)


async def test_no_id_is_both_accepted_and_buried(stack: SchedulerStack) -> None:
    wanted = [submission() for _ in range(20)]

    async def submit(job: jobs_pb2.JobSubmission) -> bool:
        try:
            await stack.submit(job)
        except InvalidState:
            return False
        return True

    async def bury(job: jobs_pb2.JobSubmission) -> bool:
        answer = await stack.jobs.ResolveJob(jobs_pb2.ResolveJobRequest(job_id=job.job_id))
        return bool(answer.state == jobs_pb2.JOB_STATE_UNSPECIFIED)

    accepted = [submit(job) for job in wanted]
    buried = [bury(job) for job in wanted]
    answers = await asyncio.gather(
        *(one for pair in zip(buried, accepted, strict=True) for one in pair)
    )
    assert all(gone != taken for gone, taken in zip(answers[::2], answers[1::2], strict=True))


async def test_a_job_that_nobody_starts_in_time_fails_unpaid(stack: SchedulerStack) -> None:
    (job,) = await stack.submit(plan=entitlements(queue_time_s=1))
    ended = await stack.becomes(job.id, jobs_pb2.JOB_STATE_FAILED)
    assert ended.error.code == "queue_time_exceeded"
    assert ended.attempts == 0
    assert await stack.row("SELECT open FROM open_jobs") == 0
    async with stack.worker() as worker:
        await worker.hears_nothing()


async def test_a_job_that_was_started_in_time_does_not_fail_for_waiting(
    stack: SchedulerStack,
) -> None:
    (job,) = await stack.submit(plan=entitlements(queue_time_s=1))
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        await stack.recorded()
        await stack.execute("UPDATE jobs SET start_by = now() - interval '1 hour'")
        await worker.hands_back(assigned)
        await worker.hears_nothing()  # it waits again
        await worker.takes(1)
        await worker.finishes(await worker.is_assigned())
    assert (await stack.get(job.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_a_batch_keeps_its_order_and_every_field(stack: SchedulerStack) -> None:
    wanted = [
        jobs_pb2.JobSubmission(
            job_id=new_job_id(),
            cost_ms=7,
            generation=generation_pb2.Generation(
                model_key="hub/model-1.5",
                prompt="ein rötlicher Kreis ☀",
                negative_prompt="blurry",
                width_px=128,
                height_px=256,
                steps=number + 1,
                guidance=7.25,
                seed=2**32 - 1,
                sampler="euler_a",
                image_count=3,
            ),
        )
        for number in range(20)
    ]
    jobs = await stack.submit(*wanted)
    assert [(job.id, job.generation) for job in jobs] == [
        (job.job_id, job.generation) for job in wanted
    ]
    assert [job.position for job in jobs] == list(range(1, 21))
    assert jobs[0].progress.steps == 3
    assert generation() != jobs[0].generation


async def test_all_that_a_request_may_say_reaches_its_worker_and_its_repeat(
    stack: SchedulerStack,
) -> None:
    wanted = submission()
    wanted.generation.CopyFrom(full_generation())
    (job,) = await stack.submit(wanted)
    assert (job.generation, job.progress.steps) == (wanted.generation, 13)
    assert (await stack.submit(wanted))[0].id == job.id
    async with stack.worker() as worker:
        assigned = await worker.is_assigned()
        assert assigned.generation == wanted.generation
        await worker.progresses(assigned, 12)
        await stack.eventually(lambda: _step_is(stack, job.id, 12))
        await worker.finishes(assigned, steps=13)
    done = await stack.get(job.id)
    assert (done.progress.step, done.progress.steps) == (13, 13)
    (again,) = await stack.submit(jobs_pb2.JobSubmission(job_id=new_job_id(), retry_of=job.id))
    assert again.generation == wanted.generation


async def _step_is(stack: SchedulerStack, job_id: str, step: int) -> bool:
    return (await stack.get(job_id)).progress.step == step


async def test_rows_from_before_there_was_more_than_a_prompt_are_read(
    stack: SchedulerStack,
) -> None:
    await fill(stack, jobs=1, users=1)
    (old,) = (await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(user_id="user-0"))).jobs
    assert (old.generation, old.progress.steps) == (generation(), 10)
    (new,) = await stack.submit()
    row = "SELECT generation FROM jobs WHERE id = $1"
    assert await stack.row(row, "job_1") == await stack.row(row, new.id)
