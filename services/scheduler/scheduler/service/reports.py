"""What workers say about the ends of attempts: durable, acknowledged, and the slot freed."""

from __future__ import annotations

import asyncio

from easel_kit.errors import DependencyDown
from scheduler.domain.lease import Ended, Report
from scheduler.domain.stream import Acknowledged
from scheduler.ports import AttemptStore, Observer
from scheduler.service.fitness import Fitness
from scheduler.service.session import Session
from scheduler.service.settle import Settler

_RETRY_S = 0.1
_MAX_RETRY_S = 2.0


class Reports:
    """Deals with the reports of sessions, one at a time for each, in order."""

    def __init__(
        self, attempts: AttemptStore, settler: Settler, fitness: Fitness, observer: Observer
    ) -> None:
        """`attempts` knows claims of streams before."""
        self._attempts = attempts
        self._settler = settler
        self._fitness = fitness
        self._observer = observer

    async def run(self, session: Session) -> None:
        """Works off reports until the session is closed."""
        with session.work():
            while (ended := await session.reports.get()) is not None:
                await self._deliver(session, ended)
            session.close()

    async def _deliver(self, session: Session, ended: Ended) -> None:
        pause_s = _RETRY_S
        while True:
            try:
                await self._settle(session, ended)
            except DependencyDown as error:
                self._observer.trouble("report", error)
            else:
                return
            if session.closed:  # the worker tells it again on its next stream
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_RETRY_S)

    async def _settle(self, session: Session, ended: Ended) -> None:
        report = await self._complete(session, ended)
        if report is None:
            session.send(Acknowledged(ended.attempt_id, accepted=False))
            return
        (settled,) = await self._settler.decide([report])
        session.send(Acknowledged(ended.attempt_id, settled.accepted))
        await self._fitness.note(session, ended.outcome)
        await self._settler.follow([settled], by_worker=True, took_ms=ended.total_ms)
        session.drop(ended.attempt_id)

    async def _complete(self, session: Session, ended: Ended) -> Report | None:
        held = session.held.get(ended.attempt_id)
        if held is not None:
            return ended.of(held.claim, held.first_step_at)
        for claim in await self._attempts.claims([ended.attempt_id]):
            return ended.of(claim, None)
        return None
