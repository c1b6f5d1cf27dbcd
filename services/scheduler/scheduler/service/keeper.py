"""Which attempts a worker keeps when its leases are in doubt: a new stream, an emptied queue."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from easel_kit.ids import AttemptId, JobId
from scheduler.domain.job import Job
from scheduler.domain.lease import Claim
from scheduler.ports import AttemptStore, Leases
from scheduler.service.session import Session


class Keeper:
    """Compares what a worker holds with the database and the queue."""

    def __init__(self, attempts: AttemptStore, leases: Leases) -> None:
        """The database says which jobs are open, the queue which attempts stand."""
        self._attempts = attempts
        self._leases = leases

    async def keep(
        self, session: Session, claims: Sequence[Claim], *, parked: Collection[AttemptId] = ()
    ) -> list[Claim]:
        """Leaves attempts with the worker where no later one was started and the job is open.

        Those are held by the session on return, and written down once more: the record may have
        been lost, or the attempt given up meanwhile. The worker has set `parked` ones aside.
        """
        jobs, standing = await self._adopt(session, claims)
        for claim in standing:
            session.hold(claim, jobs[claim.job_id].steps)
            session.held[claim.attempt_id].parked |= claim.attempt_id in parked
        await self._seat(session, standing)
        return standing

    async def _adopt(
        self, session: Session, claims: Sequence[Claim]
    ) -> tuple[dict[JobId, Job], list[Claim]]:
        if not claims:
            return {}, []
        jobs = await self._attempts.open({claim.job_id for claim in claims})
        admissions = await self._attempts.admissions(jobs)
        by_job = {admission.job_id: admission for admission in admissions}
        kept = []
        for claim in claims:
            admission = by_job.get(claim.job_id)
            if admission is None or admission.attempts > claim.number:
                continue
            ours = replace(claim, worker_id=session.worker.id)
            if await self._leases.adopt(session.worker.session, replace(admission, claim=ours)):
                kept.append(ours)
        ended = set(await self._attempts.record(kept, revive=True)) if kept else set()
        return jobs, [claim for claim in kept if claim.attempt_id not in ended]

    async def _seat(self, session: Session, claims: Sequence[Claim]) -> None:
        worker = session.worker
        if not worker.can_park or not claims:
            return
        ids = [claim.attempt_id for claim in claims]
        parked = [one for one in ids if session.held[one].parked]
        running = [one for one in ids if one not in parked]
        await self._leases.seat(worker.id, worker.session, parked=parked, running=running)

    async def restore(self, session: Session, missing: Sequence[Claim]) -> None:
        """Takes leases up again that the queue does not know; stops attempts that were superseded.

        Attempts that were reported or told to stop meanwhile are left alone; one that has ended
        meanwhile is not held again, so that nobody renews the lease it was given.
        """
        claims = [claim for claim in missing if session.runs(claim.attempt_id)]
        _, standing = await self._adopt(session, claims)
        kept = {claim.attempt_id for claim in standing}
        await self._seat(session, [one for one in standing if one.attempt_id in session.held])
        for claim in claims:
            if claim.attempt_id not in kept:
                session.stop(claim.attempt_id)

    async def rejoin(self, session: Session) -> None:
        """The queue has forgotten the worker: introduces it again, with what it holds."""
        await self._leases.join(session.worker)
        await self.restore(session, [held.claim for held in session.held.values()])
        session.woken.set()
