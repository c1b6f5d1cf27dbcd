"""The bounds that the queue promises hold for its scripts, over fewer dispatches than in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis

from easel_kit.ids import JobId, ModelKey, UserId, WorkerId
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, End, Progress
from scheduler.domain.policy import Share, Waiting
from scheduler.domain.worker import Worker
from scheduler.storage.leases import RedisLeases
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import Scripts
from tests.fakes import scheduler_bounds as bounds
from tests.fakes.scheduler import open_lane
from tests.fakes.scheduler_bounds import MODELS, M
from tests.fakes.scheduler_queue import PARKING

_T = TypeVar("_T")
W = WorkerId("w")
SEEDS = range(2)


class RedisLane:
    """The queue's scripts."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._redis = Redis.from_url(url)
        scripts = Scripts(self._redis, "default")
        self._line = RedisLine(self._redis, scripts, lease_ttl_s=3600)
        self._leases = RedisLeases(self._redis, scripts, lease_ttl_s=3600, parking=PARKING)
        self._running: dict[JobId, Claim] = {}
        self._jobs: dict[JobId, Waiting] = {}
        self._do(open_lane(self._redis, scripts))
        worker = Worker(id=W, session="s", address="", device="cpu", slots=99, models=())
        self._do(self._leases.join(worker))

    def _do(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(call)

    def close(self) -> None:
        self._do(self._redis.aclose())
        self._runner.close()

    def add(self, user: str, share: Share, cost_ms: int = 100, model: ModelKey = M) -> Waiting:
        place = len(self._jobs) + 1
        job = Waiting(JobId(f"job_{place}"), UserId(user), model, cost_ms, place)
        self._jobs[job.job_id] = job
        admission = Admission(
            job_id=job.job_id,
            user_id=job.user_id,
            model_key=model,
            cost_ms=cost_ms,
            place=place,
            attempts=0,
            start_by=datetime.now(UTC) + timedelta(days=1),
            share=share,
        )
        self._do(self._line.admit([admission]))
        return job

    def claim(self, loaded: Collection[ModelKey] = ()) -> Waiting | None:
        for claim in self._do(self._leases.claim(W, "s", MODELS, 1, loaded=loaded)):
            self._running[claim.job_id] = claim
            return self._jobs[claim.job_id]
        return None

    def end(self, job: Waiting, done: float = 1.0) -> None:
        progress = Progress(job.job_id, int(done * 100), 100, datetime.now(UTC))
        self._do(self._leases.show([progress]))
        by = self._running.pop(job.job_id).attempt_id
        self._do(self._line.end([End(job.job_id, by)]))


@pytest.fixture
def lane(redis_url: str) -> Iterator[RedisLane]:
    found = RedisLane(redis_url)
    yield found
    found.close()


def test_shares_follow_the_weights(lane: RedisLane) -> None:
    bounds.shares_follow_the_weights(lane, Random(0), dispatches=630)


@pytest.mark.parametrize("affinity", [False, True])
def test_two_busy_users_stay_close(lane: RedisLane, *, affinity: bool) -> None:
    bounds.two_busy_users_stay_close(lane, Random(0), dispatches=300, affinity=affinity)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quiet_higher_tier_goes_within_two_slots(lane: RedisLane, seed: int) -> None:
    bounds.a_quiet_higher_tier_goes_within_two_slots(lane, Random(seed), arrivals=10)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fresh_user_waits_a_bounded_time(lane: RedisLane, seed: int) -> None:
    bounds.a_fresh_user_waits_a_bounded_time(lane, Random(seed), arrivals=6)


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_runs_more_than_the_limit(lane: RedisLane, seed: int) -> None:
    bounds.nobody_runs_more_than_the_limit(lane, Random(seed), dispatches=200)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_loaded_model_starves_another(lane: RedisLane, seed: int) -> None:
    bounds.no_loaded_model_starves_another(lane, Random(seed), rounds=8)
