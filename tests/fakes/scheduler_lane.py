"""A lane of the real queue, driven step by step as `scheduler_bounds.Lane`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from redis.asyncio import Redis

from easel_kit.ids import JobId, ModelKey, UserId, WorkerId
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, End, Progress
from scheduler.domain.policy import Share, Waiting
from scheduler.domain.worker import Worker
from scheduler.storage.leases import RedisLeases
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import Scripts
from tests.fakes.scheduler import open_lane
from tests.fakes.scheduler_bounds import MODELS, M
from tests.fakes.scheduler_queue import PARKING

_T = TypeVar("_T")
W = WorkerId("w")


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

    def prepend(self, orders: dict[JobId, int]) -> None:
        self._do(self._line.prepend(orders))

    def positions(self, job_ids: Collection[JobId]) -> dict[JobId, int]:
        """Where these jobs stand."""
        live = self._do(self._line.live(job_ids))
        return {job_id: one.position for job_id, one in live.items()}

    def foresee(self, user: str, share: Share, cost_ms: int = 100) -> int:
        """Where the next job of the user would stand."""
        return self._do(self._line.foresee(UserId(user), share, cost_ms)).position
