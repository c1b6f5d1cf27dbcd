"""What users, billing and time do to jobs in the database: in memory and in Postgres, the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from easel_kit.errors import InvalidState, NotFound, RateLimited
from easel_kit.ids import BatchId, JobId, ModelKey, UserId, new_job_id
from scheduler.domain.job import (
    Job,
    JobState,
    NewJob,
    Resolution,
    Submission,
)
from scheduler.domain.lease import Outcome
from scheduler.domain.policy import Share
from scheduler.domain.selection import Cancellation, Filter, PlanChange, Selection, mark
from tests.fakes.scheduler_contract import ALICE, BOB, PICTURE, PLAN, Store, image

ONE, TWO = BatchId("one"), BatchId("two")
LARGE = replace(PLAN, max_waiting=100)


async def submit(
    store: Store,
    count: int = 1,
    *,
    batch: BatchId | None = None,
    model: str = "m",
    prepend: bool = False,
    user: UserId = ALICE,
) -> list[Job]:
    picture = replace(PICTURE, model_key=ModelKey(model))
    jobs = tuple(NewJob(new_job_id(), picture, 100) for _ in range(count))
    accepted = await store.accepts(
        Submission(user, LARGE, jobs, "", batch_id=batch, prepend=prepend)
    )
    assert accepted.fresh == {job.id for job in jobs}
    return accepted.jobs


async def succeed(store: Store, job: Job) -> None:
    await store.settle(await store.claim(job), Outcome.SUCCEEDED, images=(image(),))


def ids(jobs: list[Job]) -> list[JobId]:
    return [job.id for job in jobs]


async def listed(store: Store, wanted: Filter, user: UserId = ALICE) -> list[JobId]:
    """All pages of two."""
    found: list[Job] = []
    while True:
        before = mark(found[-1]) if found else None
        page = await store.jobs.page(user, wanted, before=before, limit=2)
        found += page
        if len(page) < 2:
            return ids(found)


async def test_a_refusal_says_how_many_were_asked_for(store: Store) -> None:
    await submit(store, 3)
    jobs = tuple(NewJob(new_job_id(), PICTURE, 100) for _ in range(100))
    with pytest.raises(RateLimited) as refused:
        await store.accepts(Submission(ALICE, LARGE, jobs))
    told = refused.value
    assert (told.limit, told.current, told.requested) == (102, 3, 100)


async def test_lists_are_filtered_and_paged(store: Store) -> None:
    old = await submit(store, 3, batch=ONE)
    await store.age(100)
    new = await submit(store, 2, batch=TWO, model="other")
    loose = await submit(store, 2)
    await submit(store, 1, batch=ONE, user=BOB)
    await succeed(store, old[0])
    await succeed(store, new[1])
    await store.cancel(old[1].id)
    await store.claim(old[2])
    newest_first = ids((old + new + loose)[::-1])

    async def kept(*jobs: Job, **asked: object) -> None:
        wanted = Filter(**asked)  # type: ignore[arg-type]
        chosen = set(ids(list(jobs)))
        assert await listed(store, wanted) == [one for one in newest_first if one in chosen]

    await kept(*old, *new, *loose)
    await kept(old[0], new[1], states=frozenset([JobState.SUCCEEDED]))
    over = frozenset([JobState.SUCCEEDED, JobState.CANCELLED])
    await kept(old[0], old[1], states=over, batch_ids=frozenset([ONE]))
    await kept(old[2], states=frozenset([JobState.RUNNING]))
    await kept(*old, *new, batch_ids=frozenset([ONE, TWO]))
    await kept(*new, model_keys=frozenset([ModelKey("other"), ModelKey("none")]))
    since = loose[0].queued_at - timedelta(seconds=50)
    await kept(*new, *loose, queued_from=since)
    await kept(*old, queued_before=since)
    await kept(queued_from=since, queued_before=since)
    await kept(new[0], batch_ids=frozenset([TWO]), states=frozenset([JobState.QUEUED]))


async def test_a_page_goes_on_where_the_last_one_ended_whatever_comes_in(store: Store) -> None:
    first = await submit(store, 3)
    page = await store.jobs.page(ALICE, Filter(), before=None, limit=2)
    await submit(store, 3)
    await succeed(store, first[0])
    rest = await store.jobs.page(ALICE, Filter(), before=mark(page[-1]), limit=9)
    assert ids(page) + ids(rest) == ids(first[::-1])


async def test_jobs_are_counted_by_state(store: Store) -> None:
    assert await store.jobs.counts(ALICE, []) == dict.fromkeys(JobState, 0)
    jobs = await submit(store, 4, batch=ONE)
    await submit(store, 2, batch=TWO)
    await submit(store, 1, user=BOB)
    await succeed(store, jobs[0])
    await store.claim(jobs[1])
    await store.cancel(jobs[2].id)
    every = {
        JobState.QUEUED: 3,
        JobState.RUNNING: 1,
        JobState.SUCCEEDED: 1,
        JobState.FAILED: 0,
        JobState.CANCELLED: 1,
    }
    assert await store.jobs.counts(ALICE, []) == every
    assert await store.jobs.counts(ALICE, [ONE]) == every | {JobState.QUEUED: 1}
    assert await store.jobs.counts(ALICE, [ONE, TWO]) == every
    assert await store.jobs.counts(BOB, [TWO]) == dict.fromkeys(JobState, 0)


async def test_cancelling_many_says_what_happened_to_each(store: Store) -> None:
    waits, runs, ended, other = await submit(store, 4, batch=ONE)
    await succeed(store, ended)
    await store.claim(runs)
    (foreign,) = await submit(store, 1, user=BOB)
    named = Selection(frozenset([waits.id, runs.id, ended.id, foreign.id]))
    found = await store.own_line.cancel(ALICE, named, waiting_only=True)
    assert ids(list(found.ended)) == [waits.id]
    assert (found.stopping, found.running) == ((), (runs.id,))
    assert (found.over, found.unknown) == ((ended.id,), (foreign.id,))
    found = await store.own_line.cancel(ALICE, named)
    assert (found.ended, ids(list(found.stopping))) == ((), [runs.id])
    assert (found.over, found.unknown) == (tuple(sorted([waits.id, ended.id])), (foreign.id,))
    found = await store.own_line.cancel(ALICE, Selection(batch_ids=frozenset([TWO])))
    assert found == Cancellation()
    found = await store.own_line.cancel(ALICE, Selection())
    assert (ids(list(found.ended)), ids(list(found.stopping))) == ([other.id], [runs.id])
    assert (await store.jobs.job(BOB, foreign.id)).state is JobState.QUEUED
    # what was ended is free again
    (alone,) = await submit(store, 1, batch=TWO)
    found = await store.own_line.cancel(ALICE, Selection(batch_ids=frozenset([TWO, ONE])))
    assert (ids(list(found.ended)), ids(list(found.stopping))) == ([alone.id], [runs.id])


async def test_jobs_go_to_the_front_in_the_order_named(store: Store) -> None:
    a, b, c, d = await submit(store, 4)
    await store.claim(d)
    orders = await store.own_line.prepend(ALICE, [c.id, b.id, d.id, c.id, new_job_id()])
    assert list(orders) == [c.id, b.id]
    early = await submit(store, 2, prepend=True)
    assert [job.place for job in early] == sorted(job.place for job in early)
    again = await store.own_line.prepend(ALICE, [a.id])
    assert await store.own_line.prepend(BOB, [a.id]) == {}
    waiting = await store.attempts.admissions(ids([a, b, c, *early]))
    turn = sorted(waiting, key=lambda one: one.order)
    assert [one.job_id for one in turn] == [a.id, *ids(early), c.id, b.id]
    shown = {one.job_id: one.order for one in waiting}
    assert shown[a.id] == again[a.id] < 0
    (late,) = await submit(store)
    assert late.front is None


async def test_what_is_out_of_sight_is_there_for_bills_alone(store: Store) -> None:
    done, failed, waits = await submit(store, 3, batch=ONE)
    await succeed(store, done)
    await store.settle(await store.claim(failed), Outcome.REFUSED)
    told = await store.events()
    wanted = Filter(states=frozenset([JobState.SUCCEEDED]), batch_ids=frozenset([ONE]))
    assert await store.own_line.hide(ALICE, replace(wanted, batch_ids=frozenset([TWO]))) == 0
    assert await store.own_line.hide(BOB, wanted) == 0
    assert await store.own_line.hide(ALICE, wanted) == 1
    assert await store.own_line.hide(ALICE, wanted) == 0
    assert await listed(store, Filter()) == ids([waits, failed])
    assert await listed(store, wanted) == []
    assert (await store.jobs.counts(ALICE, [ONE]))[JobState.SUCCEEDED] == 0
    with pytest.raises(NotFound):
        await store.jobs.job(ALICE, done.id)
    hidden = await store.jobs.job(ALICE, done.id, hidden=True)
    assert (hidden.is_hidden, len(hidden.images)) == (True, 1)
    assert (await store.jobs.find(ALICE, [done.id, failed.id])).keys() == {done.id, failed.id}
    assert await store.jobs.resolve(done.id) == Resolution(JobState.SUCCEEDED, 0, 20)
    assert await store.cancel(done.id) == Cancellation(unknown=(done.id,))
    assert await store.own_line.hide(ALICE, Filter()) == 1
    assert await listed(store, Filter()) == [waits.id]
    assert await store.events() == told


async def test_clearing_hides_what_it_cancels_to_its_end(store: Store) -> None:
    waits, runs = await submit(store, 2)
    claim = await store.claim(runs)
    found = await store.own_line.cancel(ALICE, Selection(), hide=True)
    assert (ids(list(found.ended)), ids(list(found.stopping))) == ([waits.id], [runs.id])
    assert await listed(store, Filter()) == []
    assert await store.own_line.cancel(ALICE, Selection(), hide=True) == Cancellation()
    assert await store.attempts.stop_requests(limit=5) == [runs.id]
    assert await store.settle(claim, Outcome.STOPPED) is JobState.CANCELLED
    assert await listed(store, Filter()) == []
    assert sum((await store.jobs.counts(ALICE, [])).values()) == 0
    await submit(store, 102)  # and nothing of it counts any more


async def test_many_go_out_of_sight_in_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.storage.own_line._HIDE_BATCH", 2)
    jobs = await submit(store, 5)
    await store.cancel(*ids(jobs))
    assert await store.own_line.hide(ALICE, Filter()) == 5


async def test_a_plan_changes_without_a_submit(store: Store) -> None:
    newer = replace(PLAN, version=3, priority=100, weight=16, max_running=9)
    assert await store.plans.entitle(ALICE, newer) == (newer, "default")
    assert await store.plans.entitle(ALICE, replace(PLAN, version=2)) == (newer, "default")
    # an unknown user was remembered: the older plan of a submit does not hold
    (job,) = await submit(store)
    (admission,) = await store.attempts.admissions([job.id])
    assert admission.share == Share(3, 100, 16, 9)
    newest = replace(PLAN, version=4)
    await store.plans.entitle(ALICE, newest)
    (admission,) = await store.attempts.admissions([job.id])
    assert admission.share == Share(4, 10, 4, 2)
    assert admission.start_by == job.start_by  # the queue time was promised


async def test_a_submit_answers_with_the_plan_that_holds(store: Store) -> None:
    await store.plans.entitle(ALICE, replace(PLAN, version=9, priority=100))
    jobs = (NewJob(new_job_id(), PICTURE, 100),)
    for _ in range(2):  # the second time it is known already
        accepted = await store.accepts(Submission(ALICE, PLAN, jobs))
        assert accepted.share == Share(9, 100, 4, 2)


async def test_changes_are_told_while_they_are_fresh(store: Store) -> None:
    a, b, _ = await submit(store, 3)
    await submit(store, 1, user=BOB)
    assert await store.plans.changes(within_s=None) == []
    orders = await store.own_line.prepend(ALICE, [b.id, a.id])
    await store.own_line.prepend(BOB, [])
    await store.plans.entitle(UserId("carol"), PLAN)  # she has no jobs
    share = Share(1, 10, 4, 2)
    alice = PlanChange(ALICE, share, orders)
    found = await store.plans.changes(within_s=10)
    assert [one for one in found if one.user_id == ALICE] == [alice]
    assert {one.user_id for one in found} <= {ALICE, BOB}
    await store.cancel(b.id)
    await store.age(100)
    assert await store.plans.changes(within_s=10) == []
    (old, *_) = [one for one in await store.plans.changes(within_s=None) if one.user_id == ALICE]
    assert old.orders == {a.id: orders[a.id]}


async def test_old_history_is_removed_with_all_that_belongs_to_it(store: Store) -> None:
    done, ended, waits = await submit(store, 3)
    late = new_job_id()
    assert await store.jobs.resolve(late) == Resolution(None)
    await succeed(store, done)
    await store.cancel(ended.id)
    await store.age(100)
    (young,) = await submit(store)
    claim = await store.claim(young)
    await store.settle(claim, Outcome.SUCCEEDED)
    told = await store.events()
    assert await store.history.remove(older_than_s=50) == 3
    assert await store.history.remove(older_than_s=50) == 0
    assert await listed(store, Filter()) == ids([young, waits])
    assert await store.events() == told
    assert [one.job_id for one in await store.attempts.claims([claim.attempt_id])] == [young.id]
    # nothing is known of a removed id: it is buried like any other
    assert await store.jobs.resolve(done.id) == Resolution(None)
    with pytest.raises(InvalidState):
        await store.submit(done.id)


async def test_history_is_removed_in_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.storage.retention._BATCH", 2)
    jobs = await submit(store, 5)
    await store.cancel(*ids(jobs))
    await store.age(100)
    removed = 0
    while some := await store.history.remove(older_than_s=50):
        removed += some
    assert removed == 5
