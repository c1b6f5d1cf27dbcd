"""The line of one lane in Redis: who waits, who runs, where everyone stands.

All decisions are in `lua/`; here values become arguments and answers become values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from redis.asyncio import Redis

from easel_kit.ids import JobId, UserId
from easel_kit.redis import redis_errors
from scheduler.domain.estimate import (
    Pace,
    Spot,
    TierLine,
    eta_running_s,
    eta_waiting_s,
    position,
)
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, Depth, End, Live
from scheduler.domain.policy import Share
from scheduler.domain.survey import Survey
from scheduler.storage.codec import (
    admission_to_redis,
    claims_from_redis,
    end_to_redis,
    from_ms,
    progress_from_redis,
    share_to_redis,
    to_ms,
)
from scheduler.storage.scripts import Scripts

# A script blocks Redis while it runs: bounded work per call.
_JOBS_PER_CALL = 200
_T = TypeVar("_T")


class RedisLine:
    """`ports.Line` and `ports.Upkeep` on Redis."""

    def __init__(self, redis: Redis, scripts: Scripts, *, lease_ttl_s: float) -> None:
        """`lease_ttl_s` is given to attempts whose lease is made up again after a loss."""
        self._redis = redis
        self._scripts = scripts
        self._lease_ms = int(lease_ttl_s * 1000)

    async def admit(self, admissions: Sequence[Admission]) -> int:
        """See `ports.Line`."""
        added = 0
        for some in _batches(admissions):
            fields = [field for admission in some for field in admission_to_redis(admission)]
            added += await self._scripts.run("admit", self._lease_ms, *fields)
        return added

    async def enter(
        self, admissions: Sequence[Admission], look_at: Collection[JobId]
    ) -> dict[JobId, Live]:
        """See `ports.Line`."""
        if max(len(admissions), len(look_at)) > _JOBS_PER_CALL:
            await self.admit(admissions)
            return await self.live(look_at)
        fields = [field for admission in admissions for field in admission_to_redis(admission)]
        _, answer = await self._scripts.run_together(
            ("admit", [self._lease_ms, *fields]), ("live", list(look_at))
        )
        return _live(look_at, answer)

    async def end(self, ends: Sequence[End]) -> None:
        """See `ports.Line`."""
        for some in _batches(ends):
            fields = [field for end in some for field in end_to_redis(end)]
            await self._scripts.run("remove", *fields)

    async def remove(self, job_ids: Collection[JobId]) -> None:
        """See `ports.Line`."""
        await self.end([End(job_id) for job_id in job_ids])

    async def requeue(
        self, claim: Claim, *, stop: bool, not_before: datetime | None = None
    ) -> bool:
        """See `ports.Line`."""
        told = "1" if stop else ""
        pause = to_ms(not_before) if not_before else "0"
        return bool(await self._scripts.run("requeue", claim.attempt_id, claim.job_id, told, pause))

    async def prepend(self, orders: Mapping[JobId, int]) -> None:
        """See `ports.Line`."""
        for some in _batches(orders.items()):
            await self._scripts.run("prepend", *[value for item in some for value in item])

    async def entitle(self, user_id: UserId, share: Share) -> None:
        """See `ports.Line`."""
        await self._scripts.run("entitle", user_id, *share_to_redis(share))

    async def forget_user(self, user_id: UserId) -> list[JobId]:
        """See `ports.Line`."""
        held = await self._scripts.run("forget", user_id, _JOBS_PER_CALL)
        return [JobId(job.decode()) for job in held]

    async def stop(self, job_id: JobId) -> bool:
        """See `ports.Line`."""
        return bool(await self._scripts.run("stop", job_id))

    async def live(self, job_ids: Collection[JobId]) -> dict[JobId, Live]:
        """See `ports.Line`."""
        found: dict[JobId, Live] = {}
        for some in _batches(job_ids):
            found |= _live(some, await self._scripts.run("live", *some))
        return found

    async def foresee(self, user_id: UserId, share: Share, cost_ms: int) -> Live:
        """See `ports.Line`."""
        answer = await self._scripts.run(
            "foresee", user_id, share.version, share.priority, share.weight, cost_ms
        )
        return _foreseen(cost_ms, *answer)

    async def expired(self, *, limit: int) -> list[tuple[Claim, bool]]:
        """See `ports.Upkeep`."""
        return claims_from_redis(await self._scripts.run("expired", limit))

    async def overdue(self, *, limit: int) -> list[JobId]:
        """See `ports.Upkeep`."""
        return [JobId(job.decode()) for job in await self._scripts.run("overdue", limit)]

    async def known(
        self, *, after: int, upto: int | None = None, limit: int
    ) -> list[tuple[int, JobId]]:
        """See `ports.Upkeep`."""
        last = "+inf" if upto is None else upto
        found = await self._scripts.run("known", after, last, limit)
        return [
            (int(place), JobId(job.decode()))
            for job, place in zip(found[::2], found[1::2], strict=True)
        ]

    async def leased(self, *, limit: int) -> list[JobId]:
        """See `ports.Upkeep`."""
        return [JobId(job.decode()) for job in await self._scripts.run("leased", limit)]

    async def survey(self) -> Survey:
        """See `ports.Upkeep`."""
        floor, following, at_ms, cursor = await self._scripts.run("survey")
        return Survey(
            floor=int(floor or 0),
            next_floor=int(following or 0),
            next_floor_at=from_ms(at_ms or 0),
            cursor=int(cursor or 0),
        )

    async def surveyed(self, survey: Survey) -> None:
        """See `ports.Upkeep`."""
        await self._scripts.run(
            "survey",
            *("floor", survey.floor, "next_floor", survey.next_floor),
            *("next_floor_at_ms", to_ms(survey.next_floor_at), "cursor", survey.cursor),
        )

    async def pace(self) -> Pace:
        """See `ports.Upkeep`."""
        with redis_errors():
            found: list[bytes | None] = await self._redis.hmget(  # type: ignore[assignment]
                f"{self._scripts.prefix}pace", ["mean_ms", "per_cost", "slots"]
            )
        return _pace([value or b"0" for value in found])

    async def depth(self) -> Depth:
        """See `ports.Upkeep`."""
        prefix = self._scripts.prefix
        await self._scripts.run("check")
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zcard(f"{prefix}jobs")
                pipe.zcard(f"{prefix}leases")
                pipe.zcard(f"{prefix}workers")
                pipe.hget(f"{prefix}pace", "slots")
                jobs, running, workers, slots = await pipe.execute()
        return Depth(
            waiting=max(0, jobs - running), running=running, workers=workers, slots=int(slots or 0)
        )

    async def release(self, *, limit: int) -> int:
        """See `ports.Upkeep`."""
        return int(await self._scripts.run("release", limit))

    async def park(self) -> None:
        """See `ports.Upkeep`."""
        await self._scripts.run("park", _JOBS_PER_CALL)

    async def remind(self) -> None:
        """See `ports.Upkeep`."""
        await self._scripts.run("remind")


def _live(job_ids: Collection[JobId], answer: Sequence[Any]) -> dict[JobId, Live]:
    now, pace, tiers, jobs = answer
    view = _View(float(now), _pace(pace), _tiers(tiers))
    return {
        job_id: view.live(job_id, found)
        for job_id, found in zip(job_ids, jobs, strict=True)
        if found
    }


class _View:
    """One answer of `live.lua`."""

    def __init__(self, now_ms: float, pace: Pace, tiers: list[TierLine]) -> None:
        self._now_ms = now_ms
        self._pace = pace
        self._tiers = tiers

    def live(self, job_id: JobId, answer: list[Any]) -> Live:
        return self._running(job_id, answer[1:]) if answer[0] == b"r" else self._waiting(answer)

    def _running(self, job_id: JobId, answer: list[bytes]) -> Live:
        number, at, cost, progress, parked = answer
        shown = progress_from_redis(job_id, progress)
        return Live(
            running=True,
            attempts=int(number),
            eta_s=eta_running_s(
                self._now_ms - float(at),
                shown.step if shown else 0,
                shown.steps if shown else 0,
                int(cost),
                self._pace,
            ),
            claimed_at=from_ms(at),
            first_step_at=shown.first_step_at if shown else None,
            step=shown.step if shown else 0,
            parked=bool(parked),
        )

    def _waiting(self, answer: list[Any]) -> Live:
        _, number, tier, cost, own_before, own_waiting, rank, users, not_before = answer
        spot = Spot(
            priority=int(tier),
            cost_ms=int(cost),
            own_before=int(own_before),
            own_waiting=int(own_waiting),
            rank=int(rank),
            users=int(users),
        )
        place = position(spot, self._tiers)
        return Live(
            running=False,
            attempts=int(number),
            position=place,
            eta_s=eta_waiting_s(
                place,
                spot.cost_ms,
                self._pace,
                pause_ms=max(0.0, float(not_before or "0") - self._now_ms),
            ),
        )


def _foreseen(cost_ms: int, pace: list[bytes], tiers: list[Any], place: list[Any]) -> Live:
    """One answer of `foresee.lua`."""
    priority, weight, start, own_before, rank, users = place
    spot = Spot(
        priority=int(priority),
        cost_ms=cost_ms,
        own_before=int(own_before),
        own_waiting=int(own_before) + 1,
        rank=int(rank),
        users=int(users),
    )
    known = {tier.priority: tier for tier in _tiers(tiers)}
    waiting = known[spot.priority].waiting if spot.priority in known else 0
    known[spot.priority] = TierLine(spot.priority, round(float(weight)), waiting + 1, float(start))
    found = position(spot, list(known.values()))
    return Live(
        running=False,
        attempts=0,
        position=found,
        eta_s=eta_waiting_s(found, cost_ms, _pace(pace)),
    )


def _pace(answer: list[bytes]) -> Pace:
    mean_ms, ms_per_cost, slots = answer
    return Pace(float(mean_ms), float(ms_per_cost), int(slots))


def _tiers(answer: list[Any]) -> list[TierLine]:
    return [
        TierLine(
            priority=int(priority),
            weight=int(weight),
            waiting=int(waiting),
            start=float(start) if start else None,
        )
        for priority, weight, waiting, start in zip(*[iter(answer)] * 4, strict=True)
    ]


def _batches(items: Collection[_T]) -> Iterator[list[_T]]:
    left = iter(items)
    while some := list(islice(left, _JOBS_PER_CALL)):
        yield some
