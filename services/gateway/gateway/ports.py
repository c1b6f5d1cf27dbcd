"""What the gateway needs from outside, each consumer's part by itself, in domain types.

Every method may raise `DependencyDown`, `DeadlineExceeded`, `Overloaded` or `Internal` when the
other side cannot answer; only what it raises besides is named.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from easel_kit.ids import ImageId, JobId, UserId
from gateway.domain.account import Account, Entitlements, Hold, LedgerPage, PlacedHolds, Plan
from gateway.domain.catalogue import Model
from gateway.domain.generation import Generation
from gateway.domain.identity import Identity
from gateway.domain.job import (
    Batch,
    Job,
    JobFilter,
    JobPage,
    JobState,
    JobUpdate,
    Stopped,
)
from gateway.domain.library import Cursor, JobEvent, Picture, PictureKind, PicturePage
from gateway.domain.upload import Developed


class Jobs(Protocol):
    """The scheduler, for a user's jobs; someone else's job is `NotFound`."""

    async def submit(
        self, user_id: UserId, batch: Batch, entitlements: Entitlements
    ) -> tuple[Job, ...]:
        """Queues all jobs or none, and answers them in order. Idempotent by job id.

        Raises:
            RateLimited: too many of the user's jobs run and wait.
            InvalidState: an id can no longer be submitted, or a job to repeat has not ended.
        """
        ...

    async def get(self, user_id: UserId, job_id: JobId) -> Job:
        """One job."""
        ...

    async def list(
        self, user_id: UserId, wanted: JobFilter, *, page_size: int, page_token: str
    ) -> JobPage:
        """The user's jobs that are wanted, newest first."""
        ...

    async def cancel(self, user_id: UserId, job_id: JobId) -> Job:
        """Asks a job to stop; one that has ended is answered as it is."""
        ...

    def watch(self, user_id: UserId, job_id: JobId) -> AsyncGenerator[JobUpdate, None]:
        """The job now, then each change; ends after the job's end."""
        ...


class Line(Protocol):
    """The scheduler, for all of a user's jobs together."""

    async def count(self, user_id: UserId, batch_ids: Sequence[str]) -> dict[JobState, int]:
        """How many jobs are in each state, of these batches or (none named) of all."""
        ...

    async def cancel_many(
        self,
        user_id: UserId,
        *,
        job_ids: Sequence[JobId],
        batch_ids: Sequence[str],
        waiting_only: bool,
    ) -> Stopped:
        """Cancels these jobs and those of these batches; none named: all that are open."""
        ...

    async def prepend(self, user_id: UserId, job_ids: Sequence[JobId]) -> tuple[JobId, ...]:
        """Moves waiting jobs before all others of the user; answers which it moved."""
        ...

    async def prune(
        self, user_id: UserId, *, states: Sequence[JobState], batch_ids: Sequence[str]
    ) -> int:
        """Takes ended jobs out of sight; answers how many."""
        ...

    async def clear(self, user_id: UserId) -> tuple[int, int]:
        """Cancels all open jobs and takes every job out of sight; answers how many of each."""
        ...


class Models(Protocol):
    """The scheduler, for what workers can draw."""

    async def list_models(self) -> tuple[Model, ...]:
        """One entry per model."""
        ...


class JobFeed(Protocol):
    """The scheduler's event feed."""

    def subscribe(self, after: Cursor) -> AsyncGenerator[tuple[JobEvent, ...], None]:
        """All events after the cursor, then each new one as it commits; never ends by itself.

        Raises:
            OutOfRange: the events after the cursor are kept no longer.
        """
        ...


class Holds(Protocol):
    """Billing, for the price of a job."""

    async def place_holds(
        self, user_id: UserId, generations: Mapping[JobId, Generation]
    ) -> PlacedHolds:
        """Sets the prices of all jobs aside, or none. Idempotent by job id.

        Raises:
            InsufficientCredits: nothing was set aside.
            Forbidden: the plan does not allow this.
        """
        ...

    async def release_holds(self, job_ids: Sequence[JobId], reason: str) -> None:
        """Frees the whole of each hold. Idempotent."""
        ...

    async def get_holds(self, user_id: UserId, job_ids: Sequence[JobId]) -> dict[JobId, Hold]:
        """The holds of at most 100 jobs; a job without one is left out."""
        ...


