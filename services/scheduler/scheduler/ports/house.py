"""What use cases need besides stores: who is told, and who runs things in the background."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from easel_kit.ids import WorkerId
from scheduler.domain.job import Job
from scheduler.domain.lease import Claim, Settled
from scheduler.domain.line import Depth
from scheduler.domain.load import Load, Reading
from scheduler.domain.worker import Worker


class Publisher(Protocol):
    """A service outside that scales the lane."""

    async def publish(self, readings: Sequence[Reading]) -> None:
        """Tells it; what it does not hear is told newer the next time."""
        ...


class Observer(Protocol):
    """Where use cases tell what happened: logs, metrics, traces."""

    def queued(self, job: Job) -> None:
        """A job was accepted."""
        ...

    def claimed(self, claim: Claim, *, waited_s: float, traceparent: str) -> None:
        """A worker was sent a job."""
        ...

    def settled(self, settled: Settled) -> None:
        """An attempt, or a waiting job, has ended."""
        ...

    def cancel_requested(self, job: Job) -> None:
        """A user asked to stop a job."""
        ...

    def parked(self, claim: Claim) -> None:
        """An attempt was set aside for a job of a higher priority."""
        ...

    def resumed(self, claim: Claim) -> None:
        """An attempt that was set aside goes on."""
        ...

    def worker_joined(self, worker: Worker, *, kept: int) -> None:
        """A worker's stream was welcomed."""
        ...

    def worker_left(self, worker_id: WorkerId, *, lost: int) -> None:
        """A worker's stream ended and did not come back."""
        ...

    def worker_rests(self, worker_id: WorkerId, *, pause_s: float) -> None:
        """A worker could not go on and is offered nothing for a while."""
        ...

    def trouble(self, what: str, error: Exception) -> None:
        """Something outside did not answer; it will be tried again."""
        ...

    def rebuilt(self, count: int, *, took_s: float) -> None:
        """The queue was lost and holds so many open jobs again."""
        ...

    def repaired(self, what: str, count: int) -> None:
        """The queue differed from the database and was put right."""
        ...

    def depth(self, depth: Depth) -> None:
        """How full the lane is now."""
        ...

    def measured(self, load: Load, readings: Sequence[Reading]) -> None:
        """What waits, by tier, and the signals for scaling."""
        ...


class Spawn(Protocol):
    """Runs work for one worker in the background, until the process ends."""

    def __call__(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Starts it; a failure is logged."""
        ...
