"""The promises of the fair queue as functions that drive a line and fail where one is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from random import Random
from statistics import median
from typing import Protocol

from easel_kit.ids import JobId, ModelKey, UserId
from scheduler.domain.policy import AFFINITY_LEAD, FairQueue, Share, Waiting

M, OTHER = ModelKey("m"), ModelKey("other")
MODELS = (M, OTHER)
FREE, PRO, ENTERPRISE = Share(1, 0, 1, 999), Share(1, 10, 4, 999), Share(1, 100, 16, 999)
TIERS = {"free": FREE, "pro": PRO, "enterprise": ENTERPRISE}
ROUND = 21
"""Dispatches of equal cost in which each tier has its share: the sum of the weights."""


class Lane(Protocol):
    """A line that can be driven step by step."""

    def add(self, user: str, share: Share, cost_ms: int = 100, model: ModelKey = M) -> Waiting:
        """A job of this user, last among the user's."""
        ...

    def claim(self, loaded: Collection[ModelKey] = ()) -> Waiting | None:
        """The next job for a worker with all `MODELS`."""
        ...

    def end(self, job: Waiting, done: float = 1.0) -> None:
        """A running job ends after this part of its steps."""
        ...


class ReferenceLane:
    """The plain-Python policy."""

    def __init__(self, queue: FairQueue | None = None) -> None:
        self.queue = queue or FairQueue()
        self._added = 0

    def add(self, user: str, share: Share, cost_ms: int = 100, model: ModelKey = M) -> Waiting:
        """See `Lane`."""
        self._added += 1
        job = Waiting(JobId(f"job_{self._added}"), UserId(user), model, cost_ms, self._added)
        self.queue.admit(job, share)
        return job

    def claim(self, loaded: Collection[ModelKey] = ()) -> Waiting | None:
        """See `Lane`."""
        return self.queue.claim(MODELS, loaded=loaded)

    def end(self, job: Waiting, done: float = 1.0) -> None:
        """See `Lane`."""
        self.queue.remove(job.job_id, done=done)


def _next(lane: Lane, loaded: Collection[ModelKey] = ()) -> Waiting:
    job = lane.claim(loaded)
    assert job is not None
    return job


def shares_follow_the_weights(lane: Lane, random: Random, *, dispatches: int) -> None:
    """With all tiers backlogged each has its part of the work within one point."""
    for tier, share in TIERS.items():
        for user in range(3):
            lane.add(f"{tier}-{user}", share, random.randint(50, 200))
            lane.add(f"{tier}-{user}", share, random.randint(50, 200))
    served: Counter[str] = Counter()
    for _ in range(dispatches):
        job = _next(lane)
        tier = job.user_id.split("-")[0]
        done = random.choice((0.25, 1.0, 1.0, 1.0))
        lane.end(job, done)
        served[tier] += int(job.cost_ms * done)
        lane.add(job.user_id, TIERS[tier], random.randint(50, 200))
    for tier, share in TIERS.items():
        part = 100 * served[tier] / served.total()
        assert abs(part - 100 * share.weight / ROUND) <= 1, (tier, part)


def two_busy_users_stay_close(
    lane: Lane, random: Random, *, dispatches: int, affinity: bool = False
) -> None:
    """What two users of a tier got differs by two of the largest jobs, plus affinity's lead."""
    largest = 1_000
    models = {"one": M, "two": OTHER if affinity else M}
    lead = (2 + (AFFINITY_LEAD if affinity else 0)) * largest

    def add(user: str) -> None:
        cost = largest if user == "one" else random.randint(1, largest)
        lane.add(user, FREE, random.choice((cost, largest)), models[user])

    for user in models:
        add(user)
        add(user)
    got = dict.fromkeys(models, 0.0)
    for _ in range(dispatches):
        loaded = random.choice(((M,), (M,), (OTHER,), MODELS, ())) if affinity else ()
        job = _next(lane, loaded)
        done = random.choice((0.5, 1.0, 1.0))
        lane.end(job, done)
        got[job.user_id] += job.cost_ms * done
        add(job.user_id)
        assert abs(got["one"] - got["two"]) <= lead, got


class _Slots:
    """Workers that are always busy, and tiers that never run dry."""

    def __init__(self, lane: Lane, random: Random, slots: int, tiers: Collection[str]) -> None:
        self._lane = lane
        self._random = random
        self._slots = slots
        self._tiers = tiers
        self.running: list[Waiting] = []
        for tier in tiers:
            for user in range(random.randint(1, 5)):
                lane.add(f"{tier}-{user}", TIERS[tier])
                lane.add(f"{tier}-{user}", TIERS[tier])

    def fill_next(self) -> Waiting:
        """The job that the next free slot gets."""
        if len(self.running) == self._slots:
            self._lane.end(self.running.pop(self._random.randrange(self._slots)))
        job = _next(self._lane)
        self.running.append(job)
        tier = job.user_id.split("-")[0]
        if tier in self._tiers:
            self._lane.add(job.user_id, TIERS[tier])
        return job

    def runs(self, tier: str) -> bool:
        return any(job.user_id.startswith(tier) for job in self.running)