class Ledger(Protocol):
    """Billing, for the account."""

    async def get_account(self, user_id: UserId) -> Account:
        """The account, opened when the user is new."""
        ...

    async def get_entitlements(self, user_id: UserId) -> Entitlements:
        """The plan's numbers for this user."""
        ...

    async def change_plan(self, user_id: UserId, plan_key: str) -> Account:
        """Moves the user to another plan. Idempotent.

        Raises:
            NotFound: no such plan.
        """
        ...

    async def list_plans(self) -> tuple[Plan, ...]:
        """Plans on offer, cheapest first."""
        ...

    async def list_ledger(
        self, user_id: UserId, *, page_size: int, page_token: str, job_id: JobId | None
    ) -> LedgerPage:
        """Ledger lines, newest first; only those of one job where it is named."""
        ...


class Library(Protocol):
    """The users' pictures."""

    async def record(self, pictures: Sequence[Picture]) -> None:
        """Adds pictures; those that are there already stay as they are."""
        ...

    async def find(self, user_id: UserId, image_id: ImageId) -> Picture:
        """One picture of the user.

        Raises:
            NotFound: no such picture, or someone else's.
        """
        ...

    async def page(
        self, user_id: UserId, *, kind: PictureKind | None, before: ImageId | None, limit: int
    ) -> PicturePage:
        """The user's pictures, newest first, of that kind or any, older than `before`."""
        ...

    async def object_keys(
        self, user_id: UserId, image_ids: Collection[ImageId]
    ) -> dict[ImageId, str]:
        """Where the bytes of those pictures are that are the user's; others are left out."""
        ...

    async def remove(self, user_id: UserId, image_id: ImageId) -> None:
        """Takes a picture out for good: recording it again does not bring it back.

        Raises:
            NotFound: no such picture, or someone else's.
        """
        ...


class LibraryFeed(Protocol):
    """The library as the event feed fills it."""

    async def cursor(self) -> Cursor:
        """The place up to which the feed has been applied."""
        ...

    async def apply(self, pictures: Sequence[Picture], cursor: Cursor) -> None:
        """Adds pictures and moves the cursor, both or neither; the cursor never goes back."""
        ...


class Objects(Protocol):
    """The object store, for pictures and their small copies."""

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        """Stores the bytes whole or not at all."""
        ...

    async def delete(self, key: str) -> None:
        """Removes the object; no error when it is gone already."""
        ...

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        """A URL that gives the object to whoever holds it, for `expires_s` seconds."""
        ...


class Darkroom(Protocol):
    """Where uploaded files become pictures."""

    async def develop(self, data: bytes) -> Developed:
        """Upright, as PNG without metadata; its size is checked before it is decoded.

        Raises:
            InvalidInput: no PNG, JPEG or WebP, damaged, or too large; names the field `body`.
        """
        ...


class LocalObjects(Protocol):
    """The folder store, whose signed URLs lead back to this gateway."""

    def verify(self, key: str, expires: int, signature: str) -> None:
        """Checks a signed URL's parts.

        Raises:
            Forbidden: wrong signature, or too late.
            InvalidInput: the key is malformed.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: no such object.
        """
        ...


class TokenVerifier(Protocol):
    """Who a bearer token speaks for."""

    @property
    def ready(self) -> bool:
        """True once keys to verify with are at hand."""
        ...

    async def verify(self, token: str) -> Identity:
        """The caller.

        Raises:
            Unauthenticated: the token proves nothing.
            DependencyDown: no keys could be had yet.
        """
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a rate limit leaves: of `limit` a minute, `remaining`; more after `reset_s` seconds."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: float


class RateLimiter(Protocol):
    """Counts requests of a minute."""

    async def hit(self, kind: str, key: str, per_minute: int) -> Allowance | None:
        """Counts one request of `key`; None when the count cannot be kept, so nothing is refused.

        Args:
            kind: a closed set: what is counted, e.g. "user".
            key: whose requests.
            per_minute: how many are allowed.
        """
        ...
