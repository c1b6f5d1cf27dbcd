"""What recovery asks of the stores: in memory and in Redis and Postgres, the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from easel_kit.db import open_pool
from easel_kit.errors import Conflict, DependencyDown
from easel_kit.ids import JobId, ModelKey, UserId, WorkerId, new_attempt_id
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission
from scheduler.domain.policy import Share
from scheduler.domain.survey import Survey
from scheduler.main import SCHEMA
from scheduler.ports import Epoch, Line, Locks, Upkeep
from scheduler.storage.epoch import RedisEpoch
from scheduler.storage.locks import PostgresLocks
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import Scripts
from tests.fakes.scheduler import MemoryLocks
from tests.fakes.scheduler_jobs import MovableClock
from tests.fakes.scheduler_queue import MemoryQueue

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def admission(place: int, *, runs: bool = False) -> Admission:
    job_id, user_id = JobId(f"job_{place}"), UserId("alice")
    claim = Claim(new_attempt_id(), job_id, user_id, WorkerId("w"), 1, NOW) if runs else None
    return Admission(
        job_id=job_id,
        user_id=user_id,
        model_key=ModelKey("m"),
        cost_ms=100,
        place=place,
        attempts=int(runs),
        start_by=NOW + timedelta(days=10_000),
        share=Share(1, 0, 1, 5),
        claim=claim,
    )


@dataclass
class Lane:
    """The queue, closed as after a loss."""

    line: Line
    upkeep: Upkeep
    epoch: Epoch

    async def begin(self) -> str:
        token = await self.epoch.begin(alone=True)
        assert token is not None
        return token


@pytest.fixture(params=["memory", "redis"])
async def lane(request: pytest.FixtureRequest) -> AsyncIterator[Lane]:
    if request.param == "memory":
        memory = MemoryQueue(MovableClock())
        memory.lose()
        yield Lane(memory, memory, memory)
        return
    async with Redis.from_url(request.getfixturevalue("redis_url")) as redis:
        scripts = Scripts(redis, "default")
        line = RedisLine(redis, scripts, lease_ttl_s=15)
        yield Lane(line, line, RedisEpoch(redis, scripts, lease_ttl_s=15))


async def test_a_closed_queue_serves_nobody_until_it_is_opened(lane: Lane) -> None:
    with pytest.raises(DependencyDown):
        await lane.line.admit([admission(1)])
    token = await lane.begin()
    assert not await lane.epoch.is_open()
    with pytest.raises(DependencyDown):
        await lane.upkeep.depth()
    await lane.epoch.sweep(token)
    await lane.epoch.restore(token, [admission(7, runs=True)])
    await lane.epoch.restore(token, [admission(1), admission(2)])
    await lane.epoch.open(token)
    assert await lane.epoch.is_open()
    assert await lane.upkeep.known(after=0, limit=9) == [
        (1, "job_1"), (2, "job_2"), (7, "job_7"),
    ]  # fmt: skip
    assert await lane.upkeep.leased(limit=9) == ["job_7"]
    assert await lane.line.admit([admission(1)]) == 0


async def test_an_open_queue_is_not_rebuilt(lane: Lane) -> None:
    await lane.epoch.open(await lane.begin())
    assert await lane.epoch.begin(alone=True) is None


async def test_one_rebuild_at_a_time_counts(lane: Lane) -> None:
    first = await lane.begin()
    assert await lane.epoch.begin(alone=False) is None
    second = await lane.begin()  # by one who knows that the first is dead
    with pytest.raises(Conflict):
        await lane.epoch.sweep(first)
    with pytest.raises(Conflict):
        await lane.epoch.restore(first, [admission(1)])
    with pytest.raises(Conflict):
        await lane.epoch.open(first)
    await lane.epoch.open(second)
    assert await lane.upkeep.known(after=0, limit=9) == []


async def test_sweeping_leaves_nothing_but_the_rebuild(lane: Lane) -> None:
    token = await lane.begin()
    await lane.epoch.restore(token, [admission(1), admission(2, runs=True)])
    await lane.epoch.sweep(token)
    await lane.epoch.open(token)
    assert await lane.upkeep.known(after=0, limit=9) == []
    assert await lane.upkeep.leased(limit=9) == []


async def test_known_jobs_are_listed_within_bounds(lane: Lane) -> None:
    await lane.epoch.open(await lane.begin())
    await lane.line.admit([admission(place) for place in (1, 2, 3, 4)])
    found = await lane.upkeep.known(after=1, upto=3, limit=9)
    assert found == [(2, "job_2"), (3, "job_3")]
    assert await lane.upkeep.known(after=1, upto=1, limit=9) == []


async def test_a_survey_is_kept_as_long_as_the_queue(lane: Lane) -> None:
    await lane.epoch.open(await lane.begin())
    assert await lane.upkeep.survey() == Survey()
    survey = Survey(floor=5, next_floor=9, next_floor_at=NOW, cursor=3)
    await lane.upkeep.surveyed(survey)
    assert await lane.upkeep.survey() == survey


@pytest.fixture(params=["memory", "postgres"])
async def locks(request: pytest.FixtureRequest) -> AsyncIterator[Locks]:
    if request.param == "memory":
        yield MemoryLocks()
        return
    url = request.getfixturevalue("postgres_url")
    async with open_pool(url, schema=SCHEMA, name="test") as pool:
        yield PostgresLocks(pool, lane="default")


async def test_a_lock_is_held_by_one(locks: Locks) -> None:
    async with locks.hold("a") as first, locks.hold("a") as second, locks.hold("b") as other:
        assert (first, second, other) == (True, False, True)
    async with locks.hold("a") as again:
        assert again


async def test_a_lock_is_waited_for(locks: Locks) -> None:
    async with locks.hold("a"), locks.hold("a", wait_s=0.05) as impatient:
        assert not impatient
    held = asyncio.Event()

    async def hold() -> None:
        async with locks.hold("a"):
            held.set()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(hold())
    await held.wait()
    async with locks.hold("a", wait_s=5) as patient:
        assert patient
    await task


async def test_an_error_under_a_lock_frees_it(locks: Locks) -> None:
    with pytest.raises(Conflict):
        async with locks.hold("a"):
            raise Conflict("no")
    async with locks.hold("a") as again:
        assert again
