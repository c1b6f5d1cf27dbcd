"""The simulator: small runs in which everything goes wrong, and proof that its checks can fail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import pytest

from bench.simulator.disciplines import DISCIPLINES, Discipline
from bench.simulator.faults import Faults, faults, told
from bench.simulator.invariants import Violated
from bench.simulator.kernel import Kernel, Life, Process
from bench.simulator.people import Admission, Order, Person, Row, Try
from bench.simulator.small import HARSH, Small, command
from bench.simulator.truth import Truth
from bench.simulator.upkeep import Terms
from easel_kit.ids import JobId, ModelKey
from scheduler.domain.job import JobState
from scheduler.domain.lease import Outcome, Report, Verdict
from scheduler.domain.policy import FairQueue, Share, Waiting

STEPS = 3_000


@pytest.mark.parametrize("first", range(0, 30, 5))
def test_whatever_fails_the_invariants_hold(first: int) -> None:
    for seed in range(first, first + 5):
        try:
            outcome = Small(seed).run(STEPS)
        except Violated as error:
            pytest.fail(f"{error}\nagain: {command(seed, STEPS)}")
        assert outcome.checks >= STEPS
        assert outcome.accepted > 10


@pytest.mark.parametrize("seed", range(100, 108))
def test_without_faults_the_wait_bound_holds_to_the_letter(seed: int) -> None:
    Small(seed, faults=Faults(), even=True).run(STEPS)


def test_a_seed_says_everything() -> None:
    assert Small(7).run(STEPS) == Small(7).run(STEPS)
    assert Small(7).run(STEPS) != Small(8).run(STEPS)


# --- planted faults: each invariant can fail -----------------------------------------------------


def broken(
    rule: str,
    *,
    seeds: Iterable[int] = range(20),
    steps: int = STEPS,
    chosen: Faults = HARSH,
    policy: Callable[[], Discipline] = FairQueue,
    truth: type[Truth] = Truth,
    even: bool | None = None,
    terms: Terms | None = None,
) -> None:
    seen = set()
    for seed in seeds:
        try:
            small = Small(seed, faults=chosen, policy=policy, truth=truth, even=even, terms=terms)
            small.run(steps)
        except Violated as error:
            seen.add(error.rule)
            if error.rule == rule:
                return
    pytest.fail(f"no seed shows {rule!r}, only {seen}")


class AcceptsTwice(Truth):
    def decide(self, row: Row, tried: Try, report: Report) -> Verdict:
        if report.outcome is Outcome.SUCCEEDED:
            return Verdict(JobState.SUCCEEDED)
        return super().decide(row, tried, report)


def test_a_store_that_accepts_two_results_is_seen() -> None:
    broken("one result", truth=AcceptsTwice)


class EndsAgain(Truth):
    def cancel(self, job_id: JobId) -> bool:
        row = self.rows[job_id]
        self.open[job_id] = row
        self._move(row, JobState.CANCELLED)
        return True


def test_a_store_that_ends_a_job_again_is_seen() -> None:
    broken("ended once", truth=EndsAgain)


class Forgets(Truth):
    def page(self, state: JobState, *, after: int, limit: int) -> list[Admission]:
        for job_id in [job_id for job_id in self.open if job_id.endswith("7")]:
            del self.open[job_id]
        return super().page(state, after=after, limit=limit)


def test_a_store_that_loses_a_job_is_seen() -> None:
    broken("no loss", truth=Forgets)


class Miscounts(Truth):
    def submit(self, person: Person, orders: Iterable[Order]) -> list[Row] | None:
        orders = list(orders)
        rows = super().submit(person, orders)
        if len(orders) > 1 and rows:
            self.open_count[person.id] -= 1
        return rows


def test_a_count_of_open_jobs_that_drifts_is_seen() -> None:
    broken("open jobs", truth=Miscounts)


NEVER = Terms(reconcile_every_s=1e9)


def test_without_a_reconciler_a_job_is_lost_to_the_line() -> None:
    broken("no loss", terms=NEVER, chosen=Faults(queue=30, delay_ms=5))


def test_without_a_reconciler_an_ended_job_stays_in_line() -> None:
    small = Small(1, faults=Faults(), terms=NEVER)
    small.run(1_000)
    world, kernel = small.world, small.world.kernel
    ended = next(iter(world.truth.rows.values()))
    ended.waiting = replace(
        ended.waiting, job_id=JobId("late"), model_key=ModelKey("nobody draws this")
    )
    world.line.admit([Admission(ended, 0, None, 0.0)])

    def look() -> bool:
        small.checker.look(world.truth, world.line)
        return False

    with pytest.raises(Violated, match="slots"):
        kernel.run(kernel.now + 100, each=look)


class Altered(FairQueue):
    """Easel's policy with one thing wrong."""

    def alter(self, job: Waiting, share: Share) -> tuple[Waiting, Share]:
        return job, share

    def admit(self, job: Waiting, share: Share) -> None:
        super().admit(*self.alter(job, share))


class Uncapped(Altered):
    def alter(self, job: Waiting, share: Share) -> tuple[Waiting, Share]:
        return job, replace(share, max_running=1_000)


def test_a_line_that_ignores_the_limit_is_seen() -> None:
    broken("cap", policy=Uncapped)


class Backwards(Altered):
    def alter(self, job: Waiting, share: Share) -> tuple[Waiting, Share]:
        return replace(job, order=-job.order), share


def test_a_line_that_turns_a_users_jobs_round_is_seen() -> None:
    broken("order", policy=Backwards)


class Deaf(FairQueue):
    """Never serves one user while others wait."""

    def claim(
        self, models: Collection[ModelKey], *, loaded: Collection[ModelKey] = ()
    ) -> Waiting | None:
        job = super().claim(models, loaded=loaded)
        if job is not None and job.user_id == "u1":
            self.requeue(job.job_id, done=0.0)
            return None
        return job


def test_a_line_that_is_deaf_to_a_user_is_seen() -> None:
    broken("starvation", policy=Deaf, even=False)


@pytest.mark.parametrize("name", ["priority", "fifo"])
def test_disciplines_that_starve_are_seen(name: str) -> None:
    broken("wait", policy=DISCIPLINES[name], chosen=Faults(), even=True)


class LendsTwice(FairQueue):
    def claim(
        self, models: Collection[ModelKey], *, loaded: Collection[ModelKey] = ()
    ) -> Waiting | None:
        job = super().claim(models, loaded=loaded)
        self._twice = job or getattr(self, "_twice", None)
        return self._twice


def test_a_line_that_lends_a_job_twice_is_seen() -> None:
    broken("one lease", policy=LendsTwice)


# --- parts ---------------------------------------------------------------------------------------


def test_a_process_stops_with_its_life() -> None:
    kernel, life, seen = Kernel(), Life(), list[float]()

    def process() -> Process:
        while True:
            yield 1.0
            seen.append(kernel.now)

    def death() -> Process:
        yield 2.5
        life.end()

    kernel.spawn(process(), life)
    kernel.spawn(death())
    kernel.run(10)
    assert seen == [1.0, 2.0]
    assert kernel.now == 10


def test_faults_are_read_and_told() -> None:
    assert faults("none") == Faults()
    assert faults("crash=0.5,flush=2") == Faults(crash=0.5, flush=2)
    assert faults(told(HARSH)) == HARSH
    with pytest.raises(ValueError, match="unknown fault 'fire'"):
        faults("fire=1")
