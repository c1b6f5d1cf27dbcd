"""Large runs: a whole fleet over a trace, under one discipline, with what it was like."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from bench.simulator.disciplines import DISCIPLINES
from bench.simulator.faults import Faults, told
from bench.simulator.invariants import Bounds, Checker
from bench.simulator.kernel import Kernel, Process
from bench.simulator.observer import Observer, Observers
from bench.simulator.people import Order, Person, Plan, Row, plans
from bench.simulator.tally import Tally, jain
from bench.simulator.trace import HABITS, KINDS, Trace, draw_jobs, trace
from bench.simulator.truth import Truth
from bench.simulator.upkeep import Terms
from bench.simulator.world import Setting, World, order_ids
from easel_kit.ids import JobId
from scheduler.domain.job import JobState

_HOUR_S = 3_600.0
_LOOK_EVERY = 500_000
"""Steps between looks at everything; events are checked as they come."""
_KEPT_S = 900.0
_RECONCILE_S = 300.0
"""Reconciling reads all open jobs: seldom enough here, where it is not what is measured."""
_REPAIR_S = 3 * _RECONCILE_S
_POOL = 1_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a large run is asked for."""

    gpus: int = 200
    users: int = 200_000
    hours: float = 6.0
    from_hour: float = 15.0
    load: float = 0.8
    seed: int = 1
    discipline: str = "easel"
    capped: bool = True
    """Running jobs of a user are limited by the plan."""
    eager: Mapping[str, int] = field(default_factory=dict)
    """By plan, users more who keep as many jobs open as they may."""
    faults: Faults = field(default_factory=Faults)


class Day:
    """One large run."""

    def __init__(self, scenario: Scenario) -> None:
        """Draws the trace and builds the world."""
        self._scenario = scenario
        self._began_s = time.perf_counter()
        self._trace: Trace = trace(
            seed=scenario.seed,
            gpus=scenario.gpus,
            users=scenario.users,
            hours=scenario.hours,
            from_hour=scenario.from_hour,
            load=scenario.load,
        )
        self._plans = {name: _uncapped(plan, scenario.capped) for name, plan in plans().items()}
        self._people: dict[int, Person] = {}
        self._next_id = order_ids()
        kernel = self._kernel = Kernel()
        self._first_eager = max(self._trace.first_user.values()) + scenario.users
        total = self._first_eager + sum(scenario.eager.values())
        self._tally = Tally(kernel, list(self._plans), total)
        self._eager = _Eager(kernel, np.random.default_rng(scenario.seed + 1), self._next_id)
        weights = sum(plan.share.weight for plan in self._plans.values())
        self._checker = Checker(
            kernel, Bounds(_REPAIR_S, scenario.gpus, total, weights, 1, wait_factor=None)
        )
        models = frozenset(kind.model_key for kind in KINDS)
        self._world = World(
            Setting(
                [(1, models)] * scenario.gpus,
                terms=Terms(reconcile_every_s=_RECONCILE_S, page=1_000_000),
                faults=scenario.faults,
            ),
            DISCIPLINES[scenario.discipline],
            Observers([self._checker, self._tally, self._eager]),
            kernel=kernel,
            seed=scenario.seed,
            truth=partial(Truth, kept_s=_KEPT_S),
        )
        self._eager.world = self._world

    def run(self) -> dict[str, Any]:
        """Runs to the end of the trace and on until all jobs have ended; answers the results.

        Raises:
            Violated: an invariant does not hold.
        """
        scenario, kernel, world = self._scenario, self._kernel, self._world
        kernel.spawn(self._arrive())
        index = self._first_eager
        for name, number in scenario.eager.items():
            for _ in range(number):
                self._eager.begin(Person(index, self._plans[name]))
                index += 1
        ends_s = scenario.hours * _HOUR_S
        kernel.run(ends_s, each=self._look, every=_LOOK_EVERY)
        busy = self._tally.busy_s / (scenario.gpus * ends_s)
        found = self._tally.results()
        shares = self._tally.served_by_user_s(self._first_eager).tolist()
        self._eager.stop()
        world.calm()

        def drained() -> bool:
            return not world.truth.open and not world.line.rows

        kernel.run(each=drained, every=1_000)
        self._checker.finish(world.truth, world.line)
        after = self._tally.results()
        return {
            "scenario": asdict(scenario)
            | {"faults": told(scenario.faults), "eager": dict(scenario.eager)},
            "busy": busy,
            "tiers": {name: after[name] | {"share": found[name]["share"]} for name in after},
            "eager": self._eager_results(shares),
            "accepted": self._checker.accepted_count,
            "ended": self._checker.ended_count,
            "looks": self._checker.checks,
            "steps": kernel.steps,
            "took_s": time.perf_counter() - self._began_s,
        }

    def _eager_results(self, served_s: list[float]) -> dict[str, dict[str, float]]:
        found, first = {}, 0
        for name, number in self._scenario.eager.items():
            mine = np.array(served_s[first : first + number])
            found[name] = {"served_s": float(mine.sum()), "jain": jain(mine)}
            first += number
        return found

    def _look(self) -> bool:
        world, kernel, scenario = self._world, self._kernel, self._scenario
        self._checker.look(world.truth, world.line)
        print(
            f"{scenario.discipline}: hour {kernel.now / _HOUR_S:.1f} of {scenario.hours:g}, "
            f"{len(world.truth.open)} jobs open, {kernel.steps / 1e6:.1f} million steps, "
            f"{time.perf_counter() - self._began_s:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        return False

    def _arrive(self) -> Process:
        for one in self._trace:
            if one.at_s > self._kernel.now:
                yield one.at_s - self._kernel.now
            person = self._people.get(one.user)
            if person is None:
                plan = self._plans[self._trace.plan_of(one.user)]
                person = self._people[one.user] = Person(one.user, plan)
            order = Order(self._next_id(), KINDS[one.kind].model_key, one.cost_ms, one.took_ms)
            self._world.submit(person, [order])


class _Eager(Observer):
    """Users who keep as many jobs open as their plan allows."""

    world: World

    def __init__(
        self, kernel: Kernel, random: np.random.Generator, next_id: Callable[[], JobId]
    ) -> None:
        """None yet."""
        self._kernel = kernel
        self._random = random
        self._next_id = next_id
        self._people: set[int] = set()
        self._jobs: dict[str, list[tuple[int, int, int]]] = {}

    def begin(self, person: Person) -> None:
        """One more, who starts within the first minute."""
        self._people.add(person.index)
        self._kernel.spawn(self._fill(person), after_s=float(self._random.uniform(0, 60)))

    def stop(self) -> None:
        """They submit no more."""
        self._people.clear()

    def moved(self, row: Row, old: JobState) -> None:
        """See `Observer`."""
        del old
        if row.state.ended and row.person.index in self._people:
            self.world.submit(row.person, [self._order(row.person.plan)])

    def _fill(self, person: Person) -> Process:
        yield 0.0
        for _ in range(person.plan.max_open):
            self.world.submit(person, [self._order(person.plan)])

    def _order(self, plan: Plan) -> Order:
        pool = self._jobs.setdefault(plan.name, [])
        if not pool:
            columns = draw_jobs(self._random, HABITS[plan.name], _POOL)
            pool.extend(zip(*(column.tolist() for column in columns), strict=True))
        kind, cost_ms, took_ms = pool.pop()
        return Order(self._next_id(), KINDS[kind].model_key, cost_ms, took_ms)


def _uncapped(plan: Plan, capped: bool) -> Plan:  # noqa: FBT001 (one caller)
    if capped:
        return plan
    return replace(plan, share=replace(plan.share, max_running=plan.max_open))
