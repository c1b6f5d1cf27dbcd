"""Who is set aside and who goes on: the Lua in Redis and the plain-Python rules decide alike."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from easel_kit.ids import AttemptId, JobId, ModelKey, UserId, WorkerId
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, End
from scheduler.domain.parking import Parking, Seat, Seats, SeatState
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.worker import Worker
from scheduler.storage.leases import RedisLeases
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import Scripts
from tests.fakes.scheduler import open_lane
from tests.fakes.scheduler_house import model

A, B = ModelKey("a"), ModelKey("b")
# user: priority, weight
USERS = [(0, 1), (0, 1), (10, 4), (100, 16), (7, 3)]
# models, slots, whether it can park
WORKERS = [((A, B), 2, True), ((A,), 1, True), ((A, B), 1, False), ((A, B), 1, True)]
PARKING = Parking(max_s=60, max_times=2)

any_number = st.integers(0, 1000)
submits = st.tuples(
    st.just("submit"),
    st.integers(0, len(USERS) - 1),
    st.sampled_from([A, B]),
    st.integers(1, 500),
)
claims = st.tuples(st.just("claim"), st.integers(0, len(WORKERS) - 1), st.integers(1, 2))
answers = st.tuples(st.just("answer"), any_number, st.integers(0, 7))
ends = st.tuples(st.sampled_from(["finish", "requeue", "cancel", "overdue"]), any_number)
breaks = st.tuples(st.just("reconnect"), st.integers(0, len(WORKERS) - 1))
operations = st.lists(
    st.one_of(submits, submits, claims, claims, claims, answers, answers, ends, breaks),
    min_size=30,
    max_size=80,
)


def worker(index: int) -> Worker:
    keys, slots, can_park = WORKERS[index]
    models = tuple(model(key) for key in keys)
    return Worker(name(index), "s", "", "cpu", slots, models, can_park=can_park)


def name(index: int) -> WorkerId:
    return WorkerId(f"w{index}")


@dataclass
class Both:
    """The queue in Redis and the rules, driven alike."""

    redis: Redis
    line: RedisLine
    leases: RedisLeases
    queue: FairQueue = field(default_factory=FairQueue)
    places: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    held: dict[AttemptId, Claim] = field(default_factory=dict)
    waiting: list[JobId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seats = Seats(self.queue, PARKING)

    def key(self, rest: str) -> str:
        return f"easel:{{default}}:{rest}"

    async def join(self, index: int) -> None:
        await self.leases.join(worker(index))
        host = self.seats.host(name(index))
        keys, host.slots, host.can_park = WORKERS[index]
        host.models = frozenset(keys)

    async def submit(self, user: int, key: ModelKey, cost: int) -> None:
        place = next(self.places)
        job_id, user_id = JobId(f"job_{place}"), UserId(f"user:{user}")
        share = Share(1, *USERS[user], 3)
        await self.line.admit(
            [
                Admission(
                    job_id=job_id,
                    user_id=user_id,
                    model_key=key,
                    cost_ms=cost,
                    place=place,
                    attempts=0,
                    start_by=datetime.now(UTC),
                    share=share,
                )
            ]
        )
        self.queue.admit(Waiting(job_id, user_id, key, cost, place), share)
        self.waiting.append(job_id)
        self.seats.preempt()

    async def claim(self, index: int, count: int) -> None:
        host = self.seats.host(name(index))
        count = min(count, host.room)  # as its stream would ask
        if count <= 0:
            return
        keys = WORKERS[index][0]
        found = iter(await self.leases.claim(host.id, "s", keys, count))
        host.idle = False
        for _ in range(count):
            resumed = self.seats.resume_next(host.id, keys, 0)
            if resumed is not None:
                await self.take_over_times(host.seats[resumed])
                continue
            expected = self.queue.claim(keys)
            if expected is None:
                host.idle = True
                break
            claim = next(found)
            assert claim.job_id == expected.job_id
            self.waiting.remove(claim.job_id)
            self.held[claim.attempt_id] = claim
            host.seats[claim.attempt_id] = Seat(
                claim.attempt_id,
                claim.job_id,
                self.queue.priority(claim.user_id),
                round(claim.claimed_at.timestamp() * 1000),
            )
        assert next(found, None) is None
        if not host.idle:
            self.seats.preempt()

    async def take_over_times(self, seat: Seat) -> None:
        """Redis has its own clock."""
        fields = await self.redis.hmget(self.key(f"a:{seat.attempt_id}"), "parked_at", "parked_ms")
        seat.parked_at_ms, seat.parked_ms = (int(value or 0) for value in fields)

    async def answer(self, number: int, age: int) -> None:
        """A worker does what it was told, some time ago."""
        waited_for = {SeatState.PARKING, SeatState.RESUMING}
        asked = [claim for claim in self.held.values() if self.seat(claim).state in waited_for]
        if not asked:
            return
        claim = asked[number % len(asked)]
        seat, attempt = self.seat(claim), [claim.attempt_id]
        if seat.state is SeatState.RESUMING:
            await self.leases.seat(claim.worker_id, "s", parked=[], running=attempt)
            self.seats.is_running(seat, 0)
            return
        await self.leases.seat(claim.worker_id, "s", parked=attempt, running=[])
        self.seats.is_parked(seat, 0)
        await self.age(claim, age * 7000)

    def seat(self, claim: Claim) -> Seat:
        seat = self.seats.seat(claim.attempt_id)
        assert seat is not None
        return seat

    async def age(self, claim: Claim, by_ms: int) -> None:
        """An attempt was parked that much earlier."""
        attempt = claim.attempt_id
        await self.redis.hincrby(self.key(f"a:{attempt}"), "parked_at", -by_ms)
        await self.redis.zincrby(self.key(f"parked:{claim.worker_id}"), -by_ms, attempt)
        await self.redis.zincrby(self.key("resumes"), -by_ms, attempt)
        await self.take_over_times(self.seat(claim))

    async def overdue(self, number: int) -> None:
        parked = [one for one in self.held.values() if self.seat(one).state is SeatState.PARKED]
        if parked:
            await self.age(parked[number % len(parked)], 60_000)
        await self.line.park()
        seconds, micros = await self.redis.time()
        for _, attempt in self.seats.resume_overdue(seconds * 1000 + micros // 1000):
            await self.take_over_times(self.seat(self.held[attempt]))
        self.seats.preempt()

    async def finish(self, number: int) -> None:
        if self.held:
            claim = self.held.pop(list(self.held)[number % len(self.held)])
            await self.line.end([End(claim.job_id, claim.attempt_id, 0)])
            self.seats.end(claim.attempt_id)
            self.queue.remove(claim.job_id, took_ms=0)

    async def requeue(self, number: int) -> None:
        if self.held:
            await self.give_back(self.held[list(self.held)[number % len(self.held)]])

    async def give_back(self, claim: Claim) -> None:
        del self.held[claim.attempt_id]
        assert await self.line.requeue(claim, stop=False)
        self.seats.end(claim.attempt_id)
        self.queue.requeue(claim.job_id, done=0.0)
        self.waiting.append(claim.job_id)
        self.seats.preempt()

    async def cancel(self, number: int) -> None:
        if self.waiting:
            job_id = self.waiting.pop(number % len(self.waiting))
            await self.line.remove([job_id])
            self.queue.remove(job_id)

    async def reconnect(self, index: int) -> None:
        """The worker dies, loses what it held, and another comes in its place."""
        left = await self.leases.leave(name(index), "s")
        self.seats.leave(name(index))
        await self.agree()
        for claim in sorted(left, key=lambda one: one.attempt_id):
            await self.give_back(claim)
        await self.join(index)

    async def agree(self) -> None:
        """All attempts are in the same state on both sides."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for attempt_id in self.held:
                pipe.hget(self.key(f"a:{attempt_id}"), "state")
            for index in range(len(WORKERS)):
                pipe.hexists(self.key(f"wk:{name(index)}"), "idle")
            answer = await pipe.execute()
        states = [(state or b"running").decode() for state in answer[: len(self.held)]]
        assert states == [self.seat(claim).state.value for claim in self.held.values()]
        idle = [self.seats.host(name(index)).idle for index in range(len(WORKERS))]
        assert answer[len(self.held) :] == idle


async def drive(url: str, plan: list[tuple[object, ...]]) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        scripts = Scripts(redis, "default")
        await open_lane(redis, scripts)
        both = Both(
            redis,
            RedisLine(redis, scripts, lease_ttl_s=60),
            RedisLeases(redis, scripts, lease_ttl_s=60, parking=PARKING),
        )
        for index in range(len(WORKERS)):
            await both.join(index)
        for operation, *arguments in plan:
            await getattr(both, str(operation))(*arguments)
            await both.agree()
        while both.held:
            await both.finish(0)
        for index in range(len(WORKERS)):
            await both.leases.leave(name(index), "s")
        for left in ("parked:*", "seats:*", "idle:*", "class:*", "members:*", "h:*"):
            assert not await redis.keys("*}:" + left)
        assert not await redis.exists(*map(both.key, ("resumes", "asked", "seated", "idlers")))


@given(plan=operations)
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_scripts_park_and_resume_as_the_rules_say(
    redis_url: str, plan: list[tuple[object, ...]]
) -> None:
    asyncio.run(drive(redis_url, plan))
