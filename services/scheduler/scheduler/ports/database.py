"""The database, as the scheduler's use cases see it: the truth."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from easel_kit.erasure import UserHash
from easel_kit.errors import DomainError
from easel_kit.ids import AttemptId, BatchId, JobId, UserId
from scheduler.domain.job import Cursor, Entitlements, Event, Job, JobState, Resolution, Submission
from scheduler.domain.lease import Claim, Report, Settled
from scheduler.domain.line import Accepted, Admission
from scheduler.domain.load import Load
from scheduler.domain.privacy import Erasure
from scheduler.domain.selection import Cancellation, Filter, Mark, PlanChange, Selection


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

        Answers their new orders (`Admission.order`), in that order.
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


class PrivacyStore(Protocol):
    """All that is kept of a person, of all lanes."""

    async def jobs(self, user_id: UserId, *, after: Mark | None, limit: int) -> list[Job]:
        """The user's jobs, those out of sight too, oldest first, from above `after`."""
        ...

    async def users(self, user_hashes: Collection[UserHash]) -> list[UserId]:
        """Those of the users of whom something is kept."""
        ...

    async def erase(self, user_id: UserId) -> Erasure:
        """Removes all that is kept of the user, unless a job of theirs is open.

        What was cut short goes on when it is asked for again.
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


class Locks(Protocol):
    """Locks between replicas, on the database; one that dies gives up what it held."""

    def hold(self, name: str, *, wait_s: float = 0) -> AbstractAsyncContextManager[bool]:
        """Takes the lock for the block; False where another replica has it even after the wait."""
        ...
