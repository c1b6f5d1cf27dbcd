"""Jobs that this process has just accepted, so that sending them to workers reads nothing again."""

from __future__ import annotations

from collections.abc import Iterable

from easel_kit.ids import JobId
from scheduler.domain.job import Job

_MAX_JOBS = 4_096


class Fresh:
    """The latest of them, until they are taken once.

    What a job asks for never changes. That one has ended meanwhile is noticed as for any other
    job: the queue is told, and where it was not, the record of the claim finds out.
    """

    def __init__(self) -> None:
        """None yet."""
        self._jobs: dict[JobId, Job] = {}

    def add(self, job: Job) -> None:
        """Keeps a job; the oldest makes room."""
        if len(self._jobs) >= _MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]
        self._jobs[job.id] = job

    def take(self, job_ids: Iterable[JobId]) -> dict[JobId, Job]:
        """Those of the jobs that are here, by id; from now on they are not."""
        found = {}
        for job_id in job_ids:
            if (job := self._jobs.pop(job_id, None)) is not None:
                found[job_id] = job
        return found
