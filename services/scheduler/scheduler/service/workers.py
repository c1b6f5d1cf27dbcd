"""Workers' streams: welcome, what workers say, and what happens when a stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress

from easel_kit.clock import Clock
from easel_kit.errors import Conflict, DependencyDown, NotFound
from easel_kit.ids import AttemptId, WorkerId
from scheduler.domain.lease import Claim, Ended, Outcome, Report
from scheduler.domain.line import Progress
from scheduler.domain.stream import Control, Drain, Park, Resume, Stop, Welcome
from scheduler.domain.worker import Model, Worker
from scheduler.ports import AttemptStore, Leases, Line, Observer, Spawn
from scheduler.service.assign import Assigner
from scheduler.service.dispatch import Dispatch
from scheduler.service.keeper import Keeper
from scheduler.service.progress import ProgressPump
from scheduler.service.reports import Reports
from scheduler.service.session import Session
from scheduler.service.settle import Settler


class Workers:
    """The desk that workers' streams come to."""

    def __init__(
        self,
        *,
        attempts: AttemptStore,
        line: Line,
        leases: Leases,
        settler: Settler,
        keeper: Keeper,
        assigner: Assigner,
        reports: Reports,
        pump: ProgressPump,
        dispatch: Dispatch,
        observer: Observer,
        clock: Clock,
        spawn: Spawn,
        heartbeat_s: float,
        lease_ttl_s: float,
        reconnect_grace_s: float,
    ) -> None:
        """`reconnect_grace_s` is how long a worker may be without a stream and keep its work."""
        self._attempts = attempts
        self._line = line
        self._leases = leases
        self._settler = settler
        self._keeper = keeper
        self._assigner = assigner
        self._reports = reports
        self._pump = pump
        self._dispatch = dispatch
        self._observer = observer
        self._clock = clock
        self._spawn = spawn
        self._heartbeat_s = heartbeat_s
        self._lease_ttl_s = lease_ttl_s
        self._reconnect_grace_s = reconnect_grace_s
        self._stopping = False
        self._undelivered: set[AttemptId] = set()

    async def open(
        self,
        worker: Worker,
        held: Collection[AttemptId],
        *,
        parked: Collection[AttemptId] = (),
        returning: bool = False,
    ) -> Session:
        """Welcomes a stream; attempts that were not superseded stay with the worker.

        Of the `held` ones it has set `parked` aside. A `returning` process was welcomed before:
        what it was lent since and does not name has not reached it.

        Raises:
            DependencyDown: nothing can be said about the worker's attempts: it comes again.
        """
        session = Session(worker)
        if (old := self._dispatch.get(worker.id)) is not None:
            self._note_undelivered(old)
        there = {claim.attempt_id: claim for claim in await self._leases.join(worker)}
        known = dict(there)
        unknown = [attempt_id for attempt_id in held if attempt_id not in known]
        if unknown:
            known |= {claim.attempt_id: claim for claim in await self._attempts.claims(unknown)}
        named = [known[attempt_id] for attempt_id in held if attempt_id in known]
        kept = await self._keeper.keep(session, named, parked=parked)
        gone = [claim for claim in there.values() if claim.attempt_id not in held]
        await self._lose(gone, delivered=not returning)
        cancelled = await self._attempts.cancelled({claim.job_id for claim in kept})
        stopped = [claim.attempt_id for claim in kept if claim.job_id in cancelled]
        for attempt_id in stopped:
            session.held[attempt_id].stopping = True
        session.send(
            Welcome(
                heartbeat_s=self._heartbeat_s,
                lease_ttl_s=self._lease_ttl_s,
                kept=tuple(claim.attempt_id for claim in kept),
                cancelled=tuple(stopped),
            )
        )
        self._begin(session, len(kept))
        return session

    def _begin(self, session: Session, kept: int) -> None:
        worker = session.worker
        if (old := self._dispatch.add(session)) is not None:
            old.close(Conflict("another stream of this worker has taken over"))
        self._observer.worker_joined(worker, kept=kept)
        self._spawn(f"claims of {worker.id}", self._assigner.run(session))
        self._spawn(f"reports of {worker.id}", self._reports.run(session))
        if self._stopping:
            session.close()

    async def change(
        self, session: Session, *, models: tuple[Model, ...] | None = None, draining: bool
    ) -> None:
        """The worker says which models it has, or that it drains."""
        session.change(models=models, draining=draining)
        await self._with_queue(session, lambda: self._leases.update(session.worker))

    async def heartbeat(self, session: Session) -> None:
        """Extends the worker's leases; those that the queue has lost are taken up again."""
        held = [one.claim for one in session.held.values()]
        worker = session.worker

        async def renew() -> None:
            ids = [claim.attempt_id for claim in held]
            there = await self._leases.renew(worker.id, worker.session, ids)
            missing = [claim for claim in held if claim.attempt_id not in there]
            await self._keeper.restore(session, missing)

        await self._with_queue(session, renew)

    async def _with_queue(self, session: Session, action: Callable[[], Awaitable[None]]) -> None:
        try:
            try:
                await action()
            except NotFound:
                await self._keeper.rejoin(session)
        except Conflict as error:
            session.close(error)
        except DependencyDown as error:  # the next heartbeat says it again
            self._observer.trouble("heartbeat", error)

    def progress(
        self,
        session: Session,
        attempt_id: AttemptId,
        step: int,
        *,
        preview: bytes = b"",
        preview_media_type: str = "",
    ) -> None:
        """A step is done; of what the worker does not hold it is ignored."""
        held = session.held.get(attempt_id)
        if held is None or held.reported:
            return
        held.first_step_at = held.first_step_at or self._clock.now()
        self._pump.add(
            Progress(
                job_id=held.claim.job_id,
                step=min(step, held.steps),
                steps=held.steps,
                first_step_at=held.first_step_at,
                preview=preview,
                preview_media_type=preview_media_type,
            )
        )

    async def parked(self, session: Session, attempt_id: AttemptId) -> None:
        """The worker has set an attempt aside; what it does not hold, or has ended, is ignored."""
        if session.runs(attempt_id):
            held = session.held[attempt_id]
            if not held.parked:
                self._observer.parked(held.claim)
            held.parked = True
            await self._seat(session, parked=[attempt_id])

    async def resumed(self, session: Session, attempt_id: AttemptId) -> None:
        """The worker goes on with an attempt; what it does not hold, or has ended, is ignored."""
        if session.runs(attempt_id):
            held = session.held[attempt_id]
            self._observer.resumed(held.claim)
            held.parked = False
            await self._seat(session, running=[attempt_id])

    async def _seat(
        self,
        session: Session,
        *,
        parked: Collection[AttemptId] = (),
        running: Collection[AttemptId] = (),
    ) -> None:
        worker = session.worker
        await self._with_queue(
            session,
            lambda: self._leases.seat(worker.id, worker.session, parked=parked, running=running),
        )
        session.woken.set()

    def report(self, session: Session, ended: Ended) -> None:
        """An attempt has ended; it is acknowledged once that is durable."""
        session.report(ended)

    def tell(self, worker_id: WorkerId, message: Control) -> None:
        """Tells the worker, if its stream is here, unless that is out of date."""
        session = self._dispatch.get(worker_id)
        if session is None:
            return
        match message:
            case Stop(attempt_id):
                session.stop(attempt_id)
            case Drain():
                session.drain()
            case Park(attempt_id):
                session.park(attempt_id)
            case Resume(attempt_id):
                session.resume(attempt_id)

    def ended(self, session: Session) -> None:
        """The stream is gone: its work goes back in line unless the worker is back in time.

        Idempotent.
        """
        if session.gone:
            return
        session.gone = True
        session.close()
        self._note_undelivered(session)
        self._dispatch.discard(session)
        if not self._stopping:
            self._spawn(f"farewell to {session.worker.id}", self._farewell(session))

    def _note_undelivered(self, session: Session) -> None:
        self._undelivered.update(claim.attempt_id for claim in session.undelivered)

    async def _farewell(self, session: Session) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lease_ttl_s):
                await session.finished.wait()
        self._note_undelivered(session)
        unsent = session.undelivered
        worker = session.worker
        try:
            await self._lose(unsent)  # these need not wait for a worker that never had them
            if len(unsent) < len(session.held):
                await asyncio.sleep(self._reconnect_grace_s)
            if self._stopping or self._dispatch.get(worker.id) is not None:
                return
            claims = await self._leases.leave(worker.id, worker.session)
            await self._lose(claims)
        except DependencyDown as error:  # the leases run out
            self._observer.trouble("farewell", error)
        else:
            self._observer.worker_left(worker.id, lost=len(claims))
        finally:
            self._undelivered.difference_update(claim.attempt_id for claim in unsent)

    async def _lose(self, claims: Sequence[Claim], *, delivered: bool = True) -> None:
        if not claims:
            return
        live = await self._line.live({claim.job_id for claim in claims})
        reports = [
            Report(
                claim,
                self._fate(claim) if delivered else Outcome.UNDELIVERED,
                steps_done=live[claim.job_id].step if claim.job_id in live else 0,
            )
            for claim in claims
        ]
        settled = await self._settler.decide(reports)
        await self._settler.follow(settled, by_worker=False)

    def _fate(self, claim: Claim) -> Outcome:
        # an attempt that its worker never heard of is nobody's failure
        unsent = claim.attempt_id in self._undelivered
        return Outcome.UNDELIVERED if unsent else Outcome.LOST

    def shut(self) -> None:
        """The process stops: streams end well, and their workers take what they hold elsewhere."""
        self._stopping = True
        for session in self._dispatch.all():
            session.close()
