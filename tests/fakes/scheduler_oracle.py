"""The queue in Redis and its plain-Python reference, driven alike and compared."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from redis.asyncio import Redis

from easel_kit.ids import AttemptId, JobId, ModelKey, UserId, WorkerId
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, End, Progress
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.worker import Worker
from scheduler.storage.codec import claims_from_redis
from scheduler.storage.leases import RedisLeases
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import Scripts
from tests.fakes.scheduler_queue import PARKING

MODELS = [ModelKey(name) for name in "abcd"]
USERS = [UserId(f"user:{number}") for number in range(7)]
TIERS = {0: 1, 7: 3, 10: 4, 100: 16}
W = WorkerId("w")
STEPS = 20
EVER = timedelta(days=1)
MANY = 60

# Everything that the fair queue keeps of users and tiers, as JSON: an empty list is written {}.
_LOOK = """
local P, call = KEYS[1], redis.call
local found = { call('HGETALL', P .. 'clock'), call('ZRANGE', P .. 'tiers', 0, -1, 'WITHSCORES'),
    call('HGET', P .. 'pace', 'per_cost') or '' }
local users, tiers, models = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 4, 3 + users do
  local user = ARGV[i]
  local lines = {}
  for k = 4 + users + tiers, #ARGV do
    lines[#lines + 1] = call('ZRANGE', P .. 'w:' .. user .. '/' .. ARGV[k], 0, -1)
  end
  found[#found + 1] = {
    call('HMGET', P .. 'u:' .. user, 'ver', 'pri', 'wt', 'lim', 'f', 's', 'entry', 'passed'),
    call('TTL', P .. 'u:' .. user), call('SMEMBERS', P .. 'r:' .. user),
    call('SMEMBERS', P .. 'um:' .. user), call('ZCARD', P .. 'uw:' .. user), lines }
end
for i = 4 + users, 3 + users + tiers do
  local sets = { call('ZRANGE', P .. 'tu:' .. ARGV[i], 0, -1) }
  for k = 4 + users + tiers, #ARGV do
    sets[#sets + 1] = call('ZRANGE', P .. 'tm:' .. ARGV[i] .. ':' .. ARGV[k], 0, -1)
  end
  sets[#sets + 1] = call('ZCARD', P .. 'tj:' .. ARGV[i])
  found[#found + 1] = sets
end
return cjson.encode(found)
"""

Step = Callable[[Random], Coroutine[Any, Any, None]]


def _some(random: Random, names: list[ModelKey]) -> list[ModelKey]:
    return random.sample(names, random.randint(1, len(names)))


class Both:
    """Each operation goes to both; answers must be equal, and afterwards what they know."""

    def __init__(self, redis: Redis, scripts: Scripts) -> None:
        self.reference = FairQueue()
        self._redis = redis
        self._scripts = scripts
        self._line = RedisLine(redis, scripts, lease_ttl_s=3600)
        self._leases = RedisLeases(redis, scripts, lease_ttl_s=3600, parking=PARKING)
        self._look = redis.register_script(_LOOK)
        self._numbers = itertools.count(1)
        self._fronts = itertools.count(-1, -1)
        self._jobs: dict[JobId, Admission] = {}
        self._running: dict[JobId, Claim] = {}
        self._delayed: set[JobId] = set()
        self._past: list[Claim] = []
        """Attempts that were given back."""
        self._done: dict[JobId, float] = {}
        """Progress that was shown of running attempts."""
        self.steps: dict[str, Step] = {
            "submit": self._submit,
            "claim": self._claim,
            "show": self._show,
            "requeue": self._requeue,
            "release": self._release,
            "finish": self._finish,
            "cancel": self._cancel,
            "prepend": self._prepend,
            "entitle": self._entitle,
            "forget": self._forget_user,
            "adopt": self._adopt,
            "restore": self._restore,
            "repeat": self._repeat,
        }

    async def join(self) -> None:
        """Introduces the worker that claims."""
        worker = Worker(id=W, session="s", address="", device="cpu", slots=100, models=())
        await self._leases.join(worker)

    async def step(self, name: str, random: Random) -> None:
        """Does one operation with random arguments and compares."""
        await self.steps[name](random)
        await self.compare()

    # --- what may be chosen

    def _share(self, random: Random) -> Share:
        tier = random.choice(list(TIERS))
        weight = TIERS[tier] if random.random() < 0.9 else random.randint(1, 20)
        return Share(random.randint(1, 6), tier, weight, random.randint(0, 4))

    def _admission(self, random: Random) -> Admission:
        place = next(self._numbers)
        return Admission(
            job_id=JobId(f"job_{place}"),
            user_id=random.choice(USERS),
            model_key=random.choice(MODELS),
            cost_ms=random.choice((1, 100, 100, 100, random.randint(1, 5000))),
            place=place,
            attempts=0,
            start_by=datetime.now(UTC) + EVER,
            share=self._share(random),
            front=next(self._fronts) if random.random() < 0.2 else None,
        )

    def _attempt(self, job: Admission, number: int) -> Claim:
        name = AttemptId(f"att_{next(self._numbers)}")
        return Claim(name, job.job_id, job.user_id, W, number, datetime.now(UTC))

    def _waiting(self) -> list[JobId]:
        return [job_id for job_id in self._jobs if job_id not in self._running]

    def _forget(self, job_id: JobId) -> None:
        del self._jobs[job_id]
        self._running.pop(job_id, None)
        self._delayed.discard(job_id)
        self._done.pop(job_id, None)

    # --- operations

    async def _submit(self, random: Random) -> None:
        if len(self._jobs) > MANY:
            await self._cancel(random)
        fresh = [self._admission(random) for _ in range(random.choice((1, 1, 2, 6)))]
        again = random.sample(list(self._jobs.values()), min(len(self._jobs), random.randint(0, 1)))
        assert await self._line.admit(fresh + again) == len(fresh)
        for one in fresh + again:
            self.reference.admit(_of(one), one.share)
            self._jobs[one.job_id] = one

    async def _claim(self, random: Random) -> None:
        models, count = _some(random, MODELS), random.randint(1, 3)
        loaded = _some(random, MODELS) if random.random() < 0.5 else []
        found = await self._leases.claim(W, "s", models, count, loaded=loaded)
        expected: list[JobId] = []
        while (
            len(expected) < count
            and (job := self.reference.claim(models, loaded=loaded)) is not None
        ):
            expected.append(job.job_id)
        assert [claim.job_id for claim in found] == expected
        for claim in found:
            job_id = claim.job_id
            assert claim.number == self._jobs[job_id].attempts + 1
            self._jobs[job_id] = replace(self._jobs[job_id], attempts=claim.number)
            self._running[job_id] = claim
            if random.random() < 0.3:  # the answer was lost: asked again
                answer = await self._scripts.run(
                    "claim", W, "s", 1000, 1, 0, claim.attempt_id, *MODELS
                )
                again = claims_from_redis(answer)
                assert [one for one, _ in again] == [claim]

    async def _show(self, random: Random) -> None:
        if self._running:
            job_id = random.choice(list(self._running))
            step = random.randint(0, STEPS)
            await self._leases.show([Progress(job_id, step, STEPS, datetime.now(UTC))])
            self._done[job_id] = step / STEPS

    async def _requeue(self, random: Random) -> None:
        if not self._running:
            return
        job_id = random.choice(list(self._running))
        claim = self._running.pop(job_id)
        later = random.random() < 0.3
        pause = datetime.now(UTC) + EVER if later else None
        assert await self._line.requeue(claim, stop=False, not_before=pause)
        self.reference.requeue(job_id, done=self._done.pop(job_id, 0.0), later=later)
        self._past.append(claim)
        if later:
            self._delayed.add(job_id)

    async def _release(self, random: Random) -> None:
        if self._delayed:
            job_id = random.choice(list(self._delayed))
            await self._redis.zadd(f"{self._scripts.prefix}delayed", {job_id: 0})
            assert await self._line.release(limit=5) == 1
            self.reference.release(job_id)
            self._delayed.remove(job_id)

    async def _finish(self, random: Random) -> None:
        if not self._running:
            return
        job_id = random.choice(list(self._running))
        claim = self._running[job_id]
        took_ms = random.choice((None, 0, 100, random.randint(1, 20_000)))
        other = random.random() < 0.1
        by = AttemptId("att_other") if other else claim.attempt_id
        await self._line.end([End(job_id, by, took_ms)])
        done = self._done.get(job_id, 0.0)
        self.reference.remove(job_id, took_ms=None if other else took_ms, done=done)
        self._forget(job_id)

    async def _cancel(self, random: Random) -> None:
        """Of waiting jobs, some of which succeed late, and of an unknown one."""
        waiting = self._waiting()
        if not waiting:
            return
        most = len(waiting) if len(self._jobs) > MANY else 3
        gone = random.sample(waiting, min(len(waiting), random.randint(1, most)))
        late = random.random() < 0.3
        took_ms = random.randint(0, 5_000) if late else None
        by = AttemptId("att_late") if late else None
        await self._line.end([End(one, by, took_ms) for one in [*gone, JobId("job_unknown")]])
        for job_id in gone:
            self.reference.remove(job_id, took_ms=took_ms)
            self._forget(job_id)

    async def _prepend(self, random: Random) -> None:
        chosen = random.sample(list(self._jobs), min(len(self._jobs), random.randint(1, 4)))
        orders = {job_id: next(self._fronts) for job_id in [*chosen, JobId("job_unknown")]}
        await self._line.prepend(orders)
        self.reference.prepend(orders)
        for job_id in chosen:
            self._jobs[job_id] = replace(self._jobs[job_id], front=orders[job_id])

    async def _entitle(self, random: Random) -> None:
        user_id, share = random.choice(USERS), self._share(random)
        await self._line.entitle(user_id, share)
        self.reference.entitle(user_id, share)

    async def _forget_user(self, random: Random) -> None:
        user_id = random.choice(USERS)
        own = {job_id for job_id, job in self._jobs.items() if job.user_id == user_id}
        held = await self._line.forget_user(user_id)
        assert own.issuperset(held)
        assert bool(held) == bool(own)
        if not own:
            self.reference.forget(user_id)

    async def _adopt(self, random: Random) -> None:
        """An attempt that was given back is still there after all, or an unknown one is."""
        if self._past and random.random() < 0.7:
            claim = random.choice(self._past)
            job = self._jobs.get(claim.job_id)
            if job is None:
                return
        else:
            job = self._admission(random)
            claim = self._attempt(job, random.randint(1, 3))
        share = self._share(random)
        kept = await self._leases.adopt("s", replace(job, share=share, claim=claim))
        assert kept == self._reference_adopts(job, claim, share)
        if kept:
            self._jobs[job.job_id] = replace(job, attempts=claim.number)
            self._running[job.job_id] = claim
            self._delayed.discard(job.job_id)

    def _reference_adopts(self, job: Admission, claim: Claim, share: Share) -> bool:
        if job.job_id not in self._jobs:
            return self.reference.restore(_of(job), share)
        running = self._running.get(job.job_id)
        if running is None and job.attempts <= claim.number:
            return self.reference.hold(job.job_id, share)
        self.reference.entitle(job.user_id, share)
        return running is not None and running.attempt_id == claim.attempt_id

    async def _restore(self, random: Random) -> None:
        job = self._admission(random)
        claim = self._attempt(job, 1)
        assert await self._line.admit([replace(job, claim=claim)]) == 1
        assert self.reference.restore(_of(job), job.share, forced=True)
        self._jobs[job.job_id] = replace(job, attempts=1)
        self._running[job.job_id] = claim

    async def _repeat(self, random: Random) -> None:
        """What was said before changes nothing."""
        superseded = [claim for claim in self._past if self._running.get(claim.job_id) != claim]
        if superseded:
            assert not await self._line.requeue(random.choice(superseded), stop=False)
        await self._line.remove([JobId("job_unknown")])

    # --- comparison

    async def compare(self) -> None:
        """Looks at everything in Redis."""
        names: list[str | int] = [*USERS, *TIERS, *MODELS]
        text: bytes = await self._look(
            keys=[self._scripts.prefix],
            args=[len(USERS), len(TIERS), len(MODELS), *names],
        )
        clock, tiers, per_cost, *rest = json.loads(text)
        self._compare_clock(_pairs(clock), _pairs(tiers), per_cost)
        for user_id, found in zip(USERS, rest, strict=False):
            self._compare_user(user_id, found)
        for tier, found in zip(TIERS, rest[len(USERS) :], strict=True):
            self._compare_tier(tier, found)

    def _compare_clock(
        self, clock: dict[str, float], starts: dict[str, float], per_cost: str
    ) -> None:
        reference = self.reference
        assert clock.get("v", 0.0) == reference._virtual
        assert clock.get("entry", 0) == reference._entries
        assert (float(per_cost) if per_cost else None) == reference._ms_per_cost
        tiers = reference._tiers.values()
        assert starts == {
            str(tier.priority): tier.start for tier in tiers if tier.start is not None
        }
        for tier in tiers:
            assert clock.get(f"f:{tier.priority}", 0.0) == tier.finish
            assert clock.get(f"t:{tier.priority}", 0.0) == tier.virtual

    def _compare_user(self, user_id: UserId, found: list[Any]) -> None:
        fields, ttl_s, running, models, waiting, lines = found
        user = self.reference._users.get(user_id)
        if user is None:
            assert fields[0] is False
            return
        share = user.share
        numbers = [float(field) for field in fields[:5]]
        assert numbers == [
            share.version,
            share.priority,
            share.weight,
            share.max_running,
            user.finish,
        ]
        assert (float(fields[5]) if fields[5] else None) == user.start
        if user.start is not None:
            assert [int(field) for field in fields[6:]] == [user.entry, user.passed]
        assert set(running) == user.running
        assert set(models) == set(user.lines)
        assert waiting == sum(len(line) for line in user.lines.values())
        for model, line in zip(MODELS, lines, strict=True):
            order = sorted(user.lines.get(model, ()), key=lambda one: self._jobs[one].order)
            assert list(line) == order
        delayed = any(self._jobs[job_id].user_id == user_id for job_id in self._delayed)
        idle = not user.running and not user.lines
        assert (ttl_s > 0) == idle or delayed

    def _compare_tier(self, priority: int, found: list[Any]) -> None:
        ready, *by_model, waiting = found
        users = [one for one in self.reference._users.values() if one.share.priority == priority]
        inside = [user for user in users if user.start is not None]
        inside.sort(key=lambda user: (user.start, user.entry))
        assert _users(ready) == [user.id for user in inside]
        assert waiting == sum(len(line) for user in users for line in user.lines.values())
        for model, members in zip(MODELS, by_model, strict=True):
            assert _users(members) == [user.id for user in inside if model in user.lines]


def _of(job: Admission) -> Waiting:
    return Waiting(job.job_id, job.user_id, job.model_key, job.cost_ms, job.order)


def _pairs(found: list[str]) -> dict[str, float]:
    found = list(found)
    return {key: float(value) for key, value in zip(found[::2], found[1::2], strict=True)}


def _users(members: list[str]) -> list[str]:
    return [member.split(":", 1)[1] for member in members]
