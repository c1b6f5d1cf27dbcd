"""What workers say about the ends of attempts: durable, acknowledged, and the slot freed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from easel_kit.errors import DependencyDown
from easel_kit.ids import AttemptId
from scheduler.domain.lease import Ended, Report
from scheduler.domain.stream import Acknowledged
from scheduler.ports import AttemptStore, Observer
from scheduler.service.fitness import Fitness
from scheduler.service.recorder import Recorder
from scheduler.service.session import Session
from scheduler.service.settle import Settler

_RETRY_S = 0.1
_MAX_RETRY_S = 2.0


class Reports:
    """Deals with the reports of sessions, for each in order and all that have come together."""

    def __init__(
        self,
        attempts: AttemptStore,
        settler: Settler,
        recorder: Recorder,
        fitness: Fitness,
        observer: Observer,
    ) -> None:
        """`attempts` knows claims of streams before; `recorder` need not write what has ended."""
        self._attempts = attempts
        self._settler = settler
        self._recorder = recorder
        self._fitness = fitness
        self._observer = observer

    async def run(self, session: Session) -> None:
        """Works off reports until the session is closed."""
        with session.work():
            while ended := await session.told():
                await self._deliver(session, ended)
            session.close()

    async def _deliver(self, session: Session, ended: Sequence[Ended]) -> None:
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

    async def _settle(self, session: Session, ended: Sequence[Ended]) -> None:
        reports = await self._complete(session, ended)
        settled = await self._settler.decide(list(reports.values())) if reports else []
        self._recorder.drop(reports)
        accepted = {one.claim.attempt_id for one in settled if one.claim and one.accepted}
        for one in ended:
            session.send(Acknowledged(one.attempt_id, accepted=one.attempt_id in accepted))
        for one in ended:
            if one.attempt_id in reports:
                await self._fitness.note(session, one.outcome)
        took_ms = {one.attempt_id: one.total_ms for one in ended}
        await self._settler.follow(settled, by_worker=True, took_ms=took_ms)
        for one in ended:
            session.drop(one.attempt_id)

    async def _complete(self, session: Session, ended: Sequence[Ended]) -> dict[AttemptId, Report]:
        """The reports by attempt, without those of attempts that nobody knows."""
        unknown = [one.attempt_id for one in ended if one.attempt_id not in session.held]
        known = await self._attempts.claims(unknown) if unknown else []
        claims = {claim.attempt_id: claim for claim in known}
        reports = {}
        for one in ended:
            if (held := session.held.get(one.attempt_id)) is not None:
                reports[one.attempt_id] = one.of(held.claim, held.first_step_at)
            elif (claim := claims.get(one.attempt_id)) is not None:
                reports[one.attempt_id] = one.of(claim, None)
        return reports
