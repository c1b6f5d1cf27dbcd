"""Positions in line against the order in which the plain-Python policy draws it."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest

from easel_kit.ids import JobId
from scheduler.domain.policy import Share, Waiting
from tests.fakes.scheduler_bounds import TIERS, ReferenceLane
from tests.fakes.scheduler_lane import RedisLane


class Line:
    """The same line twice: Redis says the positions, the reference is drawn empty."""

    def __init__(self, url: str, random: Random, *, limit: int = 999) -> None:
        self.redis = RedisLane(url)
        self.reference = ReferenceLane()
        self._random = random
        self._limit = limit
        self._fronts = count(-1, -1)
        self._waiting: set[JobId] = set()
        self._running: list[Waiting] = []

    def add(self, user: str) -> None:
        plan = TIERS[user.split("-", maxsplit=1)[0]]
        share = Share(1, plan.priority, plan.weight, self._limit)
        job = self.redis.add(user, share)
        assert self.reference.add(user, share) == job
        self._waiting.add(job.job_id)

    def fill(self, *, even: bool) -> None:
        for tier in TIERS:
            for user in range(self._random.randint(0, 3)):
                for _ in range(3 if even else self._random.randint(1, 4)):
                    self.add(f"{tier}-{user}")

    def prepend(self) -> None:
        if not self._waiting:
            return
        job_id = self._random.choice(sorted(self._waiting))
        orders = {job_id: next(self._fronts)}
        self.redis.prepend(orders)
        self.reference.queue.prepend(orders)

    def start(self) -> None:
        job = self.redis.claim()
        same = self.reference.claim()
        assert (same and same.job_id) == (job and job.job_id)
        if job is not None:
            self._waiting.discard(job.job_id)
            self._running.append(job)

    def end(self, done: float) -> None:
        if self._running:
            job = self._running.pop(self._random.randrange(len(self._running)))
            self.redis.end(job, done)
            self.reference.end(job, done)

    def errors(self) -> list[int]:
        """How far each job's position was from when it was drawn; draws the line empty."""
        shown = self.redis.positions(self._waiting)
        self.redis.close()
        for job in self._running:
            self.reference.end(job)
        found = []
        for place in range(1, len(shown) + 1):
            drawn = self.reference.claim()
            assert drawn is not None
            found.append(shown[drawn.job_id] - place)
            self.reference.end(drawn)
        return found


@pytest.mark.parametrize("seed", range(4))
def test_positions_are_exact_for_equal_costs(redis_url: str, seed: int) -> None:
    line = Line(redis_url, Random(seed))
    line.fill(even=True)
    for _ in range(3):
        line.add("free-9")
    for _ in range(3):
        line.prepend()
    assert set(line.errors()) == {0}


@pytest.mark.parametrize(("seed", "limit"), [(0, 999), (1, 999), (2, 1), (3, 2)])
def test_positions_stay_near_through_ends_of_all_kinds(
    redis_url: str, seed: int, limit: int
) -> None:
    random = Random(seed)
    line = Line(redis_url, random, limit=limit)
    line.fill(even=False)
    line.add("free-0")
    line.add("pro-0")
    for _ in range(25):
        random.choice((line.start, line.prepend))()
        line.end(random.choice((0.5, 1.0, 1.0)))
        line.add(f"{random.choice(list(TIERS))}-{random.randint(0, 2)}")
    errors = line.errors()
    assert sum(abs(error) <= 2 for error in errors) >= 0.9 * len(errors), errors


@pytest.mark.parametrize("seed", range(3))
def test_what_is_foreseen_is_what_a_submit_is_told(redis_url: str, seed: int) -> None:
    random, lane = Random(seed), RedisLane(redis_url)
    running: list[Waiting] = []
    for _ in range(120):
        tier = random.choice(list(TIERS))
        plan = TIERS[tier]
        user, share = f"{tier}-{random.randint(0, 2)}", Share(1, plan.priority, plan.weight, 2)
        foreseen = lane.foresee(user, share)
        assert lane.foresee(user, share) == foreseen, "looking changes nothing"
        job = lane.add(user, share)
        assert lane.positions([job.job_id])[job.job_id] == foreseen
        for _ in range(random.randint(0, 2)):
            claimed = lane.claim()
            running += [claimed] if claimed else []
        while running and random.random() < 0.5:
            lane.end(running.pop(random.randrange(len(running))), random.choice((0.5, 1.0)))
    lane.close()
