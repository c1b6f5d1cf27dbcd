"""Small runs: few users and workers; everything goes wrong, everything is checked at each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from bench.simulator.disciplines import Discipline
from bench.simulator.faults import Faults
from bench.simulator.invariants import Bounds, Checker, Violated
from bench.simulator.kernel import Kernel, Life, Process
from bench.simulator.observer import Observer
from bench.simulator.people import Order, Person, Plan, plans
from bench.simulator.truth import Truth
from bench.simulator.upkeep import Terms
from bench.simulator.world import Setting, World, order_ids
from easel_kit.ids import JobId, ModelKey
from scheduler.domain.policy import AFFINITY_LEAD, FairQueue

HARSH = Faults(
    crash=20,
    hang=20,
    cut=60,
    replica=30,
    flush=20,
    queue=20,
    database=20,
    fail=0.05,
    duplicate=0.1,
    delay_ms=20,
)
"""Far more than any fleet sees: something breaks every few seconds."""

_MODELS = tuple(ModelKey(name) for name in ("ink", "oil", "chalk"))
_MAX_COST_MS = 8_000
_SLACK = 3.0
"""Times the wait bound where faults repeat work and ends correct what was charged."""
_REPAIR_S = 6 * Terms().reconcile_every_s + 2 * Terms().lease_ttl_s
_CALM_S = 300.0
"""What the last faults may take to heal, before the work that is left is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a small run came to."""

    seed: int
    steps: int
    checks: int
    accepted: int
    seconds: float
    """Simulated."""


class Small:
    """One small world and its users, from a seed."""

    def __init__(
        self,
        seed: int,
        *,
        faults: Faults = HARSH,
        policy: Callable[[], Discipline] = FairQueue,
        truth: Callable[[Kernel, Observer], Truth] = Truth,
        even: bool | None = None,
        terms: Terms | None = None,
    ) -> None:
        """Size, plans and habits come from the seed.

        Args:
            seed: of everything.
            faults: what goes wrong; with none at all, plans do not change either.
            policy: who is next.
            truth: makes the store of jobs.
            even: all jobs cost the same and all workers draw everything; None: as the seed says.
            terms: times of the protocol; None: the scheduler's own.
        """
        self.seed = seed
        random = self._random = Random(seed)
        self._faults = faults
        self._even = random.random() < 0.5 if even is None else even  # noqa: PLR2004 (a coin)
        models = _MODELS[: random.randint(1, 3)]
        workers = [
            (random.randint(1, 3), frozenset(models if self._even else _some(random, models)))
            for _ in range(random.randint(2, 6))
        ]
        workers.append((1, frozenset(models)))  # whatever breaks, each job can be drawn by one
        self._models = models
        offers = list(plans().values())
        if random.random() < 0.3:  # noqa: PLR2004 (some are impatient)
            offers = [replace(plan, queue_time_s=random.uniform(5, 60)) for plan in offers]
        self._people = [
            Person(index, random.choice(offers)) for index in range(random.randint(3, 14))
        ]
        self._next_id = order_ids()
        self._life = Life()
        terms = terms or Terms(page=random.choice([1, 3, 1_000]))
        kernel = self._kernel = Kernel()
        slots = sum(slots for slots, _ in workers)
        affine = len(models) > 1 and random.random() < 0.5  # noqa: PLR2004 (a coin)
        factor = (_SLACK if faults.any else 1.0) * (1 + AFFINITY_LEAD if affine else 1)
        self.checker = Checker(
            kernel,
            Bounds(
                repair_s=_REPAIR_S,
                slots=slots,
                users=len(self._people),
                weights=sum(plan.share.weight for plan in offers),
                max_cost_ms=_MAX_COST_MS,
                wait_factor=factor if self._even else None,
            ),
        )
        self.world = World(
            Setting(workers, random.randint(1, 3), terms, faults, affine),
            policy,
            self.checker,
            kernel=kernel,
            seed=random.getrandbits(32),
            truth=truth,
        )
        for person in self._people:
            kernel.spawn(self._use(person, offers), self._life)

    def run(self, steps: int) -> Outcome:
        """Runs with faults for so many steps, then without until all jobs have ended.

        Raises:
            Violated: an invariant does not hold.
        """
        kernel, checker, world = self._kernel, self.checker, self.world

        def look() -> bool:
            checker.look(world.truth, world.line)
            return kernel.steps >= steps

        kernel.run(each=look)
        self._life.end()
        world.calm()
        taken = kernel.steps

        def drained() -> bool:
            checker.look(world.truth, world.line)
            return not world.truth.open and not world.line.rows

        left_s = sum(row.took_ms for row in world.truth.open.values()) / 1000
        if not kernel.run(kernel.now + _CALM_S + 2 * left_s, each=drained, every=50):
            raise Violated("starvation", f"open: {sorted(world.truth.open)[:5]}", kernel.now)
        checker.finish(world.truth, world.line)
        return Outcome(self.seed, taken, checker.checks, checker.accepted_count, kernel.now)

    def _use(self, person: Person, offers: list[Plan]) -> Process:
        random = Random(self._random.random())
        keen = random.expovariate(1 / 10)
        while True:
            yield random.expovariate(1 / keen)
            if self._faults.any and random.random() < 0.02:  # noqa: PLR2004 (a change of plan now and then)
                self._change_plan(person, random.choice(offers))
            orders = [self._order(random) for _ in range(random.choice([1, 1, 1, 2, 5]))]
            self.world.submit(person, orders)
            if random.random() < 0.1:  # noqa: PLR2004 (a change of mind)
                self._kernel.spawn(self._regret(orders[0].job_id), after_s=random.uniform(0, 20))

    def _change_plan(self, person: Person, plan: Plan) -> None:
        version = person.plan.share.version + 1
        person.plan = replace(plan, share=replace(plan.share, version=version))

    def _order(self, random: Random) -> Order:
        cost_ms = _MAX_COST_MS if self._even else random.randint(500, _MAX_COST_MS)
        took_ms = cost_ms if self._even else round(cost_ms * random.uniform(0.5, 1.5))
        return Order(self._next_id(), random.choice(self._models), cost_ms, took_ms)

    def _regret(self, job_id: JobId) -> Process:
        yield 0.0
        if self.world.truth.up and job_id in self.world.truth.rows:
            self.world.cancel(job_id)


def _some(random: Random, models: tuple[ModelKey, ...]) -> list[ModelKey]:
    return random.sample(models, random.randint(1, len(models)))


def command(seed: int, steps: int) -> str:
    """What a person types to see a run again."""
    return f"python -m bench.simulator check --seeds {seed} --count 1 --steps {steps}"
