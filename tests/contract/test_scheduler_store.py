"""The scheduler's database as its ports see it: in memory and in Postgres, the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from easel_kit.errors import Conflict, InvalidState, NotFound, OutOfRange, RateLimited
from easel_kit.ids import ModelKey, UserId, WorkerId, new_attempt_id, new_job_id
from scheduler.domain.job import Cursor, EventType, JobState, NewJob, Resolution, Submission
from scheduler.domain.lease import Claim, Outcome, Report
from scheduler.domain.load import Load, ModelLoad, TierLoad
from scheduler.domain.policy import Share
from scheduler.domain.selection import Cancellation, Filter, mark
from tests.fakes.scheduler_contract import (
    ALICE,
    BOB,
    FULL,
    OUT_OF_MEMORY,
    PICTURE,
    PLAN,
    Store,
    image,
)


async def test_a_submit_is_all_or_nothing_and_once(store: Store) -> None:
    first, second = await store.submit(new_job_id(), new_job_id())
    assert first.place < second.place
    assert (first.state, first.steps, first.traceparent) == (JobState.QUEUED, 20, "00-trace")
    assert (first.start_by - first.queued_at).total_seconds() == 600
    assert [one.id for one in await store.submit(second.id, first.id)] == [second.id, first.id]
    with pytest.raises(RateLimited) as refused:
        await store.submit(*[new_job_id() for _ in range(4)])
    assert (refused.value.limit, refused.value.current) == (5, 2)
    await store.submit(first.id, *[new_job_id() for _ in range(3)])
    assert [kind for _, kind in await store.events()] == [EventType.QUEUED] * 5


async def test_steps_are_what_the_caller_reckons_wherever_they_are_told(store: Store) -> None:
    asked = NewJob(new_job_id(), replace(FULL, reckoned_steps=33), 100)
    for prepend in (False, True):  # one call of the database, and several
        asked = replace(asked, id=new_job_id())
        accepted = await store.accepts(Submission(ALICE, PLAN, (asked,), prepend=prepend))
        (job,) = accepted.jobs
        assert (job.steps, job.generation) == (33, asked.generation)
        assert await store.jobs.job(ALICE, job.id) == job
        assert await store.jobs.resolve(job.id) == Resolution(JobState.QUEUED, 0, 33)
        claim = await store.claim(job)
        await store.settle(claim, Outcome.SUCCEEDED, steps_done=40, images=(image(),))
        assert await store.jobs.resolve(job.id) == Resolution(JobState.SUCCEEDED, 33, 33)
    (other,) = await store.submit()
    await store.cancel(other.id)
    told = [(event.type, event.steps_done, event.steps) for event in await store.read(Cursor())]
    assert told == [
        (EventType.QUEUED, 0, 33),
        (EventType.SUCCEEDED, 33, 33),
        (EventType.QUEUED, 0, 33),
        (EventType.SUCCEEDED, 33, 33),
        (EventType.QUEUED, 0, 20),
        (EventType.CANCELLED, 0, 20),
    ]


async def test_ids_belong_to_one_user_and_one_request(store: Store) -> None:
    (job,) = await store.submit()
    with pytest.raises(NotFound):
        await store.submit(job.id, user=BOB)
    other = NewJob(job.id, replace(PICTURE, seed=8), 100)
    with pytest.raises(Conflict):
        await store.accepts(Submission(ALICE, PLAN, (other,)))
    with pytest.raises(NotFound):
        await store.jobs.job(BOB, job.id)
    assert await store.jobs.job(ALICE, job.id) == job


async def test_an_older_plan_changes_nothing(store: Store) -> None:
    await store.submit(plan=replace(PLAN, version=3, max_running=1, max_waiting=0))
    with pytest.raises(RateLimited):
        await store.submit(plan=replace(PLAN, version=2))
    (job,) = await store.submit(plan=replace(PLAN, version=3))
    (admission,) = await store.attempts.admissions([job.id])
    assert admission.share == Share(3, 10, 4, 2)


async def test_jobs_are_listed_newest_first(store: Store) -> None:
    a, b, c = await store.submit(*[new_job_id() for _ in range(3)])
    await store.submit(user=BOB)
    await store.cancel(b.id)
    every = await store.jobs.page(ALICE, Filter(), before=None, limit=2)
    assert [job.id for job in every] == [c.id, b.id]
    rest = await store.jobs.page(ALICE, Filter(), before=mark(every[-1]), limit=2)
    assert [job.id for job in rest] == [a.id]
    queued = Filter(states=frozenset([JobState.QUEUED]))
    found = await store.jobs.page(ALICE, queued, before=None, limit=5)
    assert [job.id for job in found] == [c.id, a.id]


async def test_a_success_is_accepted_once(store: Store) -> None:
    (job,) = await store.submit()
    claim = await store.claim(job)
    running = await store.jobs.job(ALICE, job.id)
    assert (running.state, running.attempts) == (JobState.RUNNING, 1)
    assert running.attempt_id == claim.attempt_id
    pictures = (image(), image())
    report = Report(claim, Outcome.SUCCEEDED, 20, images=pictures, warnings=("cut",))
    (settled,) = await store.attempts.settle([report])
    assert (settled.changed, settled.accepted, settled.ended) == (True, True, True)
    (again,) = await store.attempts.settle([report])
    assert (again.changed, again.accepted) == (False, True)
    done = await store.jobs.job(ALICE, job.id)
    assert (done.state, done.images, done.warnings) == (JobState.SUCCEEDED, pictures, ("cut",))
    assert done.steps_done == 20
    assert done.finished_at is not None
    assert await store.events() == [(job.id, EventType.QUEUED), (job.id, EventType.SUCCEEDED)]


async def test_only_a_failure_that_time_may_heal_is_followed_by_a_pause(store: Store) -> None:
    (job,) = await store.submit()
    failed = Report(await store.claim(job), Outcome.FAILED, error=OUT_OF_MEMORY)
    (settled,) = await store.attempts.settle([failed])
    assert settled.not_before is not None
    assert 0.4 <= (settled.not_before - job.queued_at).total_seconds() <= 10
    (admission,) = await store.attempts.admissions([job.id])
    assert admission.not_before == settled.not_before
    for number, outcome in enumerate((Outcome.HANDED_BACK, Outcome.UNFIT), start=2):
        (settled,) = await store.attempts.settle([Report(await store.claim(job, number), outcome)])
        assert (settled.state, settled.not_before) == (JobState.QUEUED, None)
    (admission,) = await store.attempts.admissions([job.id])
    assert admission.not_before is None


async def test_a_place_is_free_after_the_end(store: Store) -> None:
    plan = replace(PLAN, max_running=1, max_waiting=0)
    (job,) = await store.submit(plan=plan)
    await store.settle(await store.claim(job), Outcome.REFUSED, error=OUT_OF_MEMORY)
    assert (await store.jobs.job(ALICE, job.id)).error == OUT_OF_MEMORY
    await store.submit(plan=plan)


async def test_the_third_failure_that_counts_is_the_last(store: Store) -> None:
    (job,) = await store.submit()
    plan = [
        (Outcome.FAILED, JobState.QUEUED),
        (Outcome.HANDED_BACK, JobState.QUEUED),
        (Outcome.FORGOTTEN, JobState.QUEUED),
        (Outcome.LOST, JobState.QUEUED),
        (Outcome.FAILED, JobState.FAILED),
    ]
    for number, (outcome, state) in enumerate(plan, start=1):
        claim = await store.claim(job, number)
        assert await store.settle(claim, outcome, error=OUT_OF_MEMORY, steps_done=3) is state
        found = await store.jobs.job(ALICE, job.id)
        assert (found.state, found.attempts) == (state, number)
    found = await store.jobs.job(ALICE, job.id)
    assert found.error == OUT_OF_MEMORY
    assert found.steps_done == 3


async def test_a_superseded_attempt_may_succeed_but_not_fail(store: Store) -> None:
    (job,) = await store.submit()
    first = await store.claim(job)
    await store.settle(first, Outcome.LOST)
    second = await store.claim(job, 2)
    assert await store.settle(first, Outcome.REFUSED, error=OUT_OF_MEMORY) is None
    assert await store.settle(first, Outcome.SUCCEEDED) is JobState.SUCCEEDED
    assert await store.settle(second, Outcome.FAILED, error=OUT_OF_MEMORY) is None
    (again,) = await store.attempts.settle([Report(second, Outcome.SUCCEEDED)])
    assert (again.state, again.accepted) == (JobState.SUCCEEDED, False)
    assert (await store.jobs.job(ALICE, job.id)).attempt_id == first.attempt_id


async def test_an_attempt_that_was_given_up_and_succeeds_was_not_in_vain(store: Store) -> None:
    (job,) = await store.submit()
    claim = await store.claim(job)
    await store.settle(claim, Outcome.LOST)
    assert await store.came_to(claim) == (Outcome.LOST, True)
    both = [Report(claim, Outcome.FAILED), Report(claim, Outcome.SUCCEEDED)]
    late, won = await store.attempts.settle(both)
    assert (late.changed, won.state) == (False, JobState.SUCCEEDED)
    assert await store.came_to(claim) == (Outcome.SUCCEEDED, False)


async def test_a_report_may_come_before_the_record_of_its_claim(store: Store) -> None:
    (job,) = await store.submit()
    claim = Claim(new_attempt_id(), job.id, ALICE, WorkerId("w"), 1, datetime.now(UTC))
    assert await store.settle(claim, Outcome.SUCCEEDED) is JobState.SUCCEEDED
    assert await store.attempts.record([claim]) == [claim.attempt_id]
    assert await store.attempts.claims([claim.attempt_id, new_attempt_id()]) == [claim]


async def test_a_stop_of_a_job_that_had_ended_changes_nothing(store: Store) -> None:
    (job,) = await store.submit()
    await store.cancel(job.id)
    claim = Claim(new_attempt_id(), job.id, ALICE, WorkerId("w"), 1, datetime.now(UTC))
    report = Report(claim, Outcome.STOPPED, 3)
    (settled,) = await store.attempts.settle([report])
    assert (settled.state, settled.changed) == (JobState.CANCELLED, False)
    assert not settled.accepted


async def test_a_late_record_does_not_raise_the_dead(store: Store) -> None:
    (job,) = await store.submit()
    claim = Claim(new_attempt_id(), job.id, ALICE, WorkerId("w"), 1, datetime.now(UTC))
    await store.settle(claim, Outcome.LOST)
    await store.attempts.record([claim])
    assert (await store.jobs.job(ALICE, job.id)).state is JobState.QUEUED
    await store.attempts.record([claim], revive=True)
    assert (await store.jobs.job(ALICE, job.id)).state is JobState.RUNNING
    assert await store.settle(claim, Outcome.SUCCEEDED) is JobState.SUCCEEDED


async def test_an_unknown_job_is_put_aside(store: Store) -> None:
    claim = Claim(new_attempt_id(), new_job_id(), ALICE, WorkerId("w"), 1, datetime.now(UTC))
    assert await store.attempts.record([claim]) == [claim.attempt_id]
    (settled,) = await store.attempts.settle([Report(claim, Outcome.SUCCEEDED)])
    assert (settled.state, settled.changed, settled.accepted) == (None, False, False)


async def test_many_reports_are_one_decision_after_another(store: Store) -> None:
    jobs = await store.submit(*[new_job_id() for _ in range(3)])
    claims = [await store.claim(job) for job in jobs]
    again = replace(claims[0], attempt_id=new_attempt_id(), number=2)
    reports = [
        Report(claims[0], Outcome.LOST),
        Report(again, Outcome.SUCCEEDED, 20),
        Report(claims[1], Outcome.SUCCEEDED, 20),
        Report(claims[2], Outcome.REFUSED, 1, OUT_OF_MEMORY),
        Report(claims[1], Outcome.SUCCEEDED, 20),
    ]
    settled = await store.attempts.settle(reports)
    assert [(one.state, one.changed) for one in settled] == [
        (JobState.QUEUED, True),
        (JobState.SUCCEEDED, True),
        (JobState.SUCCEEDED, True),
        (JobState.FAILED, True),
        (JobState.SUCCEEDED, False),
    ]
    assert [settled[-1].accepted, (await store.events())[3:]] == [
        True,
        [
            (jobs[0].id, EventType.SUCCEEDED),
            (jobs[1].id, EventType.SUCCEEDED),
            (jobs[2].id, EventType.FAILED),
        ],
    ]
    await store.submit(*[new_job_id() for _ in range(5)])


async def test_cancelling(store: Store) -> None:
    waiting, running = await store.submit(new_job_id(), new_job_id())
    found = await store.cancel(waiting.id, user=BOB)
    assert (found.ended, found.unknown) == ((), (waiting.id,))
    found = await store.cancel(waiting.id)
    assert [(job.id, job.state) for job in found.ended] == [(waiting.id, JobState.CANCELLED)]
    assert await store.cancel(waiting.id) == Cancellation(over=(waiting.id,))
    claim = await store.claim(running)
    found = await store.cancel(running.id)
    assert [(job.state, job.cancel_requested) for job in found.stopping] == [
        (JobState.RUNNING, True)
    ]
    assert await store.attempts.cancelled([waiting.id, running.id]) == {running.id}
    assert await store.attempts.stop_requests(limit=5) == [running.id]
    assert await store.settle(claim, Outcome.STOPPED, steps_done=4) is JobState.CANCELLED
    assert (await store.jobs.job(ALICE, running.id)).steps_done == 4
    assert await store.attempts.stop_requests(limit=5) == []


async def test_resolving(store: Store) -> None:
    (job,) = await store.submit()
    assert await store.jobs.resolve(job.id) == Resolution(JobState.QUEUED, 0, 20)
    late = new_job_id()
    for _ in range(2):
        assert await store.jobs.resolve(late) == Resolution(None)
    with pytest.raises(InvalidState):
        await store.submit(late)


async def test_waits_that_took_too_long(store: Store) -> None:
    waiting, started = await store.submit(new_job_id(), new_job_id())
    claim = await store.claim(started)
    await store.settle(claim, Outcome.HANDED_BACK)
    assert await store.attempts.expire_waiting([waiting.id, started.id]) == []
    await store.age(601)
    (settled,) = await store.attempts.expire_waiting([waiting.id, started.id])
    assert (settled.job_id, settled.state, settled.ended) == (waiting.id, JobState.FAILED, True)
    found = await store.jobs.job(ALICE, waiting.id)
    assert found.error is not None
    assert found.error.code == "queue_time_exceeded"


async def test_open_jobs_are_read_by_state_and_place(store: Store) -> None:
    jobs = await store.submit(*[new_job_id() for _ in range(4)])
    claim = await store.claim(jobs[1])
    await store.cancel(jobs[3].id)
    first = await store.attempts.open_jobs(JobState.QUEUED, after=0, limit=1)
    rest = await store.attempts.open_jobs(JobState.QUEUED, after=first[0].place, limit=9)
    assert [one.job_id for one in first + rest] == [jobs[0].id, jobs[2].id]
    assert first[0].claim is None
    (running,) = await store.attempts.open_jobs(JobState.RUNNING, after=0, limit=9)
    assert (running.job_id, running.claim, running.attempts) == (jobs[1].id, claim, 1)
    assert set(await store.attempts.open([job.id for job in jobs])) == {job.id for job in jobs[:3]}


async def test_ids_of_open_jobs_are_read_within_bounds(store: Store) -> None:
    jobs = await store.submit(*[new_job_id() for _ in range(3)])
    jobs += await store.submit(user=BOB)
    await store.claim(jobs[0])
    places = [(job.place, job.id) for job in jobs]
    read = store.attempts.open_ids
    assert await read(JobState.RUNNING, after=0, limit=9) == places[:1]
    assert await read(JobState.QUEUED, after=0, limit=2) == places[1:3]
    assert await read(JobState.QUEUED, after=jobs[1].place, limit=9) == places[2:]
    found = await read(JobState.QUEUED, after=0, upto=jobs[2].place, limit=9)
    assert found == places[1:3]
    assert (await store.attempts.last_place())[0] == jobs[-1].place


async def test_the_feed_is_read_on_from_a_cursor_and_pruned(store: Store) -> None:
    await store.submit(new_job_id(), new_job_id())
    await store.age(100)
    await store.submit()
    events = await store.read(Cursor(), limit=2)
    assert len(events) == 2
    (last,) = await store.read(events[-1].cursor)
    assert await store.feed.prune(older_than_s=50) == 2
    assert await store.feed.prune(older_than_s=50) == 0
    with pytest.raises(OutOfRange):
        await store.feed.events(events[0].cursor, limit=1)
    assert await store.read(Cursor(), limit=1) == [last]
    assert await store.read(events[-1].cursor) == [last]


async def test_open_jobs_are_counted_by_tier_and_by_model(store: Store) -> None:
    assert await store.load.load() == Load()
    first, *_ = await store.submit(new_job_id(), new_job_id())
    free = replace(PLAN, priority=0, weight=1)
    other = NewJob(new_job_id(), replace(PICTURE, model_key=ModelKey("z")), 70)
    await store.accepts(Submission(BOB, free, (other,), ""))
    ended, _ = await store.submit(new_job_id(), new_job_id(), user=UserId("carol"), plan=free)
    await store.cancel(ended.id, user=UserId("carol"))
    await store.claim(first)
    found = await store.load.load()
    assert found.tiers == (
        TierLoad(priority=10, weight=4, waiting=1, running=1, waiting_users=1),
        TierLoad(priority=0, weight=1, waiting=2, running=0, waiting_users=2),
    )
    assert [replace(model, oldest_waiting_s=0) for model in found.models] == [
        ModelLoad(ModelKey("m"), waiting=2, running=1, waiting_cost_ms=200, oldest_waiting_s=0),
        ModelLoad(ModelKey("z"), waiting=1, running=0, waiting_cost_ms=70, oldest_waiting_s=0),
    ]
    await store.age(30)
    assert 30 <= (await store.load.load()).oldest_waiting_s < 60
    assert (found.waiting, found.running, found.waiting_cost_ms) == (3, 1, 270)
