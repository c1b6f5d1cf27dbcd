"""Erasures of accounts: how far they are.

No tombstone leads to the books: the account's id is forgotten with the person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from billing.domain.accounts import AccountId
from easel_kit.erasure import UserHash


class ErasureState(StrEnum):
    """The steps, in order."""

    REQUESTED = "requested"
    """Barred: nothing new begins; jobs that run are waited for."""
    SETTLED = "settled"
    """No hold is open, and none will be."""
    CANCELLED = "cancelled"
    """The customer and the subscription at Stripe are gone."""
    DONE = "done"
    """Nothing here leads to the person any more."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """A user's erasure. `account_id` is None for a user never seen, and when it is done."""

    id: str
    user_hash: UserHash
    account_id: AccountId | None
    state: ErasureState
    requested_at: datetime
    finished_at: datetime | None
    failures: int
