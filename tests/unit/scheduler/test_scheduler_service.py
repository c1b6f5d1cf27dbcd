"""Callers' use cases, watching, the feed and upkeep over ports in memory."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from easel_kit.errors import DependencyDown, InvalidInput, NotFound, Overloaded
from easel_kit.ids import UserId, new_job_id
from scheduler.domain.job import Cursor, Entitlements, EventType, JobState
from scheduler.domain.lease import Ended, Outcome
from scheduler.domain.line import Progress
from scheduler.domain.selection import Filter, Selection
from scheduler.domain.stream import Acknowledged, Assign, Stop, Welcome
from scheduler.loop import every, prune, reconcile, watch_leases
from scheduler.service import reconcile as reconcile_module
from scheduler.service import upkeep
from scheduler.service.watch import Seen
from tests.fakes.scheduler_house import ALICE, LEASE_S, House, model


async def test_a_submit_goes_on_while_the_queue_is_away(house: House) -> None:
    house.queue.away = True
    (job,) = await house.submit()
    assert (job.state, job.position) == (JobState.QUEUED, 0)
    assert house.seen.names() == ["queued", "trouble admit"]
    house.queue.away = False
    await house.reconciler.reconcile()
    assert ("repaired admitted", 1) in house.seen.seen
    assert (await house.jobs.get(ALICE, job.id)).position == 1


async def test_a_queue_that_hangs_costs_a_bounded_wait(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.submits._QUEUE_WAIT_S", 0.01)

    async def hang(*_: object) -> Any:  # noqa: ANN401 (never)
        await asyncio.Event().wait()

    house.queue.admit = hang  # type: ignore[assignment, method-assign]
    house.queue.live = hang  # type: ignore[assignment, method-assign]
    (job,) = await house.submit()
    assert job.state is JobState.QUEUED


async def test_a_submit_needs_one_to_ten_jobs_with_ids_of_their_own(house: House) -> None:
    for ids in ([new_job_id()] * 2, [new_job_id() for _ in range(11)]):
        with pytest.raises(InvalidInput):
            await house.submit(*ids)


async def test_a_cancel_goes_on_while_the_queue_is_away(house: House) -> None:
    waiting, running = await house.submit(new_job_id(), new_job_id())
    worker = await house.worker(offer=False)
    await worker.hears(Welcome)
    house.queue.away = True
    assert (await house.operations.cancel(ALICE, waiting.id)).state is JobState.CANCELLED
    house.queue.away = False
    worker.session.offer(1)
    assigned = await worker.hears(Assign)
    assert assigned.job.id == running.id
    await house.settled()
    house.queue.away = True
    assert (await house.operations.cancel(ALICE, running.id)).cancel_requested
    house.queue.away = False
    await house.reconciler.reconcile()
    assert (await worker.hears(Stop)).attempt_id == assigned.claim.attempt_id
    names = house.seen.names()
    assert ("cancel_requested" in names, "settled" in names) == (True, True)


async def test_pages_end(house: House) -> None:
    jobs = await house.submit(*[new_job_id() for _ in range(3)])
    first = await house.jobs.page(ALICE, Filter(), before=None, size=2)
    assert [job.id for job in first.jobs] == [jobs[2].id, jobs[1].id]
    last = await house.jobs.page(ALICE, Filter(), before=first.before, size=2)
    assert ([job.id for job in last.jobs], last.before) == ([jobs[0].id], None)
    assert (await house.jobs.page(UserId("bob"), Filter(), before=None, size=2)).jobs == []


async def test_models_are_read_again_when_something_changed(house: House) -> None:
    worker = await house.worker()
    first = await house.jobs.models()
    assert await house.jobs.models() is first
    await house.workers.change(worker.session, models=(model("a"), model("b")), draining=True)
    assert [one.key for one in await house.jobs.models()] == ["a", "b"]
    assert [one.worker.draining for one in await house.jobs.workers()] == [True]


# --- watching


async def watched(house: House, job_id: Any, user: UserId = ALICE) -> Any:  # noqa: ANN401
    return house.watches.watch(user, job_id)


async def test_a_watch_from_waiting_to_the_end(house: House) -> None:
    ahead, job = await house.submit(new_job_id(), new_job_id(), running=1)
    async with aclosing(await watched(house, job.id)) as watch:
        assert (await anext(watch)).job.position == 2
        await house.operations.cancel(ALICE, ahead.id)
        reading = asyncio.ensure_future(anext(watch))
        await house.settled()
        await house.watches.refresh_positions()
        assert (await reading).job.position == 1
        worker = await house.worker()
        assigned = await worker.hears(Assign)
        assert (await anext(watch)).job.state is JobState.RUNNING
        house.workers.progress(
            worker.session, assigned.claim.attempt_id, 3, preview=b"png", preview_media_type="p"
        )
        seen: Seen = await anext(watch)
        while not seen.preview:  # the record of the claim may be seen first
            seen = await anext(watch)
        assert (seen.job.steps_done, seen.preview) == (3, b"png")
        worker.reports(assigned)
        await worker.hears(Acknowledged)
        while not seen.job.state.ended:
            seen = await anext(watch)
        assert seen.job.state is JobState.SUCCEEDED
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
    assert house.signals.watched == []


async def test_progress_of_a_job_that_seemed_to_wait_is_looked_up(house: House) -> None:
    (job,) = await house.submit()
    async with aclosing(await watched(house, job.id)) as watch:
        await anext(watch)
        silent, house.queue.handler = house.queue.handler, house.queue.heard
        worker = await house.worker()
        worker.session.woken.set()
        await worker.hears(Assign)
        house.queue.handler = silent
        house.watches.on_job(job.id, Progress(job.id, 2, 10, house.clock.now()))
        seen = await anext(watch)
        assert (seen.job.state, seen.job.steps_done) == (JobState.RUNNING, 2)
        house.watches.on_job(new_job_id(), None)  # nobody watches that one


async def test_a_watch_hears_of_nothing_twice_and_looks_again_by_itself(house: House) -> None:
    house.watches._recheck_s = 0.01
    (job,) = await house.submit()
    async with aclosing(await watched(house, job.id)) as watch:
        await anext(watch)
        reading = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.03)
        assert not reading.done()  # it looked again, and nothing was new
        await house.store.cancel(ALICE, Selection(frozenset([job.id])))  # unheard
        assert (await reading).job.state is JobState.CANCELLED


async def test_positions_are_left_when_the_queue_is_away(house: House) -> None:
    await house.watches.refresh_positions()
    (job,) = await house.submit()
    async with aclosing(await watched(house, job.id)) as watch:
        await anext(watch)
        reading = asyncio.ensure_future(anext(watch))
        await house.settled()
        house.queue.away = True
        await house.watches.refresh_positions()
        assert house.seen.names()[-1] == "trouble positions"
        house.queue.away = False
        await house.operations.cancel(ALICE, job.id)
        assert (await reading).job.state is JobState.CANCELLED


async def test_a_job_is_foreseen_but_not_by_a_queue_that_is_away(house: House) -> None:
    plan = Entitlements(1, 0, 1, 1, 2, 60)
    for _ in range(2):
        found = await house.jobs.foresee(ALICE, plan, 100)
        assert found is not None
        assert found.position == 1
    house.queue.away = True
    assert await house.jobs.foresee(ALICE, plan, 100) is None
    assert house.seen.names()[-1] == "trouble foresee"


async def test_watchers_are_bounded_and_sent_away_at_the_end(house: House) -> None:
    (job,) = await house.submit()
    with pytest.raises(NotFound):
        await anext(await watched(house, job.id, UserId("bob")))
    streams = [await watched(house, job.id) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(Overloaded):
        await anext(await watched(house, job.id))
    house.watches.shut()
    for stream in streams:
        with pytest.raises(DependencyDown):
            await anext(stream)


# --- the feed


async def test_a_reader_follows_the_feed_until_the_process_stops(house: House) -> None:
    await house.submit()
    async with aclosing(house.feed.follow(Cursor())) as feed:  # type: ignore[type-var]
        (first,) = await anext(feed)
        reading = asyncio.ensure_future(anext(feed))
        await house.settled()
        (job,) = await house.submit()
        house.bell.ring()
        (second,) = await reading
        assert (second.job_id, second.type) == (job.id, EventType.QUEUED)
        assert second.cursor > first.cursor
        reading = asyncio.ensure_future(anext(feed))
        await house.settled()
        house.feed.shut()
        with pytest.raises(DependencyDown):
            await reading


async def test_what_is_held_back_is_looked_for_again_soon(house: House) -> None:
    events, answers = house.store.events, iter([True, True])

    async def held(after: Cursor, *, limit: int) -> Any:  # noqa: ANN401 (as the store)
        if next(answers, False):
            return [], True
        return await events(after, limit=limit)

    await house.submit()
    house.store.events = held  # type: ignore[method-assign]
    async with asyncio.timeout(2):
        assert len(await anext(house.feed.follow(Cursor()))) == 1


# --- upkeep


async def test_nothing_expires_for_one_lease_after_the_start_and_each_outage(
    house: House,
) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    await worker.hears(Assign)
    await house.settled()
    await house.caretaker.expire()  # a new process is calm
    house.clock.move(LEASE_S + 1)
    house.queue.away = True
    with pytest.raises(DependencyDown):
        await house.caretaker.expire()
    house.queue.away = False
    await house.caretaker.expire()
    assert house.store.rows[job.id].state is JobState.RUNNING
    house.clock.move(LEASE_S + 1)
    await house.caretaker.expire()
    assert house.store.rows[job.id].state is JobState.QUEUED


async def test_workers_that_the_database_kept_away_after_the_start_keep_their_leases(
    house: House,
) -> None:
    (job,) = await house.submit()
    await (await house.worker()).hears(Assign)
    await house.settled()
    house.clock.move(LEASE_S - 1)
    house.store.away = True  # nobody is welcomed meanwhile
    with pytest.raises(DependencyDown):
        await house.caretaker.expire()
    house.store.away = False
    house.clock.move(2)
    await house.caretaker.expire()
    assert house.store.rows[job.id].state is JobState.RUNNING


async def test_more_expired_leases_than_one_batch(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_BATCH", 2)
    monkeypatch.setattr(reconcile_module, "_PAGE", 2)
    jobs = await house.submit(*[new_job_id() for _ in range(5)])
    worker = await house.worker(slots=5)
    assigned = [await worker.hears(Assign) for _ in jobs]
    house.workers.progress(worker.session, assigned[0].claim.attempt_id, 4)
    await house.settled()
    await house.store.cancel(ALICE, Selection(frozenset([jobs[0].id])))
    house.clock.move(2 * LEASE_S)
    await house.caretaker.expire()
    states = [house.store.rows[job.id].state for job in jobs]
    assert states == [JobState.CANCELLED] + [JobState.QUEUED] * 4
    assert house.store.rows[jobs[0].id].steps_done == 4
    assert (await worker.hears(Stop)).attempt_id == assigned[0].claim.attempt_id


async def test_overdue_jobs_fail_and_others_do_not(house: House) -> None:
    (job,) = await house.submit()
    await house.caretaker.fail_overdue()
    house.clock.move(601)
    house.store.rows[job.id] = replace(job, start_by=house.clock.now())
    await house.caretaker.fail_overdue()
    assert house.store.rows[job.id].state is JobState.FAILED
    assert (await house.queue.depth()).waiting == 0


async def test_the_queue_is_made_to_agree_with_the_database(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile_module, "_PAGE", 2)
    jobs = await house.submit(*[new_job_id() for _ in range(5)], running=1)
    worker = await house.worker()
    running = await worker.hears(Assign)
    await house.settled()
    house.queue.forget()
    await house.reconciler.reconcile()
    depth = await house.queue.depth()
    assert (depth.waiting, depth.running) == (4, 1)
    await house.store.cancel(ALICE, Selection(frozenset([jobs[4].id])))
    await house.reconciler.reconcile()
    assert (await house.queue.depth()).waiting == 3
    assert ("repaired removed", 1) in house.seen.seen
    await house.reconciler.reconcile()
    assert running.job.id == jobs[0].id


async def test_a_job_submitted_during_the_comparison_is_not_forgotten(house: House) -> None:
    (job,) = await house.submit()
    open_jobs = house.store.open_jobs

    async def blind(*_: object, **__: object) -> Any:  # noqa: ANN401 (as the store)
        return []

    house.store.open_jobs = blind  # type: ignore[method-assign]
    await house.reconciler.reconcile()
    house.store.open_jobs = open_jobs  # type: ignore[method-assign]
    assert (await house.jobs.get(ALICE, job.id)).position == 1


async def test_an_attempt_that_nobody_came_back_for_is_forgotten_uncounted(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    house.queue.forget()
    await house.reconciler.reconcile()
    house.clock.move(2 * LEASE_S)
    await house.caretaker.expire()
    attempt = house.store.tries[assigned.claim.attempt_id]
    assert (attempt.outcome, attempt.counted) == (Outcome.FORGOTTEN, False)
    assert house.store.rows[job.id].state is JobState.QUEUED


# --- the clockwork


async def test_a_pass_that_fails_is_told_and_tried_again(house: House) -> None:
    passes = 0

    async def work() -> None:
        nonlocal passes
        passes += 1
        raise DependencyDown("away")

    house.spawn("every", every(0.001, "thing", work, house.seen))
    await house.until(lambda: passes >= 2)
    assert "trouble thing" in house.seen.names()


async def test_the_loops_do_their_work(house: House) -> None:
    (job,) = await house.submit()
    house.queue.forget()
    house.clock.move(601)
    house.store.rows[job.id] = replace(job, start_by=house.clock.now())
    house.spawn(
        "reconcile",
        reconcile(house.reconciler, house.seen, every_s=0.001, soon=house.reconcile_soon),
    )
    house.spawn("leases", watch_leases(house.caretaker, house.seen, every_s=0.001))
    house.spawn(
        "prune", prune(house.store, house.store, house.seen, events_kept_s=100, jobs_kept_s=200)
    )
    await house.until(lambda: house.store.rows[job.id].state is JobState.FAILED)
    await house.until(lambda: len(house.store.told) == 1)


async def test_a_report_for_a_job_that_is_gone_frees_its_slot(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    del house.store.rows[job.id]
    house.workers.report(
        worker.session, Ended(assigned.claim.attempt_id, Outcome.SUCCEEDED, steps_done=1)
    )
    assert not (await worker.hears(Acknowledged)).accepted
    await house.settled()
    assert (await house.queue.depth()).running == 0
