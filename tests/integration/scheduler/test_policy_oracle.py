"""The Lua in Redis and the plain-Python reference answer alike, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from easel_kit.ids import JobId, ModelKey, UserId, WorkerId
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.worker import Worker
from scheduler.storage.leases import RedisLeases
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import Scripts
from tests.fakes.scheduler import open_lane
from tests.fakes.scheduler_queue import PARKING

MODELS = ("a", "b", "c")
TIERS = {0: 1, 10: 4, 100: 16, 7: 3}

submits = st.tuples(
    st.just("submit"),
    st.integers(0, 4),  # user
    st.sampled_from(MODELS),
    st.integers(1, 5000),  # cost
    st.integers(1, 5),  # version of the entitlements
    st.sampled_from(sorted(TIERS)),
    st.integers(1, 3),  # running limit
)
claims = st.tuples(st.just("claim"), st.sets(st.sampled_from(MODELS), min_size=1))
ends = st.tuples(st.sampled_from(["requeue", "finish", "cancel"]), st.integers(0, 100))
operations = st.lists(st.one_of(submits, claims, claims, ends), min_size=40, max_size=120)


@dataclass
class Both:
    """The queue in Redis and its reference, driven alike."""

    line: RedisLine
    leases: RedisLeases
    reference: FairQueue = field(default_factory=FairQueue)
    places: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    running: list[Claim] = field(default_factory=list)
    waiting: list[JobId] = field(default_factory=list)

    async def submit(  # noqa: PLR0917 (a row of the plan)
        self, user: int, model: str, cost: int, version: int, tier: int, limit: int
    ) -> None:
        place = next(self.places)
        job_id, user_id = JobId(f"job_{place}"), UserId(f"user:{user}")
        share = Share(version, tier, TIERS[tier], limit)
        await self.line.admit(
            [
                Admission(
                    job_id=job_id,
                    user_id=user_id,
                    model_key=ModelKey(model),
                    cost_ms=cost,
                    place=place,
                    attempts=0,
                    start_by=datetime.now(UTC),
                    share=share,
                )
            ]
        )
        self.reference.admit(Waiting(job_id, user_id, ModelKey(model), cost, place), share)
        self.waiting.append(job_id)

    async def claim(self, models: set[str]) -> None:
        keys = [ModelKey(model) for model in sorted(models)]
        found = await self.leases.claim(WorkerId("w"), "s", keys, 1)
        expected = self.reference.claim(keys)
        assert [claim.job_id for claim in found] == ([expected.job_id] if expected else [])
        for claim in found:
            self.running.append(claim)
            self.waiting.remove(claim.job_id)

    async def requeue(self, number: int) -> None:
        if self.running:
            claim = self.running.pop(number % len(self.running))
            assert await self.line.requeue(claim, stop=False)
            self.reference.requeue(claim.job_id, done=0.0)
            self.waiting.append(claim.job_id)

    async def finish(self, number: int) -> None:
        if self.running:
            claim = self.running.pop(number % len(self.running))
            await self.line.remove([claim.job_id], by=claim.attempt_id)
            self.reference.remove(claim.job_id, done=0.0)

    async def cancel(self, number: int) -> None:
        if self.waiting:
            job_id = self.waiting.pop(number % len(self.waiting))
            await self.line.remove([job_id])
            self.reference.remove(job_id)


def worker() -> Worker:
    return Worker(id=WorkerId("w"), session="s", address="", device="cpu", slots=100, models=())


async def drive(url: str, plan: list[tuple[object, ...]]) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        scripts = Scripts(redis, "default")
        await open_lane(redis, scripts)
        both = Both(
            RedisLine(redis, scripts, lease_ttl_s=60),
            RedisLeases(redis, scripts, lease_ttl_s=60, parking=PARKING),
        )
        await both.leases.join(worker())
        for name, *arguments in plan:
            await getattr(both, str(name))(*arguments)
        while both.reference.waiting() and both.running:  # whatever is left comes out alike
            await both.claim(set(MODELS))
            await both.finish(0)
        for claim in list(both.running):
            await both.line.remove([claim.job_id])
        assert not await redis.keys("*:r:*")
        assert not await redis.keys("*:h:*")


@given(plan=operations)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_scripts_answer_as_the_reference(
    redis_url: str, plan: list[tuple[object, ...]]
) -> None:
    asyncio.run(drive(redis_url, plan))
