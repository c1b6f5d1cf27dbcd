"""Erasure and export: what they need of the database, of Stripe and of the object store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from billing.domain.accounts import AccountId
from billing.domain.audit import Actor
from billing.domain.holds import Hold
from billing.domain.payments import CustomerId
from billing.domain.privacy import Erasure
from easel_kit.erasure import Tombstone, UserHash
from easel_kit.ids import UserId


class Erasures(Protocol):
    """Erasures, each step of which is one transaction with its audit row."""

    async def request(self, user_id: UserId, actor: Actor, now: datetime) -> Erasure:
        """Bars the user, also one never seen; answers with the erasure that runs or has ended.

        A finished erasure begins again if there is an account all the same: after a restore.
        """
        ...

    async def find(self, user_hash: UserHash) -> Erasure | None:
        """The user's erasure."""
        ...

    async def due(self, now: datetime, limit: int) -> Sequence[Erasure]:
        """Unfinished erasures whose time to be tried has come, the oldest first."""
        ...

    async def open_holds(self, account_id: AccountId) -> Sequence[Hold]:
        """Holds that are waited for."""
        ...

    async def customers(self, account_id: AccountId) -> Sequence[CustomerId]:
        """The account's customers at Stripe."""
        ...

    async def settle(self, erasure: Erasure, now: datetime) -> bool:
        """From REQUESTED to SETTLED; False while a hold is open."""
        ...

    async def cancel(self, erasure: Erasure, deleted: Sequence[CustomerId], now: datetime) -> bool:
        """From SETTLED to CANCELLED; False if there is a customer that is not among `deleted`."""
        ...

    async def finish(self, erasure: Erasure, now: datetime) -> None:
        """From CANCELLED to DONE: the personal part is removed."""
        ...

    async def postpone(self, erasure: Erasure, until: datetime, *, failed: bool) -> None:
        """Lets the erasure rest; `failed` counts."""
        ...

    async def returned(self) -> Sequence[UserId]:
        """Users who were erased and have an account that is not being erased: after a restore."""
        ...

    async def tombstones(self) -> Sequence[Tombstone]:
        """All who were erased."""
        ...

    async def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Adds tombstones that were lost with a restore; known ones stay."""
        ...


class CustomerRemoval(Protocol):
    """The part of the payment provider that an erasure needs."""

    async def delete_customer(self, customer_id: CustomerId) -> None:
        """Ends all subscriptions at once and deletes the customer; no error when gone.

        Raises:
            DependencyDown: the provider is away.
            DeadlineExceeded: it did not answer in time.
        """
        ...


class Exports(Protocol):
    """Everything that is kept of a user."""

    def open(
        self, user_id: UserId, now: datetime
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """One JSON document in parts, of one snapshot; memory does not grow with its length.

        Raises:
            NotFound: nothing is kept of the user.
            Overloaded: too many are being written already.
        """
        ...

    async def note(self, user_id: UserId, actor: Actor, now: datetime) -> None:
        """Keeps an audit row of an export that begins.

        Raises:
            NotFound: nothing is kept of the user.
        """
        ...
