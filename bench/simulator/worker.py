"""Workers: they connect, take attempts, and end them; they crash, hang and come back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Protocol

from bench.simulator.kernel import Kernel, Life, Process
from bench.simulator.network import Network, Stream
from bench.simulator.observer import Observer
from bench.simulator.people import Row
from easel_kit.ids import AttemptId, ModelKey, WorkerId
from scheduler.domain.lease import Claim, Outcome

_WELCOME_WITHIN_S = 5.0
_RETRY_S = 0.5
_MOMENT_S = 1e-6
"""The kernel's grain of time."""

_sessions = count(1)


@dataclass(frozen=True, slots=True)
class Hello:
    """A stream introduces its worker; `held` are the attempts that it works on or has ended."""

    worker: Worker
    session: int
    held: tuple[Claim, ...]
    to_worker: Stream


class Desk(Protocol):
    """A scheduler process, as workers see it."""

    life: Life

    def open(self, hello: Hello) -> Process:
        """A stream begins."""
        ...

    def cut(self, worker_id: WorkerId, session: int) -> Process:
        """A stream is gone."""
        ...

    def beat(self, worker_id: WorkerId, session: int) -> None:
        """A heartbeat."""
        ...

    def report(self, session: int, claim: Claim, outcome: Outcome, took_ms: int | None) -> Process:
        """An attempt has ended."""
        ...


@dataclass(slots=True)
class _Attempt:
    claim: Claim
    row: Row
    life: Life
    began_s: float


@dataclass(frozen=True, slots=True)
class _Ended:
    claim: Claim
    outcome: Outcome
    took_ms: int | None


