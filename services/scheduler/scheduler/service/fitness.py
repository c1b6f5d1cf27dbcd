"""Keeps work from workers that say of themselves that they cannot go on.

A small circuit breaker for each stream. A worker that failed an attempt for a reason of its own
rests: it is offered nothing for a pause that grows with each such failure since its last success.
After the pause it is on trial, one attempt at a time, until one succeeds. So a sick worker does not
use up the tries of every job of its lane. Where no other connected worker has any of its models it
is the only hope of their jobs, and its pause does not grow beyond the first.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from easel_kit.errors import DependencyDown
from scheduler.domain.backoff import Backoff
from scheduler.domain.lease import Outcome
from scheduler.ports import Observer, Registry, Spawn
from scheduler.service.session import Session


class Fitness:
    """The breakers of all sessions of this process."""

    def __init__(
        self, registry: Registry, observer: Observer, spawn: Spawn, *, pause: Backoff
    ) -> None:
        """`registry` knows which other workers there are."""
        self._registry = registry
        self._observer = observer
        self._spawn = spawn
        self._pause = pause

    async def note(self, session: Session, outcome: Outcome) -> None:
        """One of the worker's attempts ended like this."""
        if outcome is Outcome.SUCCEEDED:
            session.trust()
        elif outcome is Outcome.UNFIT and not session.resting:  # what it held besides adds nothing
            session.rest()
            failures = session.unfit if await self._has_company(session) else 1
            pause_s = self._pause.delay_s(failures, random.random())  # noqa: S311 (jitter, no secret)
            self._observer.worker_rests(session.worker.id, pause_s=pause_s)
            self._spawn(f"rest of {session.worker.id}", self._try_again(session, pause_s))

    async def _has_company(self, session: Session) -> bool:
        own = set(session.models)
        try:
            workers = [status.worker for status in await self._registry.workers()]
        except DependencyDown as error:
            self._observer.trouble("fitness", error)
            return True
        return any(
            worker.id != session.worker.id
            and not worker.draining
            and own.intersection(worker.usable_models)
            for worker in workers
        )

    @staticmethod
    async def _try_again(session: Session, pause_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await session.finished.wait()
        session.try_again()
