"""Workers' streams over ports in memory: above all when something does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from easel_kit.errors import Conflict, DependencyDown, Internal, Overloaded
from easel_kit.ids import AttemptId, WorkerId, new_attempt_id, new_job_id
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import JobState
from scheduler.domain.lease import Claim, Ended, Outcome, Report, Settled
from scheduler.domain.selection import Selection
from scheduler.domain.stream import Acknowledged, Assign, Drain, Stop, Welcome
from scheduler.service import session as session_module
from tests.fakes.scheduler_house import ALICE, LEASE_S, House, model


async def test_a_job_from_submit_to_success(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    welcome = await worker.hears(Welcome)
    assert (welcome.heartbeat_s, welcome.lease_ttl_s, welcome.kept) == (5, LEASE_S, ())
    assigned = await worker.hears(Assign)
    assert assigned.job.id == job.id
    worker.reports(assigned)
    assert (await worker.hears(Acknowledged)).accepted
    assert (await house.jobs.get(ALICE, job.id)).state is JobState.SUCCEEDED
    assert house.store.open_count(ALICE) == 0
    assert house.seen.names() == ["queued", "worker_joined", "claimed", "settled"]


async def test_a_claim_waits_for_a_queue_that_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.assign._PAUSE", Backoff(0, 0))
    worker = await house.worker()
    await worker.hears(Welcome)
    house.queue.away = True
    worker.session.offer(1)
    await house.until(lambda: "trouble claim" in house.seen.names())
    house.queue.away = False
    await house.submit()
    await worker.hears(Assign)


async def test_a_claim_that_cannot_be_read_goes_back_uncounted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.assign._PAUSE", Backoff(0, 0))
    worker = await house.worker(offer=False)
    (job,) = await house.submit()
    house.fresh.take([job.id])  # another replica has accepted it
    house.store.away = True
    worker.session.offer(1)
    await house.until(lambda: "trouble claim" in house.seen.names())
    house.store.away = False
    assert (await worker.hears(Assign)).job.id == job.id
    await house.settled()
    assert len(house.store.tries) == 1


async def test_a_job_accepted_here_is_sent_without_another_look(house: House) -> None:
    worker = await house.worker(offer=False)
    await worker.hears(Welcome)
    first, second = await house.submit(new_job_id(), new_job_id())
    house.store.away = True
    worker.session.offer(1)
    assert (await worker.hears(Assign)).job.id == first.id
    house.store.away = False
    await house.operations.cancel(ALICE, second.id)
    worker.session.offer(1)
    await worker.hears_nothing()


async def test_only_the_latest_accepted_jobs_are_kept_at_hand(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.fresh._MAX_JOBS", 2)
    jobs = await house.submit(*[new_job_id() for _ in range(3)])
    assert list(house.fresh.take([job.id for job in jobs])) == [job.id for job in jobs[1:]]
    assert house.fresh.take([job.id for job in jobs]) == {}


async def test_an_attempt_that_ends_at_once_is_written_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.recorder, "_linger_s", 0.01)
    recorded: list[Claim] = []
    record = house.store.record

    async def watched(claims: Sequence[Claim], *, revive: bool = False) -> list[AttemptId]:
        recorded.extend(claims)
        return await record(claims, revive=revive)

    monkeypatch.setattr(house.store, "record", watched)
    await house.submit(new_job_id(), new_job_id())
    worker = await house.worker(slots=2)
    quick, slow = [await worker.hears(Assign) for _ in range(2)]
    worker.reports(quick)
    assert (await worker.hears(Acknowledged)).accepted
    await house.until(lambda: recorded)
    assert recorded == [slow.claim]
    assert set(house.store.tries) == {quick.claim.attempt_id, slow.claim.attempt_id}


async def test_reports_that_wait_together_are_settled_together(house: House) -> None:
    jobs = await house.submit(*[new_job_id() for _ in range(3)])
    worker = await house.worker(slots=3)
    assigned = [await worker.hears(Assign) for _ in jobs]
    decided: list[int] = []
    settle = house.store.settle

    async def counted(reports: Sequence[Report]) -> list[Settled]:
        decided.append(len(reports))
        return await settle(reports)

    house.store.settle = counted  # type: ignore[method-assign]
    for job in assigned:
        worker.reports(job)
    worker.session.hang_up()
    heard = [await worker.hears(Acknowledged) for _ in jobs]
    assert [one.attempt_id for one in heard] == [job.claim.attempt_id for job in assigned]
    assert decided == [3]
    await house.until(lambda: worker.session.closed)
    assert [house.store.rows[job.id].state for job in jobs] == [JobState.SUCCEEDED] * 3


async def test_a_stream_that_ends_during_its_claim_gives_it_back(house: House) -> None:
    await house.submit()
    leaving = await house.worker("w", offer=False)
    claim, claimed = house.queue.claim, asyncio.Event()

    async def slow(*arguments: object, **named: object) -> object:
        found = await claim(*arguments, **named)  # type: ignore[arg-type]
        claimed.set()
        leaving.session.close()
        return found

    house.queue.claim = slow  # type: ignore[assignment, method-assign]
    leaving.session.offer(1)
    await claimed.wait()
    house.queue.claim = claim  # type: ignore[method-assign]
    other = await house.worker("other")
    assert (await other.hears(Assign)).claim.number == 2
    await house.settled()
    assert [one.counted for one in house.store.tries.values()] == [False]


async def test_a_job_that_ended_before_its_claim_is_not_sent(house: House) -> None:
    gone, next_job = await house.submit(new_job_id(), new_job_id())
    house.queue.away = True
    await house.operations.cancel(ALICE, gone.id)  # the queue does not hear of it
    house.queue.away = False
    worker = await house.worker()
    worker.session.woken.set()
    assert (await worker.hears(Assign)).job.id == next_job.id


async def test_a_cancel_between_claim_and_record_stops_the_worker(house: House) -> None:
    (job,) = await house.submit()
    house.store.away = False
    worker = await house.worker(offer=False)
    record, hold = house.store.record, asyncio.Event()

    async def slow(*arguments: object, **more: object) -> object:
        await hold.wait()
        return await record(*arguments, **more)  # type: ignore[arg-type]

    house.store.record = slow  # type: ignore[assignment, method-assign]
    worker.session.offer(1)
    assigned = await worker.hears(Assign)
    ended = await house.operations.cancel(ALICE, job.id)
    assert ended.state is JobState.CANCELLED
    hold.set()
    assert (await worker.hears(Stop)).attempt_id == assigned.claim.attempt_id
    worker.reports(assigned, Outcome.STOPPED)
    assert not (await worker.hears(Acknowledged)).accepted


async def test_a_queue_that_forgot_its_workers_hears_of_them_again(house: House) -> None:
    (first,) = await house.submit()
    worker = await house.worker(slots=2)
    assigned = await worker.hears(Assign)
    await house.settled()
    house.queue.forget()
    worker.session.offer(1)  # its claim finds that the queue does not know it
    await house.settled()
    assert [one.running for one in await house.queue.workers()] == [1]
    (second,) = await house.submit()
    assert (await worker.hears(Assign)).job.id == second.id
    worker.reports(assigned)
    assert (await worker.hears(Acknowledged)).accepted
    assert house.store.rows[first.id].attempts == 1


async def test_a_heartbeat_takes_lost_leases_up_and_stops_what_was_superseded(
    house: House,
) -> None:
    await house.submit(new_job_id(), new_job_id())
    worker = await house.worker(slots=2)
    kept, lost = await worker.hears(Assign), await worker.hears(Assign)
    await house.settled()
    house.queue.forget()
    await house.queue.join(worker.session.worker)
    await house.store.cancel(ALICE, Selection(frozenset([lost.job.id])))
    await house.store.settle([Ended(lost.claim.attempt_id, Outcome.STOPPED).of(lost.claim, None)])
    await house.workers.heartbeat(worker.session)
    assert (await worker.hears(Stop)).attempt_id == lost.claim.attempt_id
    assert worker.session.runs(kept.claim.attempt_id)
    assert not worker.session.runs(lost.claim.attempt_id)
    await house.workers.heartbeat(worker.session)
    await worker.hears(Welcome)
    await worker.hears_nothing()  # told once


async def test_a_heartbeat_through_an_outage_is_no_error(house: House) -> None:
    worker = await house.worker()
    house.queue.away = True
    await house.workers.heartbeat(worker.session)
    assert "trouble heartbeat" in house.seen.names()
    house.queue.away = False
    await house.queue.join(replace(worker.session.worker, session="another"))
    await house.workers.heartbeat(worker.session)
    await worker.hears(Welcome)
    with pytest.raises(Conflict):
        await worker.hears(Assign)


async def test_rejoining_through_an_outage_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.assign._PAUSE", Backoff(0, 0))
    worker = await house.worker()
    house.queue.forget()
    join, failures = house.queue.join, iter([True])

    async def flaky(one: object) -> object:
        if next(failures, False):
            raise DependencyDown("away")
        return await join(one)  # type: ignore[arg-type]

    house.queue.join = flaky  # type: ignore[assignment, method-assign]
    await house.submit()
    worker.session.woken.set()
    await worker.hears(Assign)
    assert "trouble claim" in house.seen.names()


async def test_a_stream_whose_worker_went_elsewhere_ends(house: House) -> None:
    worker = await house.worker()
    await house.queue.join(replace(worker.session.worker, session="on another replica"))
    worker.session.offer(1)
    await worker.hears(Welcome)
    with pytest.raises(Conflict):
        await worker.hears(Assign)
    house.workers.ended(worker.session)
    house.workers.ended(worker.session)
    await house.until(lambda: "worker_left" in house.seen.names())
    assert len(await house.queue.workers()) == 1


async def test_a_report_waits_for_a_database_that_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.reports._RETRY_S", 0)
    await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    house.store.away = True
    worker.reports(assigned)
    await house.until(lambda: "trouble report" in house.seen.names())
    house.store.away = False
    assert (await worker.hears(Acknowledged)).accepted


async def test_a_report_of_a_stream_that_ended_is_left_to_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.reports._RETRY_S", 0)
    (job,) = await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    house.store.away = True
    worker.reports(assigned)
    worker.session.close()
    house.workers.ended(worker.session)
    await worker.session.finished.wait()
    house.store.away = False
    back = await house.worker(held=(assigned.claim.attempt_id,))
    assert (await back.hears(Welcome)).kept == (assigned.claim.attempt_id,)
    back.reports(assigned)
    assert (await back.hears(Acknowledged)).accepted
    assert house.store.rows[job.id].state is JobState.SUCCEEDED


async def test_reports_are_durable_while_the_queue_is_away(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    house.queue.away = True
    worker.reports(assigned)
    assert (await worker.hears(Acknowledged)).accepted
    await house.until(lambda: "trouble free" in house.seen.names())
    assert house.store.rows[job.id].state is JobState.SUCCEEDED
    house.queue.away = False
    await house.reconciler.reconcile()
    assert (await house.queue.depth()).running == 0


async def test_the_end_of_a_stream_in_an_outage_is_left_to_the_leases(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    await worker.hears(Assign)
    await house.settled()
    house.queue.away = True
    house.workers.ended(worker.session)
    await house.until(lambda: "trouble farewell" in house.seen.names())
    house.queue.away = False
    house.clock.move(2 * LEASE_S)
    await house.caretaker.expire()
    assert house.store.rows[job.id].state is JobState.QUEUED


async def test_a_stopping_process_takes_nothing_from_its_workers(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    await worker.hears(Welcome)
    await worker.hears(Assign)
    await house.settled()
    house.workers.shut()
    with pytest.raises(StopAsyncIteration):
        await worker.hears(Assign)
    house.workers.ended(worker.session)
    late = await house.worker("late")
    await late.hears(Welcome)
    with pytest.raises(StopAsyncIteration):
        await late.hears(Assign)
    await house.settled()
    assert house.store.rows[job.id].state is JobState.RUNNING


async def test_a_farewell_that_begins_before_the_stop_does_nothing_after_it(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    await worker.hears(Assign)
    await house.settled()
    house.workers.ended(worker.session)
    house.workers.shut()
    await asyncio.sleep(0.03)
    assert house.store.rows[job.id].state is JobState.RUNNING


async def test_progress_counts_only_of_what_the_worker_holds(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    attempt_id = assigned.claim.attempt_id
    house.workers.progress(worker.session, new_attempt_id(), 3)
    house.workers.progress(worker.session, attempt_id, 99, preview=b"x" * 11)
    await house.settled()
    found = await house.jobs.get(ALICE, job.id)
    assert (found.steps_done, found.first_step_at) == (10, house.clock.now())
    worker.reports(assigned)
    house.workers.progress(worker.session, attempt_id, 5)
    await worker.hears(Acknowledged)


async def test_progress_through_an_outage_is_lost_and_goes_on(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    attempt_id = (await worker.hears(Assign)).claim.attempt_id
    await house.settled()
    house.queue.away = True
    house.workers.progress(worker.session, attempt_id, 3)
    await house.until(lambda: "trouble progress" in house.seen.names())
    house.queue.away = False
    house.workers.progress(worker.session, attempt_id, 4)
    await house.settled()
    assert (await house.jobs.get(ALICE, job.id)).steps_done == 4


async def test_more_progress_than_one_batch_is_passed_on_whole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.progress._BATCH", 1)
    jobs = await house.submit(new_job_id(), new_job_id())
    worker = await house.worker(slots=2)
    for step in (1, 2):
        assigned = await worker.hears(Assign)
        house.workers.progress(worker.session, assigned.claim.attempt_id, step)
    await house.settled()
    assert [(await house.jobs.get(ALICE, job.id)).steps_done for job in jobs] == [1, 2]


async def test_claims_are_written_down_once_the_database_is_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.recorder._RETRY_S", 0)
    monkeypatch.setattr("scheduler.service.recorder._MAX_PENDING", 1)
    jobs = await house.submit(new_job_id(), new_job_id())
    worker = await house.worker(slots=2, offer=False)
    record = house.store.record

    async def down(*_: object, **__: object) -> object:
        raise DependencyDown("away")

    house.store.record = down  # type: ignore[assignment, method-assign]
    worker.session.offer(2)
    await worker.hears(Assign)
    beyond = await worker.hears(Assign)
    await house.until(lambda: "trouble record" in house.seen.names())
    house.store.record = record  # type: ignore[method-assign]
    await house.until(lambda: house.store.rows[jobs[0].id].state is JobState.RUNNING)
    assert house.store.rows[jobs[1].id].state is JobState.QUEUED  # written with its report
    worker.reports(beyond)
    assert (await worker.hears(Acknowledged)).accepted


async def test_a_worker_that_does_not_read_is_cut_off(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_MAX_UNREAD", 2)
    worker = await house.worker(offer=False)  # its welcome lies there unread
    for _ in range(3):
        worker.session.send(Stop(new_attempt_id()))
    assert worker.session.closed
    await worker.hears(Stop)
    with pytest.raises(Overloaded):
        await worker.hears(Assign)


async def test_too_many_reports_at_once_cut_the_stream_off(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_MAX_UNREAD", 2)
    worker = await house.worker(offer=False)
    for _ in range(4):
        house.workers.report(worker.session, Ended(new_attempt_id(), Outcome.STOPPED))
    assert worker.session.closed
    worker.session.hang_up()
    assert worker.session.room == 0


async def test_a_wake_up_goes_to_whoever_has_the_most_room_and_is_passed_on(
    house: House,
) -> None:
    small = await house.worker("small", slots=1)
    large = await house.worker("large", slots=3)
    await house.settled()
    await house.submit(*[new_job_id() for _ in range(4)])
    assert len({(await large.hears(Assign)).job.id for _ in range(3)}) == 3
    await small.hears(Assign)


async def test_a_worker_without_models_gets_nothing(house: House) -> None:
    worker = await house.worker()
    await worker.hears(Welcome)
    await house.workers.change(worker.session, models=(), draining=False)
    await house.submit()
    worker.session.woken.set()
    await worker.hears_nothing()
    await house.workers.change(worker.session, models=(model(),), draining=False)
    await worker.hears(Assign)


async def test_signals_for_others_are_not_ours(house: House) -> None:
    worker = await house.worker()
    await worker.hears(Welcome)
    house.workers.tell(WorkerId("elsewhere"), Stop(new_attempt_id()))
    house.workers.tell(WorkerId("w"), Stop(new_attempt_id()))
    house.queue.handler.on_connected()
    await worker.hears_nothing()


async def test_naming_only_unknown_attempts_keeps_none(house: House) -> None:
    worker = await house.worker(held=(new_attempt_id(),))
    assert (await worker.hears(Welcome)).kept == ()


async def test_a_job_that_ended_meanwhile_is_not_kept(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    await house.store.settle(
        [Ended(assigned.claim.attempt_id, Outcome.REFUSED).of(assigned.claim, None)]
    )
    back = await house.worker(held=(assigned.claim.attempt_id,))
    assert (await back.hears(Welcome)).kept == ()
    assert house.store.rows[job.id].state is JobState.FAILED


async def test_a_job_that_ends_while_it_is_taken_up_is_not_kept(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    await house.settled()
    record = house.store.record

    async def late(*arguments: object, **more: object) -> object:
        await house.store.settle(
            [Ended(assigned.claim.attempt_id, Outcome.REFUSED).of(assigned.claim, None)]
        )
        return await record(*arguments, **more)  # type: ignore[arg-type]

    house.store.record = late  # type: ignore[assignment, method-assign]
    back = await house.worker(held=(assigned.claim.attempt_id,))
    assert (await back.hears(Welcome)).kept == ()
    assert house.store.rows[job.id].state is JobState.FAILED


async def test_an_attempt_that_ends_while_its_lease_is_taken_up_is_not_held(house: House) -> None:
    await house.submit()
    worker = await house.worker()
    assigned = await worker.hears(Assign)
    attempt_id = assigned.claim.attempt_id
    await house.settled()
    house.queue.forget()
    await house.queue.join(worker.session.worker)
    record = house.store.record

    async def slow(*arguments: object, **more: object) -> object:
        house.store.record = record  # type: ignore[method-assign]
        found = await record(*arguments, **more)  # type: ignore[arg-type]
        worker.reports(assigned, Outcome.HANDED_BACK)
        await house.until(lambda: attempt_id not in worker.session.held)
        return found

    house.store.record = slow  # type: ignore[assignment, method-assign]
    await house.workers.heartbeat(worker.session)
    assert attempt_id not in worker.session.held  # or it would be renewed for ever


async def test_a_fault_of_ours_ends_that_stream_alone(house: House) -> None:
    await house.submit(new_job_id(), new_job_id())
    broken, other = await house.worker("broken"), await house.worker("other")
    assigned = await broken.hears(Assign)
    settle = house.store.settle

    async def fault(*_: object) -> object:
        raise ZeroDivisionError

    house.store.settle = fault  # type: ignore[assignment, method-assign]
    broken.reports(assigned)
    await broken.hears(Welcome)
    with pytest.raises(Internal):
        await broken.hears(Acknowledged)
    house.store.settle = settle  # type: ignore[method-assign]
    other.reports(await other.hears(Assign))
    assert (await other.hears(Acknowledged)).accepted
    assert house.forgive(ZeroDivisionError) == 1


async def test_an_attempt_that_another_worker_has_is_not_kept(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker("first")
    assigned = await worker.hears(Assign)
    await house.settled()
    await house.queue.requeue(assigned.claim, stop=False)
    other = await house.worker("other", offer=False)
    (claim,) = await house.queue.claim(
        other.session.worker.id, other.session.worker.session, other.session.models, 1
    )
    assert claim.job_id == job.id  # and the database has not heard of it yet
    back = await house.worker("first", held=(assigned.claim.attempt_id,), offer=False)
    assert (await back.hears(Welcome)).kept == ()


async def test_a_worker_is_told_to_drain_once_and_again_on_its_next_stream(house: House) -> None:
    worker = await house.worker()
    await worker.hears(Welcome)
    await house.jobs.drain(worker.session.worker.id)
    await worker.hears(Drain)
    await house.caretaker.remind()  # it has not said so yet, but has been told
    await house.submit()
    worker.session.offer(1)
    await worker.hears_nothing()
    back = await house.worker()
    await back.hears(Assign)  # a moment too early: the worker hands such work back
    await house.caretaker.remind()
    await back.hears(Drain)
    await house.workers.change(back.session, draining=True)
    (status,) = await house.jobs.workers()
    assert status.worker.draining


async def test_an_attempt_that_was_never_sent_counts_for_nothing(house: House) -> None:
    (job,) = await house.submit()
    worker = await house.worker()
    await house.until(lambda: worker.session.held)  # the worker reads nothing
    house.workers.ended(worker.session)
    other = await house.worker("other")
    again = await other.hears(Assign)
    assert (again.job.id, again.claim.number) == (job.id, 2)
    await house.until(lambda: "worker_left" in house.seen.names())
    await house.settled()
    outcomes = [(one.outcome, one.counted) for one in house.store.tries.values()]
    assert outcomes == [(Outcome.UNDELIVERED, False), (None, False)]


async def test_a_stream_that_takes_over_finds_what_was_never_sent(house: House) -> None:
    await house.submit()
    worker = await house.worker()
    await house.until(lambda: worker.session.held)
    back = await house.worker()
    again = await back.hears(Assign)
    assert again.claim.number == 2
    await house.settled()
    assert [one.counted for one in house.store.tries.values()] == [False, False]


@pytest.mark.parametrize(
    ("returning", "fate"), [(True, (Outcome.UNDELIVERED, False)), (False, (Outcome.LOST, True))]
)
async def test_what_a_dead_replica_lent_counts_if_its_worker_died_too(
    house: House, *, returning: bool, fate: tuple[Outcome, bool]
) -> None:
    (job,) = await house.submit()
    worker = await house.worker(offer=False)
    session = worker.session
    (lent,) = await house.queue.claim(session.worker.id, session.worker.session, session.models, 1)
    back = await house.worker(returning=returning)  # nobody has sent it that attempt
    assert (await back.hears(Welcome)).kept == ()
    assert (await back.hears(Assign)).claim.number == 2
    await house.settled()
    found = house.store.tries[lent.attempt_id]
    assert (lent.job_id, found.outcome, found.counted) == (job.id, *fate)


async def test_a_worker_that_cannot_go_on_rests_and_is_then_on_trial(house: House) -> None:
    await house.worker("healthy", offer=False)
    worker = await house.worker("sick", slots=2)
    await house.submit(*[new_job_id() for _ in range(4)])
    first, second = await worker.hears(Assign), await worker.hears(Assign)
    worker.reports(first, Outcome.UNFIT)
    await worker.hears(Acknowledged)
    worker.session.offer(2)
    assert worker.session.room == 0
    worker.reports(second, Outcome.UNFIT)  # of before its rest: one rest for both
    await worker.hears(Acknowledged)
    trial = await worker.hears(Assign)
    assert (worker.session.unfit, worker.session.room) == (1, 0)
    worker.session.offer(1)
    worker.reports(trial)
    assert (await worker.hears(Acknowledged)).accepted
    worker.session.offer(2)
    await worker.hears(Assign)
    await worker.hears(Assign)
    assert house.seen.names().count("worker_rests") == 1


async def test_the_rests_of_the_only_hope_do_not_grow(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.fitness.random.random", lambda: 1.0)
    await house.submit(*[new_job_id() for _ in range(4)])
    worker = await house.worker("sick")

    async def fails() -> float:
        worker.reports(await worker.hears(Assign), Outcome.UNFIT)
        await worker.hears(Acknowledged)
        worker.session.offer(1)
        rests = [told for name, told in house.seen.seen if name == "worker_rests"]
        assert isinstance(rests[-1], tuple)
        return float(rests[-1][1])

    assert [await fails(), await fails()] == [0.01, 0.01]
    await house.worker("healthy", offer=False)
    assert await fails() == 0.04

    async def away() -> object:
        raise DependencyDown("away")

    house.queue.workers = away  # type: ignore[assignment, method-assign]
    assert await fails() == 0.04
    assert "trouble fitness" in house.seen.names()
