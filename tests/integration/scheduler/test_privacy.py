"""A person's jobs are given out whole, and of an erased one nothing is left in any store."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from easel.scheduler.v1 import events_pb2, jobs_pb2, lease_pb2, privacy_pb2
from easel_kit.erasure import hash_of
from easel_kit.errors import DependencyDown, InvalidInput, InvalidState, NotFound
from easel_kit.ids import UserId, new_job_id
from easel_kit.log import configure_logging
from tests.fakes.scheduler_stack import (
    BOB,
    SchedulerStack,
    entitlements,
    full_generation,
    submission,
    within,
)
from tests.fakes.traces import entries, rows

CANARY = "c4n4ry|person.7@nest.example"
PROMPT = "a c4n4ry in a coal mine"
MARK = "c4n4ry"
PLAN = entitlements(version=3, priority=10, weight=4, running=3, waiting=300)
MANY = 120


async def submit(
    stack: SchedulerStack, *jobs: jobs_pb2.JobSubmission, batch: str = "", prepend: bool = False
) -> list[str]:
    """Jobs of the canary."""
    answer = await stack.jobs.SubmitJobs(
        jobs_pb2.SubmitJobsRequest(
            user_id=CANARY, entitlements=PLAN, jobs=jobs, batch_id=batch, prepend=prepend
        )
    )
    return [job.id for job in answer.jobs]


def wish() -> jobs_pb2.JobSubmission:
    """A job of the canary, as a caller submits it."""
    one = submission(prompt=PROMPT)
    one.generation.init_image.object_key = f"users/{CANARY}/uploads/a.png"
    one.generation.init_image.strength = 0.5
    return one


async def live(stack: SchedulerStack) -> list[str]:
    """All that a user can do and that can happen to their jobs; one stays, and waits."""
    first = await submit(stack, *[wish() for _ in range(4)], batch="b-1")
    won, failed, repeated, hidden = first
    async with stack.worker() as worker:
        await worker.finishes(await worker.is_assigned())
        await worker.takes(1)
        await worker.fails(await worker.is_assigned(), lease_pb2.FAILURE_KIND_CALLER)
        await worker.takes(1)
        await worker.fails(await worker.is_assigned())  # waits for its next try
    await stack.cancel(repeated, CANARY)
    again = await submit(
        stack, jobs_pb2.JobSubmission(job_id=new_job_id(), retry_of=failed), prepend=True
    )
    await stack.cancel(again[0], CANARY)
    await stack.cancel(hidden, CANARY)
    await stack.jobs.PruneJobs(
        jobs_pb2.PruneJobsRequest(user_id=CANARY, states=[jobs_pb2.JOB_STATE_CANCELLED])
    )
    async with stack.worker("worker-2") as worker:
        running = await submit(stack, wish())
        assigned = await worker.is_assigned()
        await worker.progresses(assigned, 3, b"png")
        await stack.cancel(running[0], CANARY)
        await worker.hears("cancel")
        await worker.stops(assigned)
    many = await submit(stack, *[wish() for _ in range(MANY)])
    await stack.jobs.CancelJobs(jobs_pb2.CancelJobsRequest(user_id=CANARY, job_ids=many))
    await stack.jobs.SetEntitlements(
        jobs_pb2.SetEntitlementsRequest(user_id=CANARY, entitlements=PLAN)
    )
    waits = await submit(stack, wish(), prepend=True)
    assert (await stack.get(won, CANARY)).images
    return [*first, *again, *running, *many, *waits]


async def export(stack: SchedulerStack, user: str = CANARY) -> list[list[jobs_pb2.Job]]:
    call = stack.privacy.ExportJobs(privacy_pb2.ExportJobsRequest(user_id=user))
    return [list(answer.jobs) async for answer in call]


async def erase(stack: SchedulerStack, *users: str) -> tuple[int, int]:
    """How many were erased, and how many are busy."""
    hashes = [hash_of(UserId(user)) for user in users]
    answer = await stack.privacy.EraseUsers(privacy_pb2.EraseUsersRequest(user_hashes=hashes))
    return answer.erased, answer.busy


async def search(stack: SchedulerStack, *marks: str) -> set[str]:
    """Where in Postgres and in Redis one of the marks is written."""
    async with stack.redis as redis:
        kept = [
            *await rows(stack.rows, "scheduler"),
            *[("redis", one) for one in await entries(redis)],
        ]
    return {place for place, text in kept for mark in marks if mark in text}


async def test_an_export_has_every_job_in_order(stack: SchedulerStack) -> None:
    ids = await live(stack)
    await stack.submit(user=BOB)
    parts = await export(stack)
    jobs = {job.id: job for part in parts for job in part}
    assert [job.id for part in parts for job in part] == ids
    assert len(parts) > 2
    assert all(parts)
    states = [jobs[one].state for one in ids]
    assert {
        states.count(state) for state in (jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED)
    } == {1}
    assert states[-1] == jobs_pb2.JOB_STATE_QUEUED
    seen = await stack.get(ids[0], CANARY)
    assert jobs[ids[0]] == seen
    assert seen.images
    assert jobs[ids[4]].retry_of == ids[1]
    assert {jobs[one].batch_id for one in ids[:4]} == {"b-1"}
    assert await export(stack, "stranger") == []
    with pytest.raises(InvalidInput, match="user_id"):
        await export(stack, "no spaces")


async def test_no_trace_of_an_erased_user_is_left_in_any_store(
    stack: SchedulerStack, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("scheduler", "info")
    ids = await live(stack)
    (bobs,) = await stack.submit(user=BOB)
    places = {"jobs", "attempts", "results", "events", "open_jobs", "redis"}
    assert await search(stack, MARK) == places - {"attempts"}
    assert await search(stack, *ids) == places - {"open_jobs"}
    before = await rows(stack.rows, "scheduler")
    assert await erase(stack, CANARY, "stranger") == (0, 1)
    assert await rows(stack.rows, "scheduler") == before
    assert (await stack.get(ids[-1], CANARY)).position > 0

    await stack.cancel(ids[-1], CANARY)
    capsys.readouterr()
    assert await erase(stack, CANARY, "stranger") == (1, 0)
    lines = [line for line in capsys.readouterr().out.splitlines() if "users.erased" in line]
    assert len(lines) == 1
    assert MARK not in lines[0]
    assert await search(stack, MARK) == set()
    await stack.eventually(lambda: nowhere(stack, ids))
    assert await erase(stack, CANARY) == (0, 0)
    assert await export(stack) == []
    others = [row for row in before if MARK not in row[1] and not any(one in row[1] for one in ids)]
    assert await rows(stack.rows, "scheduler") == others
    assert (await stack.get(bobs.id, BOB)).state == jobs_pb2.JOB_STATE_QUEUED


async def nowhere(stack: SchedulerStack, ids: list[str]) -> bool:
    """But among those that the queue remembers for a minute as gone."""
    async with stack.redis as redis:
        kept = [one for one in await entries(redis) if "}:gone:" not in one]
    return not any(one in text for text in kept for one in ids)


async def test_all_that_a_job_can_ask_for_goes_with_it(stack: SchedulerStack) -> None:
    asked = full_generation()
    asked.init_image.object_key = asked.controls[0].object_key = f"users/{CANARY}/a.png"
    (job,) = await submit(
        stack, jobs_pb2.JobSubmission(job_id=new_job_id(), generation=asked, cost_ms=100)
    )
    async with stack.worker() as worker:
        await worker.finishes(await worker.is_assigned())
    assert [[one.id for one in part] for part in await export(stack)] == [[job]]
    assert await erase(stack, CANARY) == (1, 0)
    assert await search(stack, MARK) == set()


async def test_readers_of_the_feed_go_on(stack: SchedulerStack) -> None:
    (first,) = await stack.submit(user=BOB)
    (canarys,) = await submit(stack, wish())
    await stack.cancel(canarys, CANARY)
    told = await stack.events(3)
    following = asyncio.create_task(stack.events(5))
    await asyncio.sleep(0.1)
    assert await erase(stack, CANARY) == (1, 0)
    (second,) = await stack.submit(user=BOB)
    await stack.cancel(first.id, BOB)

    assert [event.job_id for event in await within(following)] == [
        *(event.job_id for event in told),
        second.id,
        first.id,
    ]
    left = {0: [first.id, second.id, first.id]}
    for place, cursor in enumerate([events_pb2.Cursor(), *(event.cursor for event in told)]):
        expected = left.get(place, [second.id, first.id])
        events = await stack.events(len(expected), after=cursor)
        assert [event.job_id for event in events] == expected


async def test_an_erased_user_may_submit_again_as_a_new_one(stack: SchedulerStack) -> None:
    (job,) = await submit(stack, wish())
    await stack.cancel(job, CANARY)
    assert await erase(stack, CANARY) == (1, 0)
    (again,) = await submit(stack, wish())
    async with stack.worker() as worker:
        await worker.finishes(await worker.is_assigned())
    assert (await stack.get(again, CANARY)).state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert await erase(stack, CANARY) == (1, 0)


async def test_erasures_that_meet_submits_and_cancels_leave_nothing_half_done(
    stack: SchedulerStack,
) -> None:
    async def submit_and_cancel() -> None:
        for _ in range(8):
            (job,) = await submit(stack, wish())
            with suppress(NotFound):  # erased before the cancel has shown it
                await stack.cancel(job, CANARY)

    async def keep_erasing() -> int:
        return sum([(await erase(stack, CANARY))[0] for _ in range(12)])

    answers = await asyncio.gather(
        submit_and_cancel(), submit_and_cancel(), keep_erasing(), keep_erasing()
    )
    assert sum(one or 0 for one in answers) > 0
    lost = "SELECT count(*) FROM jobs LEFT JOIN open_jobs USING (user_id) WHERE open IS NULL"
    assert await stack.row(lost) == 0
    assert await stack.row("SELECT coalesce(sum(open), 0) FROM open_jobs") == 0
    await erase(stack, CANARY)
    assert await search(stack, MARK) == set()


async def test_tombstones_stay_and_erased_jobs_may_be_buried(stack: SchedulerStack) -> None:
    buried = submission()
    await stack.jobs.ResolveJob(jobs_pb2.ResolveJobRequest(job_id=buried.job_id))
    (job,) = await submit(stack, wish())
    await stack.cancel(job, CANARY)
    assert await erase(stack, CANARY) == (1, 0)
    await stack.jobs.ResolveJob(jobs_pb2.ResolveJobRequest(job_id=job))
    for late in (
        buried,
        jobs_pb2.JobSubmission(job_id=job, generation=wish().generation, cost_ms=1),
    ):
        with pytest.raises(InvalidState):
            await submit(stack, late)
    assert await search(stack, PROMPT) == set()


async def test_an_erasure_waits_for_a_queue_that_is_away(stack: SchedulerStack) -> None:
    (job,) = await submit(stack, wish())
    await stack.cancel(job, CANARY)
    async with stack.redis as redis:
        await redis.flushall()
    hashes = [hash_of(UserId(CANARY))]
    request = privacy_pb2.EraseUsersRequest(user_hashes=hashes)

    async def asked() -> int:
        try:
            return (await stack.privacy.EraseUsers(request)).erased
        except DependencyDown:
            return 0

    assert await stack.eventually(asked) == 1
    assert await search(stack, MARK) == set()


@pytest.mark.parametrize(
    "hashes",
    [[], [b""], [b"x" * 31], [b"x" * 33], [b"x" * 32, b"x"], [b"x" * 32] * 1001],
    ids=["none", "empty", "short", "long", "second short", "many"],
)
async def test_wrong_hashes_are_refused(stack: SchedulerStack, hashes: list[bytes]) -> None:
    with pytest.raises(InvalidInput, match="user_hashes"):
        await stack.privacy.EraseUsers(privacy_pb2.EraseUsersRequest(user_hashes=hashes))
    assert await erase(stack, *[f"user-{number}" for number in range(1000)]) == (0, 0)
