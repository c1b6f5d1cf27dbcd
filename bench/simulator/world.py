"""A whole scheduler with its workers and users, put together from one seed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from bench.simulator.disciplines import Discipline
from bench.simulator.faults import Faults, recurring
from bench.simulator.kernel import Kernel, Life, Process
from bench.simulator.line import Line
from bench.simulator.network import Network
from bench.simulator.observer import Observer
from bench.simulator.people import Order, Person
from bench.simulator.replica import Replica
from bench.simulator.truth import Truth
from bench.simulator.upkeep import Terms
from bench.simulator.worker import Worker
from easel_kit.ids import AttemptId, JobId, ModelKey, WorkerId

_ANSWER_WITHIN_S = 2.0
_PULSES = 10
"""Parts of a heartbeat: workers beat in so many groups, one after the other."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How large the world is, and what goes wrong in it."""

    workers: Sequence[tuple[int, frozenset[ModelKey]]]
    """Slots and models of each."""
    replicas: int = 2
    terms: Terms = field(default_factory=Terms)
    faults: Faults = field(default_factory=Faults)
    affine: bool = False
    """Workers are offered work for the model that they have loaded first."""


class World:
    """All parts of a run."""

    def __init__(
        self,
        setting: Setting,
        policy: Callable[[], Discipline],
        observer: Observer,
        *,
        kernel: Kernel,
        seed: int,
        truth: Callable[[Kernel, Observer], Truth] = Truth,
    ) -> None:
        """Everything is started at time zero; `truth` makes the store of jobs."""
        self.kernel = kernel
        self.truth = truth(kernel, observer)
        self.line = Line(kernel, observer, policy, lease_ttl_s=setting.terms.lease_ttl_s)
        self.line.on_wake = self._wake
        self.line.on_stop = self._stop
        self._setting = setting
        self._random = Random(seed)
        faults = setting.faults
        self._network = Network(
            kernel,
            Random(self._random.random()),
            delay_s=faults.delay_ms / 1000,
            duplicate=faults.duplicate,
        )
        self._replicas = [self._replica() for _ in range(setting.replicas)]
        self._workers = [
            self._worker(index, slots, models, observer)
            for index, (slots, models) in enumerate(setting.workers)
        ]
        self._fate = Life()
        self._attack()
        for group in range(_PULSES):
            kernel.spawn(self._pulse(group))

    def _replica(self) -> Replica:
        return Replica(
            kernel=self.kernel,
            truth=self.truth,
            line=self.line,
            network=self._network,
            terms=self._setting.terms,
            random=Random(self._random.random()),
        )

    def _worker(
        self, index: int, slots: int, models: frozenset[ModelKey], observer: Observer
    ) -> Worker:
        worker = Worker(
            WorkerId(f"w{index}"),
            slots=slots,
            models=models,
            kernel=self.kernel,
            network=self._network,
            observer=observer,
            random=Random(self._random.random()),
            desks=self.pick,
            fails=self._setting.faults.fail,
            affine=self._setting.affine,
        )
        worker.start()
        return worker

    def pick(self) -> Replica | None:
        """Some replica that lives."""
        alive = [replica for replica in self._replicas if replica.life.alive]
        return self._random.choice(alive) if alive else None

    def _pulse(self, group: int) -> Process:
        beat_s = self._setting.terms.heartbeat_s
        workers = self._workers[group::_PULSES]
        yield beat_s * (group + 1) / _PULSES
        while True:
            for worker in workers:
                worker.beat()
            yield beat_s

    def _wake(self, models: Collection[ModelKey]) -> None:
        for replica in self._replicas:
            if not replica.life.alive:
                continue
            if self._network.instant:
                replica.wake(models)
            else:
                self._network.send(_later(replica.wake, tuple(models)), replica.life)

    def _stop(self, worker_id: WorkerId, attempt_id: AttemptId) -> None:
        for replica in self._replicas:
            if replica.life.alive:
                self._network.send(replica.stop(worker_id, attempt_id), replica.life)

    # --- users ---------------------------------------------------------------------------------

    def submit(
        self,
        person: Person,
        orders: Sequence[Order],
        then: Callable[[bool], None] | None = None,
    ) -> None:
        """A user submits jobs, again until there is an answer; `then` hears whether accepted."""
        self.kernel.spawn(self._submit(person, orders, then))

    def _submit(
        self, person: Person, orders: Sequence[Order], then: Callable[[bool], None] | None
    ) -> Process:
        answers: list[bool] = []
        while not answers:
            replica = self.pick()
            if replica is not None:
                for _ in range(2 if self._network.twice() else 1):
                    self._network.send(replica.submit(person, orders, answers.append), replica.life)
            yield _ANSWER_WITHIN_S
        if then is not None:
            then(answers[0])

    def cancel(self, job_id: JobId) -> None:
        """A user wants a job no more; the wish may get lost."""
        replica = self.pick()
        if replica is not None:
            self._network.send(replica.cancel(job_id), replica.life)

    # --- faults --------------------------------------------------------------------------------

    def _attack(self) -> None:
        rates = self._setting.faults
        workers = len(self._workers)
        for per_hour, strike in (
            (rates.crash * workers, self._crash),
            (rates.hang * workers, self._hang),
            (rates.cut * workers, self._cut),
            (rates.replica, self._kill_replica),
            (rates.flush, self._flush),
            (rates.queue, self._lose_queue),
            (rates.database, self._lose_database),
        ):
            recurring(self.kernel, Random(self._random.random()), per_hour, strike, self._fate)

    def _seconds(self, mean_s: float) -> float:
        return self._random.expovariate(1 / mean_s)

    def _crash(self) -> Process:
        worker = self._random.choice(self._workers)
        if worker.life.alive:
            worker.crash()
            yield self._seconds(10)
            worker.start()

    def _hang(self) -> Process:
        self._random.choice(self._workers).hang(self._seconds(15))
        yield 0.0

    def _cut(self) -> Process:
        self._random.choice(self._workers).cut(self._seconds(1))
        yield 0.0

    def _kill_replica(self) -> Process:
        place = self._random.randrange(len(self._replicas))
        if self._replicas[place].life.alive:
            self._replicas[place].life.end()
            yield self._seconds(5)
            self._replicas[place] = self._replica()

    def _flush(self) -> Process:
        self.line.flush()
        yield 0.0

    def _lose_queue(self) -> Process:
        if self.line.up:
            self.line.go(up=False)
            yield self._seconds(10)
            self.line.go(up=True)

    def _lose_database(self) -> Process:
        if self.truth.up:
            self.truth.up = False
            yield self._seconds(5)
            self.truth.up = True

    def calm(self) -> None:
        """No more faults from now on; what is broken heals by itself."""
        self._fate.end()


def _later(action: Callable[[Iterable[ModelKey]], None], models: Iterable[ModelKey]) -> Process:
    yield 0.0
    action(models)


def order_ids() -> Callable[[], JobId]:
    """Ids of jobs, in order."""
    numbers = count(1)
    return lambda: JobId(f"j{next(numbers)}")
