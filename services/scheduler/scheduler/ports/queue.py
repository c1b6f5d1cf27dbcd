"""The queue's store and its signals, as the scheduler's use cases see them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from easel_kit.ids import AttemptId, JobId, ModelKey, UserId, WorkerId
from scheduler.domain.estimate import Pace
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, Depth, End, Live, Progress
from scheduler.domain.policy import Share
from scheduler.domain.stream import Control
from scheduler.domain.survey import Survey
from scheduler.domain.worker import Worker, WorkerStatus


class Line(Protocol):
    """The queue, as submits, cancels and watchers use it."""

    async def admit(self, admissions: Sequence[Admission]) -> int:
        """Puts jobs in line, or back under the lease they had; answers how many were unknown."""
        ...

    async def enter(
        self, admissions: Sequence[Admission], look_at: Collection[JobId]
    ) -> dict[JobId, Live]:
        """As `admit`, then as `live` of the jobs to look at, in one call."""
        ...

    async def end(self, ends: Sequence[End]) -> None:
        """The jobs have ended: frees places and slots, stops other attempts of them.

        Their users are left charged for what really ran: by how long it took where an attempt
        succeeded, else by the progress that was shown.
        """
        ...

    async def remove(self, job_ids: Collection[JobId]) -> None:
        """As `end`, where no worker has reported it."""
        ...

    async def requeue(
        self, claim: Claim, *, stop: bool, not_before: datetime | None = None
    ) -> bool:
        """The attempt no longer runs: its job goes back to its old place, unless another has it.

        Until `not_before` no worker is given the job. Its user stays charged for the progress
        that was shown.
        """
        ...

    async def prepend(self, orders: Mapping[JobId, int]) -> None:
        """Gives jobs another `Admission.order`; those that do not wait have it when they do."""
        ...

    async def entitle(self, user_id: UserId, share: Share) -> None:
        """Numbers of the user's plan hold from now on, unless newer ones are known.

        Waiting jobs move to the new tier; running ones stay, even above a lowered limit.
        """
        ...

    async def forget_user(self, user_id: UserId) -> list[JobId]:
        """Removes what is kept of a user of whom no job is here; else answers some of the jobs."""
        ...

    async def stop(self, job_id: JobId) -> bool:
        """Asks the worker that runs the job to stop it; False when nobody does."""
        ...

    async def live(self, job_ids: Collection[JobId]) -> dict[JobId, Live]:
        """Where the jobs stand, those that are in line or run."""
        ...

    async def foresee(self, user_id: UserId, share: Share, cost_ms: int) -> Live:
        """Where a job of that cost would stand if the user had it admitted now; changes nothing."""
        ...


class Leases(Protocol):
    """The queue, as workers use it.

    `NotFound` says that the worker has to join (again), `Conflict` that another stream of the same
    worker has taken over.
    """

    async def join(self, worker: Worker) -> list[Claim]:
        """A stream introduces its worker; answers the claims that the worker holds."""
        ...

    async def update(self, worker: Worker) -> None:
        """The worker says something new of itself."""
        ...

    async def leave(self, worker_id: WorkerId, session: str) -> list[Claim]:
        """The stream is gone for good; answers the claims it leaves behind."""
        ...

    async def renew(
        self, worker_id: WorkerId, session: str, held: Collection[AttemptId]
    ) -> set[AttemptId]:
        """Extends the leases of these attempts; answers those that the worker does hold."""
        ...

    async def claim(
        self,
        worker_id: WorkerId,
        session: str,
        models: Sequence[ModelKey],
        count: int,
        *,
        loaded: Collection[ModelKey] = (),
    ) -> list[Claim]:
        """The next jobs that a worker with these models can draw, under fresh leases.

        Jobs of `loaded` models are preferred, within `policy.AFFINITY_LEAD`.
        """
        ...

    async def adopt(self, session: str, admission: Admission) -> bool:
        """Lets a worker keep `admission.claim` that it still holds; False when superseded."""
        ...

    async def seat(
        self,
        worker_id: WorkerId,
        session: str,
        *,
        parked: Collection[AttemptId],
        running: Collection[AttemptId],
    ) -> None:
        """The worker says which attempts it has set aside and which it works on; others stay."""
        ...

    async def show(self, progress: Sequence[Progress]) -> None:
        """Stores the last progress of each job and tells watchers; may be lost."""
        ...


class Upkeep(Protocol):
    """The queue, as the loops that keep it right use it."""

    async def expired(self, *, limit: int) -> list[tuple[Claim, bool]]:
        """Claims past their deadline; True for those whose lease was made up after a loss."""
        ...

    async def overdue(self, *, limit: int) -> list[JobId]:
        """Waiting jobs past their queue time."""
        ...

    async def known(
        self, *, after: int, upto: int | None = None, limit: int
    ) -> list[tuple[int, JobId]]:
        """Jobs in line or running with a place above `after` up to and with `upto`, by place."""
        ...

    async def leased(self, *, limit: int) -> list[JobId]:
        """Jobs under a lease."""
        ...

    async def survey(self) -> Survey:
        """How far the comparison with the database has come; at its start after a loss."""
        ...

    async def surveyed(self, survey: Survey) -> None:
        """Keeps how far it has come, for the next pass of whichever replica."""
        ...

    async def depth(self) -> Depth:
        """How full the lane is."""
        ...

    async def pace(self) -> Pace:
        """How fast the lane works."""
        ...

    async def release(self, *, limit: int) -> int:
        """Lets jobs be claimed whose pause is over; answers how many."""
        ...

    async def park(self) -> None:
        """Has workers go on with what was parked for long enough, and names what is to be."""
        ...

    async def remind(self) -> None:
        """Says again to workers what they were told and have not answered."""
        ...


class Epoch(Protocol):
    """The queue's store, as the replica that fills it again uses it.

    Until it is open, every other use of the queue raises `DependencyDown`. A rebuild is known by
    its token; its steps raise `Conflict` once another has begun or the store was lost again.
    """

    async def is_open(self) -> bool:
        """The queue serves."""
        ...

    async def begin(self, *, alone: bool) -> str | None:
        """Begins a rebuild unless the queue is open; None when there is nothing to begin.

        Nor is there where another replica has begun and goes on, unless the caller knows that it
        is `alone`.
        """
        ...

    async def sweep(self, token: str) -> None:
        """Removes what is left from before."""
        ...

    async def restore(self, token: str, admissions: Sequence[Admission]) -> None:
        """Puts jobs in line, or back under a lease as long as a new one."""
        ...

    async def open(self, token: str) -> None:
        """The queue is complete: all replicas are told."""
        ...


class Registry(Protocol):
    """Who is connected."""

    async def catalogue_version(self) -> str:
        """Changes whenever some worker's models may have."""
        ...

    async def workers(self) -> list[WorkerStatus]:
        """All connected workers, by id."""
        ...

    async def drain(self, worker_id: WorkerId) -> None:
        """Has the worker told to drain, and again until it says so; kept while it is connected.

        Raises:
            NotFound: no such worker is connected.
        """
        ...


class SignalHandler(Protocol):
    """Who is told what the queue's scripts say to all replicas. Must not block."""

    def on_wake(self, model_key: ModelKey) -> None:
        """A job of this model may be claimed."""
        ...

    def on_control(self, worker_id: WorkerId, message: Control) -> None:
        """The worker is to be told this; maybe again."""
        ...

    def on_job(self, job_id: JobId, progress: Progress | None) -> None:
        """A watched job changed, or made progress."""
        ...

    def on_connected(self) -> None:
        """Signals may have been missed until now."""
        ...


class Signals(Protocol):
    """Which jobs' signals this process wants to hear."""

    async def watch(self, job_id: JobId) -> None:
        """From the return on, changes of the job are heard."""
        ...

    async def unwatch(self, job_id: JobId) -> None:
        """No longer."""
        ...
