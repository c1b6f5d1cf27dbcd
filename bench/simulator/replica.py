"""A scheduler process: submits, claims, reports, heartbeats, and what keeps the line right.

Its steps follow `scheduler.service`: each store call is one atomic step, any delay and the death of
the process may fall between two of them. Processes of a replica share its life.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random

from bench.simulator.kernel import Kernel, Life, Process
from bench.simulator.line import Line
from bench.simulator.network import Network, Stream
from bench.simulator.people import Order, Person
from bench.simulator.truth import Truth
from bench.simulator.upkeep import Caretaker, Settler, Terms
from bench.simulator.worker import Hello, Worker
from easel_kit.errors import Conflict, DependencyDown, NotFound
from easel_kit.ids import AttemptId, JobId, ModelKey, WorkerId
from scheduler.domain.lease import Claim, Outcome, Report

_RETRY_S = 0.2
_FAREWELLS = 3


@dataclass(slots=True)
class _Held:
    claim: Claim
    reported: bool = False
    stopping: bool = False


@dataclass(slots=True, eq=False)
class Session:
    """One stream of one worker, on this side."""

    worker: Worker
    number: int
    stream: Stream
    """To the worker."""
    held: dict[AttemptId, _Held] = field(default_factory=dict)
    closed: bool = False
    woken: bool = False
    claims: bool = False
    """A process claims for it."""

    @property
    def room(self) -> int:
        """Attempts that the worker takes now."""
        return 0 if self.closed else max(0, self.worker.slots - len(self.held))

    def runs(self, attempt_id: AttemptId) -> bool:
        """The worker works on it, as far as is known, and is to go on."""
        held = self.held.get(attempt_id)
        return held is not None and not held.reported and not held.stopping


class Replica:
    """One process; after its death a fresh one takes its place."""

    def __init__(
        self,
        *,
        kernel: Kernel,
        truth: Truth,
        line: Line,
        network: Network,
        terms: Terms,
        random: Random,
    ) -> None:
        """Started, with its loops."""
        self.life = Life()
        self.sessions: dict[WorkerId, Session] = {}
        self._kernel = kernel
        self._truth = truth
        self._line = line
        self._network = network
        self._terms = terms
        self._roomy: dict[Session, None] = {}
        self._settler = Settler(truth, line, network)
        Caretaker(
            kernel=kernel, truth=truth, line=line, network=network, terms=terms, life=self.life
        ).start(random)

    # --- users ---------------------------------------------------------------------------------

    def submit(
        self, person: Person, orders: Sequence[Order], answer: Callable[[bool], None]
    ) -> Process:
        """Durable first, then in line; while the line is away the reconciler brings it there."""
        try:
            rows = self._truth.submit(person, orders)
        except DependencyDown:
            return
        if rows is not None:
            waiting = [row.admission() for row in rows if not row.state.ended]
            yield self._network.hop()
            with suppress(DependencyDown):
                self._line.admit(waiting)
        yield self._network.hop()
        answer(rows is not None)

    def cancel(self, job_id: JobId) -> Process:
        """Ends a waiting job, has a running one stopped."""
        try:
            ended = self._truth.cancel(job_id)
        except DependencyDown:
            return
        yield self._network.hop()
        with suppress(DependencyDown):  # then the loops will
            if ended:
                self._line.remove([job_id])
            else:
                self._line.stop(job_id)

    # --- workers' streams ----------------------------------------------------------------------

    def open(self, hello: Hello) -> Process:
        """See `worker.Desk`. When a store is away the worker hears nothing, and comes again."""
        session = Session(hello.worker, hello.session, hello.to_worker)
        worker_id = hello.worker.id
        try:
            there = {claim.attempt_id: claim for claim in self._line.join(worker_id, hello.session)}
            yield self._network.hop()
            named = [
                there.get(claim.attempt_id, claim)
                for claim in hello.held
                if claim.attempt_id in there or self._truth.knows(claim)
            ]
            kept = yield from self._keep(session, named)
            session.held = {
                claim.attempt_id: _Held(claim) for claim in named if claim.attempt_id in kept
            }
            names = {claim.attempt_id for claim in hello.held}
            absent = [claim for key, claim in there.items() if key not in names]
            yield from self._settler.lose(absent)
        except DependencyDown:
            return
        old = self.sessions.get(worker_id)
        if old is not None:
            if old.number > session.number:
                return
            self._close(old)
        self.sessions[worker_id] = session
        session.stream.send(hello.worker.welcome(hello.session, kept), hello.worker.life)
        self._offer(session)

    def _keep(
        self, session: Session, claims: Sequence[Claim]
    ) -> Generator[float, None, set[AttemptId]]:
        """Leaves attempts with the worker where no later one was started and the job is open."""
        kept: set[AttemptId] = set()
        if not claims:
            return kept
        rows = self._truth.still_open([claim.job_id for claim in claims])
        numbers = {job_id: row.number for job_id, row in rows.items()}
        yield self._network.hop()
        for claim in claims:
            row = rows.get(claim.job_id)
            if row is None or numbers[claim.job_id] > claim.number:
                continue
            ours = replace(claim, worker_id=session.worker.id)
            if not self._line.adopt(session.number, ours, row):
                continue
            yield self._network.hop()
            if self._truth.record(ours, revive=True):
                kept.add(claim.attempt_id)
        return kept

    def cut(self, worker_id: WorkerId, session: int) -> Process:
        """See `worker.Desk`: its work goes back in line unless the worker is back in time."""
        there = self.sessions.get(worker_id)
        if there is not None and there.number == session:
            del self.sessions[worker_id]
            self._close(there)
            if there.held:
                yield self._terms.grace_s
        for _ in range(_FAREWELLS):
            if worker_id in self.sessions:
                return
            try:
                yield from self._settler.lose(self._line.leave(worker_id, session))
            except DependencyDown:  # then the leases run out
                yield _RETRY_S
            else:
                return

    def _close(self, session: Session) -> None:
        if session.closed:
            return
        session.closed = True
        session.stream.send(session.worker.closed(session.number), session.worker.life)
        self._roomy.pop(session, None)
        self.wake(sorted(session.worker.models))

    def beat(self, worker_id: WorkerId, session: int) -> None:
        """See `worker.Desk`. Most heartbeats find all in order, and need no process."""
        there = self.sessions.get(worker_id)
        if there is None or there.number != session:
            return
        if self._network.instant:
            try:
                if len(self._line.renew(worker_id, session, there.held)) == len(there.held):
                    return
            except (DependencyDown, NotFound, Conflict):
                pass
        self._network.send(self._heartbeat(there), self.life)

    def _heartbeat(self, session: Session) -> Process:
        try:
            claims = {key: held.claim for key, held in session.held.items()}
            there = self._line.renew(session.worker.id, session.number, claims)
            yield self._network.hop()
            missing = [claim for key, claim in claims.items() if key not in there]
            yield from self._restore(session, missing)
        except NotFound:
            yield from self._rejoin(session)
        except Conflict:
            self._close(session)
        except DependencyDown:
            return  # the next heartbeat says it again

    def _restore(self, session: Session, missing: Iterable[Claim]) -> Process:
        claims = [claim for claim in missing if session.runs(claim.attempt_id)]
        kept = yield from self._keep(session, claims)
        for claim in claims:
            if claim.attempt_id not in kept and session.runs(claim.attempt_id):
                self._stop(session, claim.attempt_id)

    def _rejoin(self, session: Session) -> Process:
        with suppress(DependencyDown):
            self._line.join(session.worker.id, session.number)
            yield from self._restore(session, [held.claim for held in session.held.values()])
        self._offer(session)

    def stop(self, worker_id: WorkerId, attempt_id: AttemptId) -> Process:
        """The line says that an attempt is to stop; its worker may be elsewhere."""
        yield 0.0
        session = self.sessions.get(worker_id)
        if session is not None and session.runs(attempt_id):
            self._stop(session, attempt_id)

    def _stop(self, session: Session, attempt_id: AttemptId) -> None:
        session.held[attempt_id].stopping = True
        worker = session.worker
        session.stream.send(worker.stop(session.number, attempt_id), worker.life)

    # --- claims --------------------------------------------------------------------------------

    def wake(self, models: Iterable[ModelKey]) -> None:
        """Jobs of these models may be claimed: for each, one stream with room asks."""
        if not self._roomy:
            return
        served: frozenset[ModelKey] = frozenset()
        for model in models:
            for session in self._roomy if model not in served else ():
                if not session.woken and model in session.worker.models:
                    served |= session.worker.models
                    self._offer(session)
                    break

    def _offer(self, session: Session) -> None:
        if not session.room:
            self._roomy.pop(session, None)
            return
        self._roomy[session] = None
        session.woken = True
        if not session.claims:
            session.claims = True
            self._kernel.spawn(self._claim(session), self.life)

    def _claim(self, session: Session) -> Process:
        while session.woken and session.room:
            session.woken = False
            try:
                yield from self._claim_once(session)
            except NotFound:
                yield from self._rejoin(session)
            except Conflict:
                self._close(session)
            except DependencyDown:
                yield _RETRY_S
                session.woken = True
        session.claims = session.woken = False
        if not session.room:
            self._roomy.pop(session, None)

    def _claim_once(self, session: Session) -> Process:
        worker, limit = session.worker, session.room
        claims = self._line.claim(
            worker.id, session.number, limit, models=worker.models, loaded=worker.loaded
        )
        if len(claims) == limit:  # there may be more than this one takes
            self.wake(sorted(worker.models))
        if not claims:
            return
        yield self._network.hop()
        try:
            rows = self._truth.still_open([claim.job_id for claim in claims])
        except DependencyDown:
            self._give_back(claims)
            raise
        if session.closed:
            self._give_back(claims)
            return
        for claim in claims:
            row = rows.get(claim.job_id)
            if row is None:  # the line had not heard of its end yet
                with suppress(DependencyDown):
                    self._line.remove([claim.job_id])
                continue
            session.held[claim.attempt_id] = _Held(claim)
            session.stream.send(worker.assign(session.number, claim, row), worker.life)
            self._kernel.spawn(self._record(claim), self.life)

    def _give_back(self, claims: Iterable[Claim]) -> None:
        with suppress(DependencyDown):
            for claim in claims:
                self._line.requeue(claim, stop=False)

    def _record(self, claim: Claim) -> Process:
        """Writes a claim down, off the job's way."""
        while True:
            yield self._network.hop()
            try:
                standing = self._truth.record(claim)
            except DependencyDown:
                yield _RETRY_S
                continue
            if not standing:
                with suppress(DependencyDown):
                    self._line.remove([claim.job_id])
            return

    # --- ends of attempts ----------------------------------------------------------------------

    def report(self, session: int, claim: Claim, outcome: Outcome, took_ms: int | None) -> Process:
        """See `worker.Desk`: durable, acknowledged, and the slot freed."""
        there = self.sessions.get(claim.worker_id)
        if there is None or there.number != session:
            return
        held = there.held.get(claim.attempt_id)
        if held is not None:
            held.reported = True
        report = Report(held.claim if held else claim, outcome)
        while not there.closed:
            try:
                decided = self._truth.settle(report)
            except DependencyDown:
                yield _RETRY_S
                continue
            worker = there.worker
            there.stream.send(worker.acknowledged(session, claim.attempt_id), worker.life)
            yield self._network.hop()
            with suppress(DependencyDown):
                self._settler.follow(report.claim, decided, by_worker=True, took_ms=took_ms)
            there.held.pop(claim.attempt_id, None)
            self._offer(there)
            return
