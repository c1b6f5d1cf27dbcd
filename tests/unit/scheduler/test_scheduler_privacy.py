"""Export and erasure over ports in memory."""

from __future__ import annotations

import pytest

from easel_kit.erasure import hash_of
from easel_kit.errors import DependencyDown
from easel_kit.ids import ModelKey, UserId, new_job_id
from scheduler.domain.job import JobState
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.privacy import Erased
from scheduler.domain.selection import Selection
from scheduler.service.privacy import Privacy
from tests.fakes.scheduler_house import ALICE, House

BOB = UserId("bob")
M = ModelKey("m")
STRANGER = UserId("stranger")


@pytest.fixture
def privacy(house: House) -> Privacy:
    return Privacy(house.store, house.store, house.queue)


async def test_jobs_come_in_bounded_parts_each_once(house: House, privacy: Privacy) -> None:
    ids = [new_job_id() for _ in range(103)]
    for start in range(0, len(ids), 10):
        await house.submit(*ids[start : start + 10], running=200)
    parts = [part async for part in privacy.export(ALICE)]
    assert [job.id for part in parts for job in part] == ids
    assert max(len(part) for part in parts) < len(ids) / 2
    assert [part async for part in privacy.export(STRANGER)] == []


async def test_those_with_open_jobs_are_counted_and_left(house: House, privacy: Privacy) -> None:
    (job,) = await house.submit()
    await house.submit(user=BOB)
    await house.operations.cancel(ALICE, job.id)
    everyone = [hash_of(one) for one in (ALICE, BOB, STRANGER)]
    assert await privacy.erase(everyone) == Erased(erased=1, busy=1)
    assert await privacy.erase(everyone) == Erased(erased=0, busy=1)
    assert {job.user_id for job in house.store.rows.values()} == {BOB}
    assert await house.queue.forget_user(BOB) != []


async def test_a_queue_that_did_not_hear_of_the_end_hears_of_it(
    house: House, privacy: Privacy
) -> None:
    jobs = await house.submit(new_job_id(), new_job_id())
    await house.store.cancel(ALICE, Selection(frozenset([jobs[0].id])))
    assert await privacy.erase([hash_of(ALICE)]) == Erased(erased=0, busy=1)
    assert await house.queue.forget_user(ALICE) == [jobs[1].id]
    await house.store.cancel(ALICE, Selection())
    assert await privacy.erase([hash_of(ALICE)]) == Erased(erased=1, busy=0)
    assert (await house.queue.depth()).waiting == 0


async def test_without_the_queue_nothing_is_erased_yet(house: House, privacy: Privacy) -> None:
    (job,) = await house.submit()
    await house.operations.cancel(ALICE, job.id)
    house.queue.away = True
    with pytest.raises(DependencyDown):
        await privacy.erase([hash_of(ALICE)])
    assert (await house.store.job(ALICE, job.id)).state is JobState.CANCELLED
    house.queue.away = False
    assert await privacy.erase([hash_of(ALICE)]) == Erased(erased=1, busy=0)


def test_a_forgotten_user_is_a_newcomer_to_the_policy() -> None:
    line = FairQueue()
    share = Share(version=5, priority=0, weight=1, max_running=1)
    for order, user in enumerate([ALICE, BOB]):
        line.admit(Waiting(new_job_id(), user, M, 100, order), share)
    while (job := line.claim([M])) is not None:
        line.remove(job.job_id)
    line.forget(ALICE)
    line.forget(STRANGER)
    older = Share(version=1, priority=0, weight=1, max_running=2)
    line.admit(Waiting(new_job_id(), ALICE, M, 100, 9), older)
    line.admit(Waiting(new_job_id(), ALICE, M, 100, 10), older)
    assert line.claim([M]) is not None
    assert line.claim([M]) is not None, "the plan of before is gone"
