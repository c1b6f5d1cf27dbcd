"""Submits: accepted by the database in groups, then put in line, and answered with their place.

The database decides; a queue that does not answer costs a job's position, never the call. A caller
who goes away before its group has begun takes its submission back; later it is accepted and put in
line as if the caller were still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from easel_kit.errors import DependencyDown, DomainError, InvalidInput, Overloaded
from easel_kit.group import Group
from easel_kit.ids import JobId
from scheduler.domain.job import Job, JobState, Submission
from scheduler.domain.line import Accepted, Admission, Live, seen
from scheduler.ports import JobStore, Line, Observer
from scheduler.service.fresh import Fresh

# Of a caller's deadline of some seconds, what the queue may take.
_QUEUE_WAIT_S = 1.0
# Jobs in one transaction, and in front of it: some seconds of work at most.
_MAX_GROUP = 500
_MAX_WAITING = 5_000

_Places = dict[JobId, Live]


@dataclass(frozen=True, slots=True)
class _Durable:
    """A submission that is accepted; its jobs are on their way into the line."""

    jobs: list[Job]
    places: asyncio.Future[_Places]


class Submits:
    """Concurrent submits of this process share commits and calls of the queue."""

    def __init__(
        self,
        store: JobStore,
        line: Line,
        fresh: Fresh,
        observer: Observer,
        *,
        lane: str,
        max_jobs_per_submit: int,
    ) -> None:
        """New jobs go to `line`, whose `lane` this is, and to `fresh`.

        `max_jobs_per_submit` bounds one request.
        """
        self._store = store
        self._line = line
        self._fresh = fresh
        self._observer = observer
        self._lane = lane
        self._max_jobs = max_jobs_per_submit
        self._accepting: Group[Submission, _Durable] = Group(
            self._accept,
            name="submits",
            max_weight=_MAX_GROUP,
            max_waiting=_MAX_WAITING,
            weigh=lambda submission: len(submission.jobs),
        )
        self._queueing: Group[Accepted, _Places] = Group(
            self._admit,
            name="admissions",
            max_weight=_MAX_GROUP,
            max_waiting=_MAX_WAITING,
            weigh=lambda accepted: len(accepted.jobs),
        )

    async def submit(self, submission: Submission) -> list[Job]:
        """Accepts all jobs or none; idempotent by job id.

        Raises:
            InvalidInput: no jobs, too many, or one id twice.
            RateLimited: over running + waiting.
            Conflict: a known id with another request.
            NotFound: someone else's id.
            InvalidState: an id that was given up before it came.
            Overloaded: too many submits at once.
        """
        ids = {job.id for job in submission.jobs}
        if not 1 <= len(submission.jobs) <= self._max_jobs:
            raise InvalidInput("jobs", f"must be 1 to {self._max_jobs}")
        if len(ids) < len(submission.jobs):
            raise InvalidInput("jobs", "must have an id of their own each")
        durable = await self._accepting.put(submission)
        places: _Places = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUEUE_WAIT_S):
                places = await asyncio.shield(durable.places)
        return [seen(job, places.get(job.id)) for job in durable.jobs]

    async def _accept(self, submissions: Sequence[Submission]) -> list[_Durable | Exception]:
        return [
            answer if isinstance(answer, DomainError) else self._follow(answer)
            for answer in await self._store.submit(submissions)
        ]

    def _follow(self, accepted: Accepted) -> _Durable:
        for job in accepted.jobs:
            if job.id in accepted.fresh:
                self._fresh.add(job)
                self._observer.queued(job)
        try:
            places = self._queueing.put(accepted)
        except Overloaded as error:
            self._observer.trouble("admit", error)
            places = asyncio.get_running_loop().create_future()
            places.set_result({})
        return _Durable(accepted.jobs, places)

    async def _admit(self, group: Sequence[Accepted]) -> list[_Places | Exception]:
        admissions = [
            _admission(accepted, job)
            for accepted in group
            for job in accepted.jobs
            # those of a user who is at home elsewhere are admitted there, by the reconciler
            if job.state is JobState.QUEUED and job.lane == self._lane
        ]
        opened = [job.id for accepted in group for job in accepted.jobs if not job.state.ended]
        places: _Places = {}
        try:
            async with asyncio.timeout(_QUEUE_WAIT_S):
                places = await self._line.enter(admissions, opened)
        except (DependencyDown, TimeoutError) as error:  # the reconciler admits them
            self._observer.trouble("admit", error)
        return [places] * len(group)


def _admission(accepted: Accepted, job: Job) -> Admission:
    return Admission(
        job_id=job.id,
        user_id=job.user_id,
        model_key=job.generation.model_key,
        cost_ms=job.cost_ms,
        place=job.place,
        attempts=job.attempts,
        start_by=job.start_by,
        share=accepted.share,
        front=job.front,
    )
