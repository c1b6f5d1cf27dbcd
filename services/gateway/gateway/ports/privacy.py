"""What the gateway needs to hand a person's data out, and to remove it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Protocol

from easel_kit.erasure import Tombstone, UserHash
from easel_kit.ids import UserId
from gateway.domain.job import Job
from gateway.domain.privacy import Erasure


class Erasures(Protocol):
    """Erasures in the database; each step is one transaction and may be repeated."""

    async def request(self, user_id: UserId, now: datetime) -> Erasure:
        """Bars the user; answers with the erasure that runs or has ended."""
        ...

    async def is_barred(self, user_hash: UserHash) -> bool:
        """Whether the user has asked to be erased."""
        ...

    async def due(self, now: datetime, limit: int) -> Sequence[Erasure]:
        """Unfinished erasures whose time to be tried has come, the longest waiting first."""
        ...

    async def stop(self, erasure: Erasure, now: datetime) -> Erasure:
        """From REQUESTED to STOPPED."""
        ...

    async def finish(self, erasure: Erasure, now: datetime) -> None:
        """From STOPPED to DONE: the library's rows and the user's id are removed."""
        ...

    async def postpone(self, erasure: Erasure, until: datetime, *, failed: bool) -> None:
        """Lets the erasure rest; `failed` counts."""
        ...

    async def tombstones(self) -> Sequence[Tombstone]:
        """All whose erasure is done."""
        ...

    async def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Bars those whose tombstones were lost with a restore; known ones stay."""
        ...

    async def reopen(self, now: datetime) -> int:
        """Begins the erasures of users again who have come back with a restore; how many."""
        ...


class AccountPrivacy(Protocol):
    """Billing, for its part of a person."""

    def export_account(self, user_id: UserId) -> AsyncGenerator[bytes, None]:
        """All that billing keeps, as one JSON document (UTF-8) in parts that end anywhere.

        Raises:
            NotFound: it keeps nothing.
        """
        ...

    async def erase_account(self, user_id: UserId) -> bool:
        """Begins the erasure, which goes on by itself; True once it is done. Idempotent."""
        ...


class JobPrivacy(Protocol):
    """The scheduler, for its part of a person."""

    def export_jobs(self, user_id: UserId) -> AsyncGenerator[tuple[Job, ...], None]:
        """All jobs that are kept, oldest first, those out of sight too."""
        ...

    async def erase_users(self, user_hashes: Sequence[UserHash]) -> int:
        """Removes what is kept of at most 1000 users; how many were left because a job is open."""
        ...


class UserObjects(Protocol):
    """The object store, for all objects of a user."""

    async def delete_all(self, folder: str) -> int:
        """Removes every object below `folder/`, all versions; answers how many."""
        ...
