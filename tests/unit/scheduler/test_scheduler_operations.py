"""Users' own line, plans and the operators' look over ports in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from easel_kit.errors import Conflict, DependencyDown, InvalidState, NotFound
from easel_kit.ids import UserId, new_job_id
from scheduler.domain.job import Entitlements, Job, JobState
from scheduler.domain.policy import Share
from scheduler.domain.selection import Filter, Selection
from scheduler.domain.stream import Assign, Stop
from tests.fakes.scheduler_house import ALICE, House

BOB = UserId("bob")
PAID = Entitlements(2, 100, 16, 5, 50, 600)


async def position(house: House, job: Job) -> int:
    return (await house.jobs.get(job.user_id, job.id)).position


async def test_many_are_cancelled_and_told_of(house: House) -> None:
    runs, *waits = await house.submit(*[new_job_id() for _ in range(3)], running=1)
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    found = await house.operations.cancel_many(ALICE, Selection())
    assert {job.id for job in found.ended} == {job.id for job in waits}
    assert [job.id for job in found.stopping] == [runs.id]
    assert (await worker.hears(Stop)).attempt_id == assigned.claim.attempt_id
    assert house.seen.names().count("settled") == 2
    assert (await house.queue.depth()).waiting == 0
    with pytest.raises(NotFound):
        await house.operations.cancel(ALICE, new_job_id())


async def test_a_cancel_said_again_repairs_what_the_first_did_not_reach(house: House) -> None:
    (job,) = await house.submit()
    await house.store.cancel(ALICE, Selection(frozenset([job.id])))  # the queue did not hear of it
    assert (await house.queue.depth()).waiting == 1
    assert (await house.operations.cancel(ALICE, job.id)).state is JobState.CANCELLED
    assert (await house.queue.depth()).waiting == 0


async def test_jobs_move_to_the_front_also_when_the_queue_hears_of_it_late(house: House) -> None:
    a, b, c = await house.submit(*[new_job_id() for _ in range(3)])
    assert await house.operations.prepend(ALICE, [c.id]) == [c.id]
    assert await position(house, c) == 1
    assert await house.operations.prepend(BOB, [a.id]) == []
    house.queue.away = True
    assert await house.operations.prepend(ALICE, [b.id, a.id]) == [b.id, a.id]
    assert house.seen.names()[-1] == "trouble prepend"
    with pytest.raises(DependencyDown):
        await house.plans.catch_up()
    house.queue.away = False
    assert await position(house, c) == 1
    await house.plans.catch_up()
    assert [await position(house, job) for job in (b, a, c)] == [1, 2, 3]


async def test_a_plan_changes_at_once_or_with_the_next_pass(house: House) -> None:
    await house.submit(new_job_id(), new_job_id())
    assert await house.plans.entitle(ALICE, PAID) == PAID
    assert await house.plans.entitle(ALICE, replace(PAID, version=1)) == PAID
    house.queue.away = True
    newest = replace(PAID, version=3, max_running=1)
    await house.plans.entitle(ALICE, newest)
    house.queue.away = False
    told: list[tuple[UserId, Share]] = []
    entitle = house.queue.entitle

    async def heard(user_id: UserId, share: Share) -> None:
        told.append((user_id, share))
        await entitle(user_id, share)

    house.queue.entitle = heard  # type: ignore[method-assign]
    await house.plans.catch_up()
    await house.plans.catch_up()  # told again for a while, since it may have been too early
    assert told == [(ALICE, Share(3, 100, 16, 1))] * 2
    house.clock.move(3_600)
    await house.plans.catch_up()  # since the last pass was so long ago
    house.clock.move(70)
    await house.plans.catch_up()
    assert len(told) == 3


async def test_a_plan_of_another_lane_is_left_to_it(house: House) -> None:
    await house.submit()
    house.plans._lane = "elsewhere"
    house.queue.away = True
    await house.plans.entitle(ALICE, PAID)
    assert "trouble entitle" not in house.seen.names()


async def test_an_id_is_resolved_out_of_sight_too(house: House) -> None:
    (job,) = await house.submit()
    await house.operations.clear(ALICE)
    assert (await house.jobs.resolve(job.id)).state is JobState.CANCELLED
    assert (await house.jobs.resolve(new_job_id())).state is None


async def test_clearing_and_pruning(house: House) -> None:
    done, *_ = await house.submit(*[new_job_id() for _ in range(3)])
    await house.operations.cancel(ALICE, done.id)
    cancelled = Filter(states=frozenset([JobState.CANCELLED]))
    assert await house.operations.prune(ALICE, cancelled) == 1
    assert (await house.jobs.counts(ALICE, []))[JobState.CANCELLED] == 0
    assert await house.operations.clear(ALICE) == (2, 2)
    assert (await house.jobs.page(ALICE, Filter(), before=None, size=5)).jobs == []
    assert await house.operations.clear(ALICE) == (0, 0)


async def test_what_may_be_repeated(house: House) -> None:
    ended, waits, hidden = await house.submit(*[new_job_id() for _ in range(3)])
    for job in (ended, hidden):
        await house.operations.cancel(ALICE, job.id)
    house.store.rows[hidden.id] = replace(house.store.rows[hidden.id], is_hidden=True)
    new = new_job_id()
    assert await house.jobs.repeated(ALICE, {}) == {}
    found = await house.jobs.repeated(ALICE, {new: ended.id})
    assert found[new].id == ended.id
    for old, error in ((waits.id, InvalidState), (hidden.id, NotFound), (new, NotFound)):
        with pytest.raises(error):
            await house.jobs.repeated(ALICE, {new: old})
    with pytest.raises(NotFound):
        await house.jobs.repeated(BOB, {new: ended.id})
    known = house.store.rows[waits.id] = replace(waits, retry_of=hidden.id)
    found = await house.jobs.repeated(ALICE, {waits.id: hidden.id})  # its submit comes once more
    assert found[waits.id] == known
    with pytest.raises(Conflict):
        await house.jobs.repeated(ALICE, {waits.id: ended.id})


async def test_however_many_look_the_line_is_counted_once_a_second(house: House) -> None:
    await house.worker(slots=3)
    first = await house.overview.look()
    assert (first.load.waiting, first.workers, first.slots) == (0, 1, 3)
    await house.submit()
    assert await house.overview.look() is first
    house.clock.move(2)
    house.queue.away = True
    second = await house.overview.look()
    assert (second.workers, second.slots) == (0, 0)
    assert "trouble overview" in house.seen.names()
