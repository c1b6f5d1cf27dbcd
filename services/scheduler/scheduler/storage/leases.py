"""Leases and the registry of workers in Redis, and the progress that workers report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from easel_kit.errors import Conflict, NotFound
from easel_kit.ids import AttemptId, ModelKey, WorkerId, new_attempt_id
from easel_kit.redis import redis_errors
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, Progress
from scheduler.domain.parking import Parking
from scheduler.domain.worker import Worker, WorkerStatus
from scheduler.storage.codec import (
    admission_to_redis,
    claims_from_redis,
    progress_to_redis,
    worker_from_json,
    worker_to_json,
)
from scheduler.storage.scripts import Scripts

_PROGRESS_KEPT_S = 300


class RedisLeases:
    """`ports.Leases` and `ports.Registry` on Redis."""

    def __init__(
        self, redis: Redis, scripts: Scripts, *, lease_ttl_s: float, parking: Parking
    ) -> None:
        """A lease that is not renewed for `lease_ttl_s` runs out, by Redis's clock."""
        self._redis = redis
        self._scripts = scripts
        self._lease_ms = int(lease_ttl_s * 1000)
        self._parking = parking

    async def join(self, worker: Worker) -> list[Claim]:
        """See `ports.Leases`."""
        answer = await self._introduce("join", worker)
        return [claim for claim, _ in claims_from_redis(answer)]

    async def update(self, worker: Worker) -> None:
        """See `ports.Leases`."""
        _answered(worker.id, await self._introduce("update", worker))

    async def _introduce(self, mode: str, worker: Worker) -> Any:  # noqa: ANN401 (a script's answer)
        return await self._scripts.run(
            "join",
            mode,
            worker.id,
            worker.session,
            self._lease_ms,
            worker.slots,
            worker_to_json(worker),
            "1" if worker.draining else "",
            self._parking.max_times if worker.can_park else 0,
            int(self._parking.max_s * 1000),
            *worker.usable_models,
        )

    async def leave(self, worker_id: WorkerId, session: str) -> list[Claim]:
        """See `ports.Leases`."""
        answer = await self._scripts.run("leave", worker_id, session)
        return [claim for claim, _ in claims_from_redis(answer)]

    async def renew(
        self, worker_id: WorkerId, session: str, held: Collection[AttemptId]
    ) -> set[AttemptId]:
        """See `ports.Leases`."""
        answer = await self._scripts.run("renew", worker_id, session, self._lease_ms, *held)
        return {AttemptId(attempt.decode()) for attempt in _answered(worker_id, answer)}

    async def claim(
        self,
        worker_id: WorkerId,
        session: str,
        models: Sequence[ModelKey],
        count: int,
        *,
        loaded: Collection[ModelKey] = (),
    ) -> list[Claim]:
        """See `ports.Leases`."""
        attempts = [new_attempt_id() for _ in range(count)]
        ready = [model for model in models if model in loaded]
        others = [model for model in models if model not in loaded]
        numbers = (self._lease_ms, count, len(ready))
        answer = await self._scripts.run(
            "claim", worker_id, session, *numbers, *attempts, *ready, *others
        )
        return [claim for claim, _ in claims_from_redis(_answered(worker_id, answer))]

    async def adopt(self, session: str, admission: Admission) -> bool:
        """See `ports.Leases`."""
        answer = await self._scripts.run(
            "adopt", session, self._lease_ms, *admission_to_redis(admission)
        )
        return bool(answer)

    async def seat(
        self,
        worker_id: WorkerId,
        session: str,
        *,
        parked: Collection[AttemptId],
        running: Collection[AttemptId],
    ) -> None:
        """See `ports.Leases`."""
        answer = await self._scripts.run("seat", worker_id, session, len(parked), *parked, *running)
        if answer != 1:
            _answered(worker_id, answer)

    async def show(self, progress: Sequence[Progress]) -> None:
        """See `ports.Leases`."""
        prefix = self._scripts.prefix
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for one in progress:
                    kept, message = progress_to_redis(one)
                    pipe.set(f"{prefix}p:{one.job_id}", kept, ex=_PROGRESS_KEPT_S)
                    pipe.publish(f"{prefix}job:{one.job_id}", message)
                await pipe.execute()

    async def catalogue_version(self) -> str:
        """See `ports.Registry`."""
        found: bytes = await self._scripts.run("catalogue")
        return found.decode()

    async def workers(self) -> list[WorkerStatus]:
        """See `ports.Registry`."""
        prefix = self._scripts.prefix
        await self._scripts.run("check")
        with redis_errors():
            found_ids: list[bytes] = await self._redis.zrange(f"{prefix}workers", 0, -1)  # type: ignore[assignment]
            async with self._redis.pipeline(transaction=False) as pipe:
                ids = sorted(worker_id.decode() for worker_id in found_ids)
                for worker_id in ids:
                    pipe.hmget(f"{prefix}wk:{worker_id}", "session", "body", "drain")
                    pipe.scard(f"{prefix}h:{worker_id}")
                    pipe.zcount(f"{prefix}parked:{worker_id}", "(0", "+inf")
                answers = await pipe.execute()
        found = []
        for worker_id, (session, body, asked), held, parked in zip(
            ids, answers[::3], answers[1::3], answers[2::3], strict=True
        ):
            if body is not None:
                worker = worker_from_json(worker_id, session.decode(), body)
                worker = replace(worker, draining=worker.draining or asked is not None)
                found.append(WorkerStatus(worker, held, parked))
        return found

    async def drain(self, worker_id: WorkerId) -> None:
        """See `ports.Registry`."""
        if not await self._scripts.run("drain", worker_id):
            raise NotFound("worker", worker_id)


def _answered(worker_id: WorkerId, answer: Any) -> list[bytes]:  # noqa: ANN401 (a script's answer)
    if answer == b"unknown":
        raise NotFound("worker", worker_id)
    if answer == b"replaced":
        raise Conflict("another stream of this worker has taken over")
    return list(answer)
