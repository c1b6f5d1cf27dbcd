"""The scheduler's queue as its ports see it: in memory and in Redis, the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from redis.asyncio import Redis

from easel_kit.errors import Conflict, DependencyDown, NotFound
from easel_kit.ids import JobId, ModelKey, UserId, WorkerId, new_attempt_id
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, Depth, End, Progress
from scheduler.domain.policy import Share
from scheduler.domain.worker import Model, ModelDefaults, Worker
from scheduler.ports import Leases, Line, Registry, Upkeep
from scheduler.storage.leases import RedisLeases
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import Scripts
from tests.fakes.scheduler import open_lane
from tests.fakes.scheduler_jobs import MovableClock
from tests.fakes.scheduler_queue import PARKING, MemoryQueue

ALICE, BOB = UserId("alice"), UserId("bob")
M = ModelKey("m")
W = WorkerId("w")
SHARE = Share(version=1, priority=0, weight=1, max_running=2)
LEASE_S = 0.6
_places = count(1)


def admission(
    user: UserId = ALICE,
    *,
    model: ModelKey = M,
    share: Share = SHARE,
    attempts: int = 0,
    queue_time_s: float = 60,
) -> Admission:
    place = next(_places)
    return Admission(
        job_id=JobId(f"job_{place}"),
        user_id=user,
        model_key=model,
        cost_ms=100,
        place=place,
        attempts=attempts,
        start_by=datetime.now(UTC) + timedelta(seconds=queue_time_s),
        share=share,
    )


def held(one: Admission, worker: WorkerId = W, number: int = 1) -> Admission:
    """The same job with an attempt of it that runs."""
    at = datetime.now(UTC).replace(microsecond=0)
    claim = Claim(new_attempt_id(), one.job_id, one.user_id, worker, number, at)
    return replace(one, attempts=number, claim=claim)


def worker(name: WorkerId = W, session: str = "s", *, slots: int = 4) -> Worker:
    defaults = ModelDefaults(10, 2.5, 64, 64, "ddim")
    model = Model(
        key=M,
        name="M",
        base="sd-1",
        type="main",
        description="",
        licence="",
        defaults=defaults,
        sizes_px=((64, 64),),
        max_steps=50,
        max_prompt_tokens=77,
        samplers=("ddim",),
        loaded=True,
        unavailable_reason="",
    )
    return Worker(name, session, "127.0.0.1:1", "cpu", slots, (model,))


@dataclass
class Queue:
    """The ports, and how to make leases run out."""

    line: Line
    leases: Leases
    upkeep: Upkeep
    registry: Registry
    clock: MovableClock | None

    async def wait(self, seconds: float) -> None:
        """Lets time pass."""
        if self.clock is None:
            await asyncio.sleep(seconds)
        else:
            self.clock.move(seconds)

    async def claim(self, count: int = 1, *models: ModelKey, name: WorkerId = W) -> list[Claim]:
        return await self.leases.claim(name, "s", models or (M,), count)

    async def claimed(self, count: int = 1) -> list[JobId]:
        return [claim.job_id for claim in await self.claim(count)]


@pytest.fixture(params=["memory", "redis"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[Queue]:
    if request.param == "memory":
        clock = MovableClock()
        clock.move((datetime.now(UTC) - clock.now()).total_seconds())
        memory = MemoryQueue(clock, lease_ttl_s=LEASE_S)
        yield Queue(memory, memory, memory, memory, clock)
        return
    async with Redis.from_url(request.getfixturevalue("redis_url")) as redis:
        scripts = Scripts(redis, "default")
        await open_lane(redis, scripts)
        line = RedisLine(redis, scripts, lease_ttl_s=LEASE_S)
        leases = RedisLeases(redis, scripts, lease_ttl_s=LEASE_S, parking=PARKING)
        yield Queue(line, leases, line, leases, None)


async def test_jobs_of_a_user_come_in_order_within_the_limit(queue: Queue) -> None:
    jobs = [admission() for _ in range(3)]
    assert await queue.line.admit(list(reversed(jobs))) == 3
    assert await queue.line.admit(jobs) == 0
    await queue.leases.join(worker())
    first, second = await queue.claim(5)
    assert [first.job_id, second.job_id] == [jobs[0].job_id, jobs[1].job_id]
    assert (first.number, first.user_id, first.worker_id) == (1, ALICE, W)
    assert await queue.claimed() == []
    await queue.line.end([End(first.job_id, first.attempt_id)])
    assert await queue.claimed() == [jobs[2].job_id]


@pytest.mark.parametrize("count", [3, 250])
async def test_jobs_enter_and_are_told_their_places_at_once(queue: Queue, count: int) -> None:
    jobs = [admission() for _ in range(count)]
    ids = [job.job_id for job in jobs]
    known = admission(BOB)
    await queue.line.admit([known])
    places = await queue.line.enter(jobs, [*ids, known.job_id, JobId("job_unknown")])
    assert places == await queue.line.live([*ids, known.job_id])
    assert len(places) == count + 1
    assert await queue.line.enter([], []) == {}


async def test_a_job_is_foreseen_without_a_trace(queue: Queue) -> None:
    first = await queue.line.foresee(ALICE, SHARE, 100)
    assert (first.position, first.eta_s) == (1, None)
    await queue.line.admit([admission(), admission()])
    for user, share in ((ALICE, SHARE), (ALICE, replace(SHARE, version=0, priority=7))):
        assert (await queue.line.foresee(user, share, 100)).position == 3
    assert (await queue.line.foresee(BOB, SHARE, 100)).position in {2, 3}
    assert await queue.upkeep.depth() == Depth(2, 0, 0, 0)


async def test_scripts_that_redis_forgot_are_loaded_again(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        scripts = Scripts(redis, "default")
        await open_lane(redis, scripts)
        line = RedisLine(redis, scripts, lease_ttl_s=LEASE_S)
        await redis.script_flush()
        job = admission()
        assert list(await line.enter([job], [job.job_id])) == [job.job_id]
        await redis.flushall()
        with pytest.raises(DependencyDown):
            await line.enter([job], [job.job_id])


async def test_a_worker_is_offered_only_what_it_can_draw(queue: Queue) -> None:
    other = admission(model=ModelKey("other"))
    mine = admission()
    await queue.line.admit([other, mine])
    await queue.leases.join(worker())
    assert await queue.claimed(5) == [mine.job_id]
    (claim,) = await queue.claim(1, M, ModelKey("other"))
    assert claim.job_id == other.job_id


async def test_a_requeued_job_keeps_its_place_and_counts_its_attempts(queue: Queue) -> None:
    jobs = [admission() for _ in range(3)]
    await queue.line.admit(jobs)
    await queue.leases.join(worker())
    (claim,) = await queue.claim()
    assert await queue.line.requeue(claim, stop=False)
    assert not await queue.line.requeue(claim, stop=True)
    (again,) = await queue.claim()
    assert (again.job_id, again.number) == (jobs[0].job_id, 2)
    assert again.attempt_id != claim.attempt_id
    assert not await queue.line.requeue(claim, stop=False)
    assert await queue.leases.renew(W, "s", [claim.attempt_id, again.attempt_id]) == {
        again.attempt_id
    }


async def test_a_job_moved_to_the_front_comes_first_also_after_a_requeue(queue: Queue) -> None:
    jobs = [admission() for _ in range(4)]
    await queue.line.admit(jobs)
    await queue.leases.join(worker())
    (running,) = await queue.claim()
    orders = {jobs[3].job_id: -2, jobs[2].job_id: -1, jobs[0].job_id: -3, JobId("unknown"): -9}
    await queue.line.prepend(orders)
    live = await queue.line.live([job.job_id for job in jobs[1:]])
    assert [live[job.job_id].position for job in jobs[1:]] == [3, 2, 1]
    assert await queue.line.requeue(running, stop=False)
    assert await queue.claimed(2) == [jobs[0].job_id, jobs[3].job_id]


async def test_a_job_is_admitted_at_the_front_when_it_says_so(queue: Queue) -> None:
    usual, urgent = admission(), replace(admission(), front=-1)
    await queue.line.admit([usual, urgent])
    await queue.leases.join(worker())
    assert await queue.claimed(2) == [urgent.job_id, usual.job_id]


async def test_newer_entitlements_hold_at_once_and_older_ones_never(queue: Queue) -> None:
    alices, bobs = [admission() for _ in range(3)], [admission(BOB) for _ in range(3)]
    await queue.line.admit(alices + bobs)
    await queue.leases.join(worker())
    await queue.line.entitle(BOB, Share(version=3, priority=100, weight=16, max_running=1))
    await queue.line.entitle(BOB, Share(version=2, priority=0, weight=1, max_running=9))
    first, second = await queue.claimed(2)
    assert (first, second) == (bobs[0].job_id, alices[0].job_id)
    await queue.line.entitle(BOB, Share(version=3, priority=100, weight=16, max_running=2))
    assert await queue.claimed() == [bobs[1].job_id]


async def test_entitlements_of_an_unknown_user_are_remembered(queue: Queue) -> None:
    await queue.line.entitle(ALICE, Share(version=2, priority=0, weight=1, max_running=1))
    await queue.line.admit([admission(), admission()])  # with an older plan
    await queue.leases.join(worker())
    assert len(await queue.claimed(2)) == 1


async def test_a_user_is_forgotten_once_no_job_of_theirs_is_here(queue: Queue) -> None:
    newer = Share(version=2, priority=0, weight=1, max_running=1)
    one, two = (admission(share=newer) for _ in range(2))
    other = admission(BOB)
    await queue.line.admit([one, two, other])
    await queue.leases.join(worker())
    (claim,) = [claim for claim in await queue.claim(2) if claim.user_id == ALICE]
    assert set(await queue.line.forget_user(ALICE)) == {one.job_id, two.job_id}
    await queue.line.remove([two.job_id])
    assert await queue.line.forget_user(ALICE) == [one.job_id]
    soon = datetime.now(UTC) + timedelta(seconds=60)
    await queue.line.requeue(claim, stop=False, not_before=soon)
    assert await queue.line.forget_user(ALICE) == [one.job_id], "also one that waits for a pause"
    await queue.line.remove([one.job_id])

    for _ in range(2):
        assert await queue.line.forget_user(ALICE) == []
    assert await queue.line.forget_user(UserId("stranger")) == []
    assert await queue.line.forget_user(BOB) == [other.job_id]
    await queue.line.admit([admission() for _ in range(2)])  # with an older plan
    assert len(await queue.claimed(2)) == 2


async def test_a_loaded_model_is_preferred_within_the_lead(queue: Queue) -> None:
    other = ModelKey("other")
    turns = [admission(model=other)] + [admission(UserId(f"user-{n}")) for n in range(4)]
    await queue.line.admit(turns)
    await queue.leases.join(worker(slots=9))
    found = await queue.leases.claim(W, "s", (M, other), 5, loaded=(M,))
    order = [turns.index(one) for claim in found for one in turns if one.job_id == claim.job_id]
    assert order == [1, 2, 0, 3, 4]  # two jobs of equal cost may pass the first


async def test_a_job_that_ended_does_not_come_back(queue: Queue) -> None:
    job = admission()
    await queue.line.remove([job.job_id])
    assert await queue.line.admit([job]) == 0
    await queue.leases.join(worker())
    assert await queue.claimed() == []
    assert not await queue.leases.adopt("s", held(job))
    assert await queue.line.live([job.job_id]) == {}


async def test_stopping_says_whether_someone_runs_it(queue: Queue) -> None:
    job = admission()
    await queue.line.admit([job])
    assert not await queue.line.stop(job.job_id)
    await queue.leases.join(worker())
    await queue.claim()
    assert await queue.line.stop(job.job_id)


async def test_a_lease_runs_out_unless_it_is_renewed(queue: Queue) -> None:
    await queue.line.admit([admission(), admission()])
    await queue.leases.join(worker())
    first, second = await queue.claim(2)
    await queue.wait(LEASE_S * 0.75)
    renewed = await queue.leases.renew(W, "s", [first.attempt_id])
    assert renewed == {first.attempt_id}
    await queue.wait(LEASE_S * 0.5)
    found = await queue.upkeep.expired(limit=5)
    assert [(claim.attempt_id, restored) for claim, restored in found] == [
        (second.attempt_id, False)
    ]
    await queue.wait(LEASE_S)
    assert len(await queue.upkeep.expired(limit=1)) == 1
    assert len(await queue.upkeep.expired(limit=5)) == 2


async def test_strangers_and_older_streams_are_refused(queue: Queue) -> None:
    with pytest.raises(NotFound):
        await queue.claim()
    with pytest.raises(NotFound):
        await queue.leases.renew(W, "s", [])
    with pytest.raises(NotFound):
        await queue.leases.update(worker())
    await queue.leases.join(worker(session="old"))
    await queue.leases.join(worker())
    with pytest.raises(Conflict):
        await queue.leases.claim(W, "old", (M,), 1)
    with pytest.raises(Conflict):
        await queue.leases.renew(W, "old", [])
    with pytest.raises(Conflict):
        await queue.leases.update(worker(session="old"))
    assert await queue.leases.leave(W, "old") == []
    assert len(await queue.registry.workers()) == 1


async def test_a_worker_that_joins_again_hears_what_it_holds(queue: Queue) -> None:
    await queue.line.admit([admission()])
    await queue.leases.join(worker())
    claims = await queue.claim()
    assert await queue.leases.join(worker(session="new")) == claims
    assert await queue.leases.leave(W, "new") == claims
    assert await queue.leases.leave(W, "new") == claims  # until they are dealt with
    assert await queue.registry.workers() == []


async def test_the_registry_shows_what_workers_say(queue: Queue) -> None:
    before = await queue.registry.catalogue_version()
    await queue.leases.join(worker(WorkerId("b")))
    await queue.leases.join(worker())
    changed = replace(worker(), draining=True, models=())
    await queue.leases.update(changed)
    await queue.line.admit([admission()])
    await queue.claim(1, name=WorkerId("b"))
    found = await queue.registry.workers()
    assert [(one.worker, one.running) for one in found] == [
        (worker(WorkerId("b")), 1),
        (changed, 0),
    ]
    after = await queue.registry.catalogue_version()
    assert before != after
    assert await queue.upkeep.depth() == Depth(waiting=0, running=1, workers=2, slots=8)


async def test_a_lost_queue_takes_up_attempts_from_their_workers(queue: Queue) -> None:
    job = held(admission())
    await queue.leases.join(worker())
    assert await queue.leases.adopt("s", job)
    assert job.claim is not None
    assert await queue.leases.renew(W, "s", [job.claim.attempt_id]) == {job.claim.attempt_id}
    assert await queue.leases.adopt("s", job)
    assert not await queue.leases.adopt("another stream", job)
    assert await queue.claimed() == []
    await queue.line.requeue(job.claim, stop=False)
    (again,) = await queue.claim()
    assert again.number == 2
    assert not await queue.leases.adopt("s", job)  # superseded


async def test_a_waiting_job_is_taken_up_by_the_worker_that_still_has_it(queue: Queue) -> None:
    job = admission()
    await queue.line.admit([job])
    await queue.leases.join(worker())
    (claim,) = await queue.claim()
    await queue.line.requeue(claim, stop=False)
    assert await queue.leases.adopt("s", replace(job, attempts=1, claim=claim))
    assert await queue.claimed() == []


async def test_taking_up_never_passes_the_limit(queue: Queue) -> None:
    one = replace(SHARE, max_running=1)
    waiting, lost = admission(share=one), held(admission(share=one))
    await queue.line.admit([waiting])
    await queue.leases.join(worker())
    assert await queue.claimed() == [waiting.job_id]
    assert not await queue.leases.adopt("s", lost)


async def test_a_restored_lease_is_known_as_such_until_its_worker_speaks(queue: Queue) -> None:
    one, two = held(admission()), held(admission())
    assert await queue.line.admit([one, two]) == 2
    await queue.leases.join(worker())
    assert one.claim is not None
    await queue.leases.renew(W, "s", [one.claim.attempt_id])
    await queue.wait(LEASE_S * 1.5)
    found = {claim.job_id: restored for claim, restored in await queue.upkeep.expired(limit=9)}
    assert found == {one.job_id: False, two.job_id: True}


async def test_waits_that_took_too_long_are_listed(queue: Queue) -> None:
    late, again = admission(queue_time_s=-1), admission(queue_time_s=-1, attempts=1)
    await queue.line.admit([late, again, admission()])
    assert await queue.upkeep.overdue(limit=9) == [late.job_id]
    await queue.leases.join(worker())
    await queue.claim()
    assert await queue.upkeep.overdue(limit=9) == []


async def test_what_is_known_is_listed_by_place(queue: Queue) -> None:
    jobs = [admission(user) for user in (ALICE, BOB, ALICE)]
    await queue.line.admit(jobs)
    places = [(one.place, one.job_id) for one in jobs]
    assert await queue.upkeep.known(after=0, limit=2) == places[:2]
    assert await queue.upkeep.known(after=places[1][0], limit=2) == places[2:]


async def test_where_jobs_stand(queue: Queue) -> None:
    first, second = admission(), admission()
    await queue.line.admit([first, second])
    await queue.leases.join(worker())
    (claim,) = await queue.claim()
    at = datetime.now(UTC).replace(microsecond=0)
    await queue.leases.show([Progress(first.job_id, 4, 10, at, b"png", "image/png")])
    live = await queue.line.live([first.job_id, second.job_id, JobId("job_unknown")])
    assert set(live) == {first.job_id, second.job_id}
    running, waiting = live[first.job_id], live[second.job_id]
    assert (running.running, running.attempts, running.step) == (True, 1, 4)
    assert running.first_step_at == at
    assert running.position == 0
    assert (waiting.running, waiting.position, waiting.eta_s) == (False, 1, None)
    await queue.line.end([End(first.job_id, claim.attempt_id, 400)])
    (waiting,) = (await queue.line.live([second.job_id])).values()
    assert waiting.eta_s == pytest.approx(0.4)


async def test_a_worker_that_is_told_to_drain_shows_it_until_it_leaves(queue: Queue) -> None:
    with pytest.raises(NotFound):
        await queue.registry.drain(W)
    await queue.leases.join(worker())
    await queue.registry.drain(W)
    await queue.leases.join(worker(session="next"))
    await queue.upkeep.remind()
    assert [one.worker.draining for one in await queue.registry.workers()] == [True]
    await queue.leases.update(replace(worker(session="next"), draining=True))
    assert [one.worker.draining for one in await queue.registry.workers()] == [True]
    await queue.leases.leave(W, "next")
    await queue.leases.join(worker())
    assert [one.worker.draining for one in await queue.registry.workers()] == [False]


async def test_a_pause_keeps_a_job_out_of_the_line_and_its_place_in_it(queue: Queue) -> None:
    jobs = [admission() for _ in range(2)]
    await queue.line.admit(jobs)
    await queue.leases.join(worker())
    (claim,) = await queue.claim()
    await queue.line.end([End(jobs[1].job_id, took_ms=100)])  # measures the pace
    later = admission()
    await queue.line.admit([later])
    end = datetime.now(UTC) + timedelta(seconds=0.4)
    assert await queue.line.requeue(claim, stop=False, not_before=end)
    live = await queue.line.live([jobs[0].job_id, later.job_id])
    assert [(one.running, one.position) for one in live.values()] == [(False, 1), (False, 1)]
    etas = [one.eta_s or 0 for one in live.values()]
    assert etas[0] > etas[1]
    assert (await queue.upkeep.depth()).waiting == 2
    assert await queue.claimed() == [later.job_id]
    assert await queue.upkeep.release(limit=9) == 0
    await queue.wait(0.5)
    assert await queue.claimed(2) == [jobs[0].job_id]


async def test_the_end_of_a_pause_is_told(queue: Queue) -> None:
    await queue.leases.join(worker())
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    jobs = [replace(admission(attempts=1), not_before=soon) for _ in range(3)]
    assert await queue.line.admit(jobs) == 3
    assert await queue.claimed() == []
    await queue.line.remove([jobs[0].job_id])
    await queue.wait(0.3)
    assert await queue.upkeep.release(limit=1) == 1
    assert await queue.upkeep.release(limit=9) == 1
    assert set(await queue.claimed(3)) == {jobs[1].job_id, jobs[2].job_id}


async def test_a_worker_that_comes_back_ends_the_pause(queue: Queue) -> None:
    job = admission()
    await queue.line.admit([job])
    await queue.leases.join(worker())
    (claim,) = await queue.claim()
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    await queue.line.requeue(claim, stop=False, not_before=soon)
    assert await queue.leases.adopt("s", replace(job, attempts=1, claim=claim))
    await queue.wait(0.3)
    assert await queue.upkeep.release(limit=9) == 0
    assert await queue.claimed() == []


async def test_a_paused_job_moves_with_its_user_to_another_tier(queue: Queue) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    paused = replace(admission(attempts=1), not_before=soon)
    better = Share(version=2, priority=10, weight=4, max_running=3)
    await queue.line.admit([paused, admission(BOB)])
    await queue.line.admit([admission(share=better)])
    await queue.leases.join(worker())
    await queue.wait(0.3)
    first, second = await queue.claim(2)
    assert (first.user_id, first.job_id) == (ALICE, paused.job_id)
    assert second.user_id in {ALICE, BOB}
