"""What the scheduler's use cases need of the world: the database, the queue's store, signals.

Every method may raise `DependencyDown` when what stands behind it does not answer; its effect is
then unknown, and all of them may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from easel_kit.errors import DomainError
from easel_kit.ids import AttemptId, BatchId, JobId, ModelKey, UserId, WorkerId
from scheduler.domain.estimate import Pace
from scheduler.domain.job import (
    Cursor,
    Entitlements,
    Event,
    Job,
    JobState,
    Resolution,
    Submission,
)
from scheduler.domain.lease import Claim, Report, Settled
from scheduler.domain.line import Accepted, Admission, Depth, End, Live, Progress
from scheduler.domain.load import Load, Reading
from scheduler.domain.policy import Share
from scheduler.domain.selection import Cancellation, Filter, Mark, PlanChange, Selection
from scheduler.domain.stream import Control
from scheduler.domain.survey import Survey
from scheduler.domain.worker import Worker, WorkerStatus


class JobStore(Protocol):
    """Jobs as their users see them; the truth."""

    async def submit(self, submissions: Sequence[Submission]) -> list[Accepted | DomainError]:
        """Accepts each submission whole or refuses it whole, all of them in one transaction.

        The answers are those of some order, one after another. Jobs go to their user's home lane:
        this store's own, unless others are open elsewhere; those known already are answered as
        they stand. A refusal changes nothing but the user's plan: `RateLimited` over running +
        waiting, `Conflict` for a known id with another generation, `NotFound` for someone else's,
        `InvalidState` for one that was buried.

        Raises:
            Conflict: an id is being submitted by someone else at this moment.
        """
        ...

    async def job(self, user_id: UserId, job_id: JobId, *, hidden: bool = False) -> Job:
        """One job of the user; with `hidden` also one out of sight.

        Raises:
            NotFound: unknown, or someone else's.
        """
        ...

    async def find(self, user_id: UserId, job_ids: Collection[JobId]) -> dict[JobId, Job]:
        """Those of the jobs that are the user's, those out of sight too."""
        ...

    async def page(
        self, user_id: UserId, wanted: Filter, *, before: Mark | None, limit: int
    ) -> list[Job]:
        """The user's jobs in sight that the filter admits, newest first, from below `before`."""
        ...

    async def counts(self, user_id: UserId, batch_ids: Collection[BatchId]) -> dict[JobState, int]:
        """Jobs in sight by state, all states; with `batch_ids` only those of these batches."""
        ...

    async def resolve(self, job_id: JobId) -> Resolution:
        """The job's state, or a tombstone for an unknown id."""
        ...


class OwnLineStore(Protocol):
    """What users do to their own jobs; the truth."""

    async def cancel(
        self,
        user_id: UserId,
        selection: Selection,
        *,
        waiting_only: bool = False,
        hide: bool = False,
    ) -> Cancellation:
        """Ends those that wait, marks those that run; with `hide` takes both out of sight.

        Those out of sight already are not there.
        """
        ...

    async def prepend(self, user_id: UserId, job_ids: Sequence[JobId]) -> dict[JobId, int]:
        """Puts those of the jobs that wait before all others of the user, in the order named.

        Answers their new orders (`Job.order`), in that order.
        """
        ...

    async def hide(self, user_id: UserId, wanted: Filter) -> int:
        """Takes ended jobs of these states and batches out of sight; answers how many."""
        ...


class PlanStore(Protocol):
    """Users' plans as they change outside a submit."""

    async def entitle(self, user_id: UserId, plan: Entitlements) -> tuple[Entitlements, str]:
        """Keeps the plan unless a newer one is known; answers what holds and the home lane."""
        ...

    async def changes(self, *, within_s: float | None) -> list[PlanChange]:
        """Changes of the last seconds (None: ever), of users at home here with open jobs."""
        ...


class HistoryStore(Protocol):
    """Jobs that have ended long ago."""

    async def remove(self, *, older_than_s: float) -> int:
        """Removes some jobs that ended before then, with attempts and results, and burials.

        Answers how many; 0 when none is left.
        """
        ...


