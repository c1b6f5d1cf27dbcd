"""The queue after a loss, and its comparison with the database, over ports in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from easel_kit.errors import DependencyDown
from easel_kit.ids import UserId, new_job_id
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import Job, JobState
from scheduler.domain.lease import Outcome
from scheduler.domain.stream import Acknowledged, Assign, Drain, Welcome
from scheduler.domain.survey import SETTLE, Survey
from tests.fakes.scheduler_house import ALICE, LEASE_S, House

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOB = UserId("bob")


# --- how far the comparison has come


def test_the_floor_follows_once_all_transactions_of_its_time_have_ended() -> None:
    first = Survey().advanced(last_place=100, now=NOW, cursor=0)
    assert (first.floor, first.next_floor) == (0, 100)
    soon = first.advanced(last_place=200, now=NOW + SETTLE / 2, cursor=4)
    assert (soon.floor, soon.next_floor, soon.cursor) == (0, 100, 4)
    later = soon.advanced(last_place=300, now=NOW + SETTLE, cursor=0)
    assert (later.floor, later.next_floor) == (100, 300)


# --- rebuilding


async def test_a_lost_queue_is_rebuilt_by_the_first_call_that_meets_it(house: House) -> None:
    jobs = await house.submit(*[new_job_id() for _ in range(3)], running=1)
    worker = await house.worker(slots=2)
    assigned = await worker.hears(Assign)
    await house.settled()
    house.queue.lose()
    (late,) = await house.submit(user=BOB)  # accepted; its admission meets the loss
    await house.until(lambda: "rebuilt" in house.seen.names())
    assert (await worker.hears(Assign)).job.id == late.id  # the worker is back by itself
    worker.reports(assigned)
    assert (await worker.hears(Acknowledged)).accepted
    worker.session.offer(1)
    assert (await worker.hears(Assign)).job.id == jobs[1].id
    assert house.store.rows[jobs[0].id].attempts == 1


async def test_a_rebuild_that_fails_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.rebuild._RETRY_S", 0.001)
    (job,) = await house.submit()
    house.queue.lose()
    house.store.away = True
    house.rebuilder.doubt()
    await house.until(lambda: "trouble rebuild" in house.seen.names())
    house.store.away = False
    await house.until(lambda: "rebuilt" in house.seen.names())
    assert (await house.jobs.get(ALICE, job.id)).position == 1


async def test_claims_wait_for_the_rebuild_and_go_on_when_it_is_done(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.assign._PAUSE", Backoff(60, 60))
    worker = await house.worker(offer=False)
    (job,) = await house.submit()
    await house.settled()
    async with house.locks.hold("rebuild"):  # another replica's
        house.queue.lose()
        for _ in range(5):
            worker.session.offer(1)
            await house.settled()
        assert house.seen.names().count("trouble claim") == 1
    assert (await worker.hears(Assign)).job.id == job.id


async def test_an_order_to_drain_outlives_the_queue(house: House) -> None:
    worker = await house.worker()
    await house.jobs.drain(worker.session.worker.id)
    await worker.hears(Drain)
    house.queue.lose()
    await house.submit()
    await house.until(lambda: "rebuilt" in house.seen.names())
    await house.workers.heartbeat(worker.session)
    assert [one.worker.draining for one in await house.queue.workers()] == [True]
    assert worker.session.room == 0


async def test_a_replica_that_is_not_alone_waits_for_the_other(house: House) -> None:
    await house.settled()
    house.queue.lose()
    async with house.locks.hold("rebuild"):
        token = await house.queue.begin(alone=True)
        assert token is not None
        assert await house.queue.begin(alone=False) is None
        await house.queue.open(token)
    await house.rebuilder.rebuild()
    assert "rebuilt" not in house.seen.names()


async def test_opening_is_waited_for_but_not_forever(house: House) -> None:
    await house.rebuilder.opened(within_s=5)
    house.rebuilder._opened.clear()
    await house.rebuilder.opened(within_s=0.001)


async def test_jobs_that_came_in_too_late_for_the_pages_are_in_line(house: House) -> None:
    (first,) = await house.submit()
    late: list[Job] = []
    read = house.store.open_jobs

    async def hooked(state: JobState, *, after: int, limit: int) -> Any:  # noqa: ANN401 (as the store)
        page = await read(state, after=after, limit=limit)
        if state is JobState.QUEUED and not page and not late:
            late.extend(await house.submit(user=BOB))
        return page

    house.store.open_jobs = hooked  # type: ignore[method-assign]
    house.queue.lose()
    house.rebuilder.doubt()
    await house.until(lambda: "rebuilt" in house.seen.names())
    await house.settled()
    known = [job_id for _, job_id in await house.queue.known(after=0, limit=9)]
    assert known == [first.id, late[0].id]
    assert house.reconcile_soon.is_set()


# --- comparing


def before(owner: object, name: str, action: Callable[[], Awaitable[object]]) -> None:
    """Does something once, just before this call."""
    call, done = getattr(owner, name), False

    async def hooked(*arguments: object, **more: object) -> object:
        nonlocal done
        if not done:
            done = True
            await action()
        return await call(*arguments, **more)

    setattr(owner, name, hooked)


async def test_only_one_replica_compares_at_a_time(house: House) -> None:
    await house.submit()
    house.queue.forget()
    async with house.locks.hold("reconcile"):
        await house.reconciler.reconcile()
    assert "repaired admitted" not in house.seen.names()
    await house.reconciler.reconcile()
    assert ("repaired admitted", 1) in house.seen.seen


async def test_a_pass_that_finds_nothing_reads_no_job_in_full(house: House) -> None:
    await house.submit(*[new_job_id() for _ in range(5)])
    worker = await house.worker()
    await worker.hears(Assign)
    await house.settled()

    async def never(*_: object) -> Any:  # noqa: ANN401 (never)
        raise AssertionError("nothing differs")

    house.store.admissions = never  # type: ignore[assignment, method-assign]
    await house.reconciler.reconcile()


async def test_slices_come_round_to_every_job(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.reconcile._PAGE", 2)
    monkeypatch.setattr("scheduler.service.reconcile._SLICE", 4)
    jobs = await house.submit(*[new_job_id() for _ in range(9)], running=1)
    for _ in range(3):  # the floor rises above all of them
        await house.reconciler.reconcile()
        house.clock.move(SETTLE.total_seconds())
    assert (await house.queue.survey()).floor == jobs[-1].place
    survey = await house.queue.survey()
    house.queue.forget()
    await house.queue.surveyed(survey)
    passes = []
    for _ in range(4):
        await house.reconciler.reconcile()
        passes.append((await house.queue.depth()).waiting)
    assert passes[-1] == 9
    assert passes[0] < 9
    await house.submit()
    assert (await house.queue.depth()).waiting == 10


async def test_a_job_that_ends_during_the_comparison_does_not_come_back(house: House) -> None:
    (job,) = await house.submit()

    async def end() -> None:
        await house.operations.cancel(ALICE, job.id)

    before(house.queue, "known", end)
    await house.reconciler.reconcile()
    assert (await house.queue.depth()).waiting == 0
    assert "repaired admitted" not in house.seen.names()


async def test_a_job_claimed_during_the_comparison_stays_claimed(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker(offer=False)

    async def claim() -> None:
        worker.session.offer(1)
        await worker.hears(Assign)

    before(house.queue, "leased", claim)
    await house.reconciler.reconcile()
    await house.settled()
    assert (await house.queue.depth()).running == 1
    assert house.store.rows[job.id].attempts == 1


async def test_a_running_job_that_ended_unheard_frees_its_slot(house: House) -> None:
    first, second = await house.submit(new_job_id(), new_job_id(), running=1)
    worker = await house.worker(slots=2)
    assigned = await worker.hears(Assign)
    await house.settled()
    end = house.queue.end

    async def lost(*_: object, **__: object) -> None:
        raise DependencyDown("away")

    house.queue.end = lost  # type: ignore[method-assign]
    worker.reports(assigned, Outcome.SUCCEEDED)
    assert (await worker.hears(Acknowledged)).accepted
    await house.settled()
    house.queue.end = end  # type: ignore[method-assign]
    worker.session.offer(2)
    await worker.hears(Welcome)
    await worker.hears_nothing()  # the slot is still taken
    await house.reconciler.reconcile()
    assert ("repaired removed", 1) in house.seen.seen
    assert (await worker.hears(Assign)).job.id == second.id
    assert assigned.job.id == first.id


async def test_a_running_job_that_the_queue_does_not_know_is_held_for_its_worker(
    house: House,
) -> None:
    (job,) = await house.submit(running=1)
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    house.queue.forget()
    await house.reconciler.reconcile()
    assert await house.queue.leased(limit=9) == [job.id]
    worker.reports(assigned)
    assert (await worker.hears(Acknowledged)).accepted
    await house.settled()
    assert await house.queue.leased(limit=9) == []


async def test_a_long_outage_behind_the_floor_is_made_good_in_one_pass(house: House) -> None:
    await house.submit()
    await house.reconciler.reconcile()
    house.queue.away = True
    for _ in range(3):
        await house.submit(user=BOB)
        house.clock.move(timedelta(hours=1).total_seconds())
        with pytest.raises(DependencyDown):
            await house.reconciler.reconcile()
    house.queue.away = False
    await house.reconciler.reconcile()
    assert (await house.queue.depth()).waiting == 4


async def test_a_queue_that_hung_takes_no_lease_away(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    await worker.hears(Assign)
    await house.settled()
    house.clock.move(2 * LEASE_S)  # nobody could renew meanwhile

    async def hang() -> None:
        house.clock.move(LEASE_S / 2)

    before(house.queue, "expired", hang)
    with pytest.raises(DependencyDown):
        await house.caretaker.expire()
    await house.caretaker.expire()
    assert house.store.rows[job.id].state is JobState.RUNNING
    house.clock.move(LEASE_S)
    await house.caretaker.expire()
    assert house.store.rows[job.id].state is JobState.QUEUED