def a_quiet_higher_tier_goes_within_two_slots(lane: Lane, random: Random, *, arrivals: int) -> None:
    """A job into a tier of which nothing waits or runs, above all backlogged ones."""
    above, below = random.choice((("pro", ["free"]), ("enterprise", ["free", "pro"])))
    slots = _Slots(lane, random, random.randint(1, 6), below)
    for _ in range(arrivals):
        for _ in range(random.randint(1, 30)):
            slots.fill_next()
        while slots.runs(above):
            slots.fill_next()
        wanted = lane.add(f"{above}-{random.randint(1, 3)}", TIERS[above])
        assert wanted in {slots.fill_next(), slots.fill_next()}


def a_fresh_user_waits_a_bounded_time(lane: Lane, random: Random, *, arrivals: int) -> None:
    """All tiers backlogged: at most (free users x 21 + slots) dispatches of equal cost."""
    slots, others = random.randint(1, 4), random.randint(0, 4)
    for tier, users in (("pro", 2), ("enterprise", 2), ("free", others)):
        for user in range(users):
            for _ in range(3):
                lane.add(f"{tier}-{user}", TIERS[tier])
    for arrival in range(arrivals):
        for _ in range(random.randint(1, 2 * ROUND)):
            _serve_again(lane)
        wanted = lane.add(f"fresh-{arrival}", FREE)
        for _ in range((others + 1) * ROUND + slots):
            if _serve_again(lane) == wanted:
                break
        else:
            raise AssertionError(f"{wanted} still waits")


def a_fresh_user_waits_one_round_at_the_median(
    lane: Lane, random: Random, *, arrivals: int
) -> None:
    """With jobs of different costs, as they are, however many free users wait."""
    for tier, users in (("pro", 2), ("enterprise", 2), ("free", 8)):
        for user in range(users):
            for _ in range(3):
                lane.add(f"{tier}-{user}", TIERS[tier], random.randint(50, 150))
    waits = []
    for arrival in range(arrivals):
        for _ in range(random.randint(1, 2 * ROUND)):
            _serve_again(lane, random.randint(50, 150))
        wanted = lane.add(f"fresh-{arrival}", FREE)
        wait = 1
        while _serve_again(lane, random.randint(50, 150)) != wanted:
            wait += 1
        waits.append(wait)
    assert median(waits) <= ROUND, sorted(waits)


def _serve_again(lane: Lane, cost_ms: int = 100) -> Waiting:
    """Serves a job; its user, unless fresh, adds another."""
    job = _next(lane)
    lane.end(job)
    tier = job.user_id.split("-")[0]
    if tier != "fresh":
        lane.add(job.user_id, TIERS[tier], cost_ms)
    return job


def nobody_runs_more_than_the_limit(lane: Lane, random: Random, *, dispatches: int) -> None:
    """At every instant, also while limits change hands between many slots."""
    limits = {f"user-{number}": number + 1 for number in range(5)}
    running: dict[str, list[Waiting]] = {user: [] for user in limits}
    for user, limit in limits.items():
        for _ in range(limit + 5):
            lane.add(user, Share(1, limit % 2 * 10, 1, limit))
    for _ in range(dispatches):
        job = lane.claim()
        if job is not None:
            running[job.user_id].append(job)
            assert len(running[job.user_id]) <= limits[job.user_id]
            limit = limits[job.user_id]
            lane.add(job.user_id, Share(1, limit % 2 * 10, 1, limit))
        if job is None or random.random() < 0.5:
            some = [jobs for jobs in running.values() if jobs]
            chosen = random.choice(some)
            lane.end(chosen.pop(random.randrange(len(chosen))))


def no_loaded_model_starves_another(lane: Lane, random: Random, *, rounds: int) -> None:
    """Newcomers with a loaded model pass a waiting user only as far as the lead goes."""
    newcomers = 0
    for _ in range(rounds):
        ahead = random.randint(0, 3)
        cost = random.choice((50, 100, 200))
        for user in range(ahead):
            lane.add(f"ahead-{user}-{newcomers}", FREE, cost, OTHER)
        wanted = lane.add(f"rare-{newcomers}", FREE, cost, OTHER)
        passed = 0
        while True:
            newcomers += 1
            lane.add(f"new-{newcomers}", FREE, 50)
            job = _next(lane, (M,))
            lane.end(job)
            if job == wanted:
                break
            if job.model_key == M:
                passed += job.cost_ms
            assert passed <= (ahead + 1) * AFFINITY_LEAD * cost
        while (left := lane.claim()) is not None:
            lane.end(left)