class Worker:
    """One worker process after another under one id."""

    def __init__(
        self,
        worker_id: WorkerId,
        *,
        slots: int,
        models: frozenset[ModelKey],
        kernel: Kernel,
        network: Network,
        observer: Observer,
        random: Random,
        desks: Callable[[], Desk | None],
        fails: float = 0.0,
        affine: bool = False,
    ) -> None:
        """Not started.

        Args:
            worker_id: stays over restarts.
            slots: attempts at once.
            models: that it can draw with.
            kernel: the clock.
            network: to the servers.
            observer: hears how busy it is.
            random: decides which attempts fail.
            desks: finds a server to connect to.
            fails: part of its attempts that end with an error of their own.
            affine: it says which model it has loaded: that of its last attempt.
        """
        self.id = worker_id
        self.slots = slots
        self.models = models
        self.life = Life()
        self.life.end()
        self._kernel = kernel
        self._network = network
        self._observer = observer
        self._random = random
        self._desks = desks
        self._fails = fails
        self._affine = affine
        self.loaded: tuple[ModelKey, ...] = ()
        self._desk: Desk | None = None
        self._to_desk = network.stream()
        self._session = 0
        self._welcomed = False
        self._hung_until_s = 0.0
        self._running: dict[AttemptId, _Attempt] = {}
        self._unheard: dict[AttemptId, _Ended] = {}

    def start(self) -> None:
        """A fresh process, which holds nothing."""
        self.life = Life()
        self._hung_until_s = 0.0
        self._running.clear()
        self._unheard.clear()
        self._kernel.spawn(self._connect(), self.life)

    def crash(self) -> None:
        """`kill -9`: its work is gone, and its stream ends at once."""
        if not self.life.alive:
            return
        self.life.end()
        for attempt in self._running.values():
            attempt.life.end()
            self._observer.worked(attempt.row.job_id, self._kernel.now - attempt.began_s)
        self._running.clear()
        self._part()

    def hang(self, seconds: float) -> None:
        """Says and does nothing for a while, then goes on as if nothing had happened."""
        self._hung_until_s = max(self._hung_until_s, self._kernel.now + seconds)

    def cut(self, away_s: float) -> None:
        """The stream breaks; the worker comes back with what it holds."""
        if self.life.alive:
            self._part()
            self._kernel.spawn(self._connect(), self.life, after_s=away_s)

    def _part(self) -> None:
        if self._desk is not None and self._desk.life.alive:
            self._to_desk.send(self._desk.cut(self.id, self._session), self._desk.life)
        self._desk, self._session, self._welcomed = None, 0, False

    def _connect(self) -> Process:
        self._part()
        session = self._session = next(_sessions)
        while self._session == session:
            desk = self._desks()
            if desk is None:
                yield _RETRY_S
                continue
            self._desk = desk
            claims = [attempt.claim for attempt in self._running.values()]
            claims += [ended.claim for ended in self._unheard.values()]
            self._to_desk = self._network.stream()
            hello = Hello(self, session, tuple(claims), self._network.stream())
            self._to_desk.send(desk.open(hello), desk.life)
            yield _WELCOME_WITHIN_S
            if self._welcomed or self._session != session:
                return
            self._to_desk.send(desk.cut(self.id, session), desk.life)
            session = self._session = next(_sessions)

    def welcome(self, session: int, kept: Collection[AttemptId]) -> Process:
        """The stream is open; attempts that are not kept are dropped, ends not heard told again."""
        yield from self._awake()
        if self._session != session or self._welcomed:
            return
        self._welcomed = True
        for attempt_id in [one for one in self._running if one not in kept]:
            self._drop(attempt_id)
        for ended in list(self._unheard.values()):
            self._tell(ended)

    def closed(self, session: int) -> Process:
        """The server has ended the stream: the worker comes again."""
        yield 0.0
        if self._session == session:
            self._desk = None
            self.cut(_RETRY_S)

    def beat(self) -> None:
        """A heartbeat, where it can send one."""
        if self._welcomed and self.life.alive and self._hung_until_s <= self._kernel.now:
            desk = self._desk
            if desk is not None and desk.life.alive:
                desk.beat(self.id, self._session)
            else:  # the server is gone: another one is found
                self._part()
                self._kernel.spawn(self._connect(), self.life)

    def assign(self, session: int, claim: Claim, row: Row) -> Process:
        """An attempt to begin; one of a stream that is gone is not begun."""
        yield from self._awake()
        if self._session == session and claim.attempt_id not in self._running:
            attempt = _Attempt(claim, row, Life(), self._kernel.now)
            self._running[claim.attempt_id] = attempt
            if self._affine:
                self.loaded = (row.waiting.model_key,)
            self._kernel.spawn(self._draw(attempt), attempt.life)

    def _draw(self, attempt: _Attempt) -> Process:
        yield attempt.row.took_ms / 1000
        yield from self._awake()
        failed = self._fails > 0 and self._random.random() < self._fails
        self._end(attempt, Outcome.FAILED if failed else Outcome.SUCCEEDED)

    def _awake(self) -> Process:
        while (left_s := self._hung_until_s - self._kernel.now) > _MOMENT_S:
            yield left_s

    def _end(self, attempt: _Attempt, outcome: Outcome) -> None:
        claim = attempt.claim
        self._drop(claim.attempt_id)
        took_ms = attempt.row.took_ms if outcome is Outcome.SUCCEEDED else None
        ended = self._unheard[claim.attempt_id] = _Ended(claim, outcome, took_ms)
        if self._welcomed:
            self._tell(ended)

    def _drop(self, attempt_id: AttemptId) -> None:
        attempt = self._running.pop(attempt_id)
        attempt.life.end()
        self._observer.worked(attempt.row.job_id, self._kernel.now - attempt.began_s)

    def _tell(self, ended: _Ended) -> None:
        desk = self._desk
        if desk is None or not desk.life.alive:
            return
        for _ in range(2 if self._network.twice() else 1):
            report = desk.report(self._session, ended.claim, ended.outcome, ended.took_ms)
            self._to_desk.send(report, desk.life)

    def stop(self, session: int, attempt_id: AttemptId) -> Process:
        """The attempt is to stop at its next step."""
        yield from self._awake()
        attempt = self._running.get(attempt_id)
        if self._session == session and attempt is not None:
            self._end(attempt, Outcome.STOPPED)

    def acknowledged(self, session: int, attempt_id: AttemptId) -> Process:
        """The report is durable, or no longer wanted."""
        yield from self._awake()
        if self._session == session:
            self._unheard.pop(attempt_id, None)
