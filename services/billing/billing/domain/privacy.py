"""Erasures: how far they are, and the tombstone that keeps an erased user from coming back.

A tombstone is SHA-256 of a fixed prefix and the user id, without a key. It must recognise the user
after a restore onto another machine with other secrets, and for as long as backups are kept: a lost
or rotated key would let erased data come back in silence. What a key would add is small: issuers
give out random ids (Cognito's `sub` is a random UUID), which nobody guesses; where an issuer's ids
can be guessed, so can its tokens' subjects be asked for elsewhere. No tombstone leads to the books:
the account's id is forgotten with the person.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from billing.domain.accounts import AccountId
from easel_kit.ids import UserId

UserHash = NewType("UserHash", bytes)
"""Names an erased user; 32 bytes."""

HASH_PREFIX = "easel.erased-user.v1:"
ERASED = "the account was erased"
"""What a call on behalf of an erased user is told."""

_FIRST_PAUSE = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(minutes=10)


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


@dataclass(frozen=True, slots=True)
class Tombstone:
    """That a user was erased, and when that was asked for."""

    user_hash: UserHash
    erased_at: datetime


def hash_of(user_id: UserId) -> UserHash:
    """The user's name among the erased."""
    return UserHash(hashlib.sha256(f"{HASH_PREFIX}{user_id}".encode()).digest())


def pause_after(failures: int) -> timedelta:
    """How long a step rests that could not be taken: 5 s, doubled with each failure, 10 min."""
    doubled: int = 1 << min(failures, 10)
    return min(_FIRST_PAUSE * doubled, _LONGEST_PAUSE)
