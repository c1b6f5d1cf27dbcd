"""Sends waiting jobs to workers with room, each under a lease."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from easel_kit.errors import Conflict, DependencyDown, NotFound
from easel_kit.ids import JobId
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import Job
from scheduler.domain.lease import Claim
from scheduler.ports import AttemptStore, Leases, Line, Observer
from scheduler.service.dispatch import Dispatch
from scheduler.service.fresh import Fresh
from scheduler.service.keeper import Keeper
from scheduler.service.recorder import Recorder
from scheduler.service.session import Session

# A queue that opens again calls all sessions; the database comes back without a word.
_PAUSE = Backoff(0.2, 2.0)
# Bounds one script's work.
_MAX_CLAIMS = 32


class Assigner:
    """Claims for sessions, one claim at a time for each."""

    def __init__(
        self,
        *,
        attempts: AttemptStore,
        fresh: Fresh,
        line: Line,
        leases: Leases,
        keeper: Keeper,
        recorder: Recorder,
        dispatch: Dispatch,
        observer: Observer,
    ) -> None:
        """Knows what to draw from `fresh` or reads it from `attempts`.

        Claims that cannot be sent go back to `line`.
        """
        self._attempts = attempts
        self._fresh = fresh
        self._line = line
        self._leases = leases
        self._keeper = keeper
        self._recorder = recorder
        self._dispatch = dispatch
        self._observer = observer

    async def run(self, session: Session) -> None:
        """Claims whenever the session is woken, until it is closed."""
        failures = 0
        with session.work():
            while not session.closed:
                await session.woken.wait()
                session.woken.clear()
                session.called.clear()
                try:
                    await self._claim_or_rejoin(session)
                except Conflict as error:
                    session.close(error)
                except DependencyDown as error:
                    self._observer.trouble("claim", error)
                    failures += 1
                    await self._pause(session, failures)
                else:
                    failures = 0
            self._dispatch.wake(session.models)  # a wake-up that came too late goes to another

    async def _claim_or_rejoin(self, session: Session) -> None:
        try:
            await self._claim(session)
        except NotFound:
            await self._keeper.rejoin(session)

    async def _pause(self, session: Session, failures: int) -> None:
        """Until the session is called, or it is time to try all the same.

        A wake-up is not enough: what could not be sent and goes back in line wakes as well.
        """
        pause_s = _PAUSE.delay_s(failures, random.random())  # noqa: S311 (jitter, no secret)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await session.called.wait()
        session.woken.set()

    async def _claim(self, session: Session) -> None:
        count = min(session.room, _MAX_CLAIMS)
        if not count or not session.models:
            self._dispatch.wake(session.models)
            return
        worker = session.worker
        claims = await self._leases.claim(
            worker.id, worker.session, session.models, count, loaded=worker.loaded_models
        )
        if claims:
            await self._send(session, claims)
        if len(claims) == count:  # there may be more than this one takes
            self._dispatch.wake(session.models)

    async def _send(self, session: Session, claims: Sequence[Claim]) -> None:
        try:
            jobs = await self._jobs({claim.job_id for claim in claims})
        except DependencyDown:
            await self._give_back(claims)
            raise
        if session.closed:
            await self._give_back(claims)
            return
        ended = []
        for claim in claims:
            job = jobs.get(claim.job_id)
            if job is None:
                ended.append(claim.job_id)
                continue
            session.assign(claim, job)
            self._recorder.add(claim)
            waited_s = (claim.claimed_at - job.queued_at).total_seconds()
            self._observer.claimed(claim, waited_s=waited_s, traceparent=job.traceparent)
        if ended:  # the queue had not heard of it yet
            await self._line.remove(ended)

    async def _jobs(self, job_ids: set[JobId]) -> dict[JobId, Job]:
        """Those of the jobs that are open, as far as is known here."""
        jobs = self._fresh.take(job_ids)
        if unknown := job_ids.difference(jobs):
            jobs |= await self._attempts.open(unknown)
        return jobs

    async def _give_back(self, claims: Sequence[Claim]) -> None:
        # nobody has seen these attempts: no row of them, no try counted
        for claim in claims:
            await self._line.requeue(claim, stop=False)