class AttemptStore(Protocol):
    """Attempts and open jobs; the truth."""

    async def record(self, claims: Sequence[Claim], *, revive: bool = False) -> list[AttemptId]:
        """Writes claims down in one transaction; answers those whose job has ended already.

        With `revive`, attempts that were given up live again: their worker came back in time.
        """
        ...

    async def settle(self, reports: Sequence[Report]) -> list[Settled]:
        """Decides in one transaction what the ends of attempts mean, in the order given."""
        ...

    async def claims(self, attempt_ids: Collection[AttemptId]) -> list[Claim]:
        """Those attempts that are known."""
        ...

    async def open(self, job_ids: Collection[JobId]) -> dict[JobId, Job]:
        """Those of the jobs that are open, by id."""
        ...

    async def cancelled(self, job_ids: Collection[JobId]) -> set[JobId]:
        """Those of the jobs that are open and were asked to stop."""
        ...

    async def admissions(self, job_ids: Collection[JobId]) -> list[Admission]:
        """Those of the jobs that are open."""
        ...

    async def open_jobs(self, state: JobState, *, after: int, limit: int) -> list[Admission]:
        """Open jobs in this state with a place above `after`, by place."""
        ...

    async def open_ids(
        self, state: JobState, *, after: int, upto: int | None = None, limit: int
    ) -> list[tuple[int, JobId]]:
        """As `open_jobs`, but places and ids alone, up to and with place `upto`."""
        ...

    async def last_place(self) -> tuple[int, datetime]:
        """The last place that was given out, also to jobs not committed yet; and the time."""
        ...

    async def expire_waiting(self, job_ids: Collection[JobId]) -> list[Settled]:
        """Fails those of the jobs that wait and were not started within their queue time."""
        ...

    async def stop_requests(self, *, limit: int) -> list[JobId]:
        """Running jobs that were asked to stop."""
        ...


class LoadStore(Protocol):
    """What is open, counted."""

    async def load(self) -> Load:
        """All open jobs of the lane."""
        ...


class FeedStore(Protocol):
    """The event feed."""

    async def events(self, after: Cursor, *, limit: int) -> tuple[list[Event], bool]:
        """Events after the cursor in commit order; True when later ones wait for a transaction.

        Raises:
            OutOfRange: the cursor lies below what is kept, or beyond this database.
        """
        ...

    async def prune(self, *, older_than_s: float) -> int:
        """Removes events by age and raises the lower end of the feed; answers how many."""
        ...


class FeedBell(Protocol):
    """Tells that the feed may have grown."""

    def ring(self) -> None:
        """Rings for every reader."""
        ...

    def wait(self) -> AbstractAsyncContextManager[Bell]:
        """A bell for one reader."""
        ...


class Bell(Protocol):
    """One reader's bell."""

    async def rung(self, *, within_s: float) -> None:
        """Returns at the next ring, at once if it rang since the last call, or after the time."""
        ...


class Line(Protocol):
    """The queue, as submits, cancels and watchers use it."""

    async def admit(self, admissions: Sequence[Admission]) -> int:
        """Puts jobs in line, or back under the lease they had; answers how many were unknown."""
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

    async def stop(self, job_id: JobId) -> bool:
        """Asks the worker that runs the job to stop it; False when nobody does."""
        ...

    async def live(self, job_ids: Collection[JobId]) -> dict[JobId, Live]:
        """Where the jobs stand, those that are in line or run."""
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


class Locks(Protocol):
    """Locks between replicas, on the database; one that dies gives up what it held."""

    def hold(self, name: str, *, wait_s: float = 0) -> AbstractAsyncContextManager[bool]:
        """Takes the lock for the block; False where another replica has it even after the wait."""
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


class Publisher(Protocol):
    """A service outside that scales the lane."""

    async def publish(self, readings: Sequence[Reading]) -> None:
        """Tells it; what it does not hear is told newer the next time."""
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
