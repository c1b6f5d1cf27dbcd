"""Which of the running jobs step next. Pure: it reads jobs and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gpu_worker.engine.job import JobState


class Policy(Protocol):
    """Chooses the jobs of one forward."""

    def select(self, jobs: Sequence[JobState]) -> Sequence[JobState]:
        """At least one of `jobs` (never empty), all of one model and latent shape."""
        ...


class RoundRobin:
    """One job a forward, the one that has waited longest; ties go to the older job."""

    def select(self, jobs: Sequence[JobState]) -> Sequence[JobState]:
        """The job that stepped longest ago."""
        return [min(jobs, key=lambda job: job.last_turn)]
