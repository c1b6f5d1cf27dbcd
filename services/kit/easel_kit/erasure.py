"""Erased users: the name that a service remembers them by, and how often an erasure is tried.

A tombstone is SHA-256 of a fixed prefix and the user id, without a key. It must recognise the user
after a restore onto another machine with other secrets, and for as long as backups are kept: a lost
or rotated key would let erased data come back in silence. What a key would add is small: issuers
give out random ids (Cognito's `sub` is a random UUID), which nobody guesses; where an issuer's ids
can be guessed, so can its tokens' subjects be asked for elsewhere. Each service keeps tombstones of
its own, and all of them know a user by the same hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NewType, Protocol

from easel_kit.ids import UserId

UserHash = NewType("UserHash", bytes)
"""Names an erased user; 32 bytes."""

HASH_PREFIX = "easel.erased-user.v1:"
ERASED = "the account was erased"
"""What a call on behalf of an erased user is told."""

_FIRST_PAUSE = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """That a user was erased, and when that was asked for."""

    user_hash: UserHash
    erased_at: datetime


class Graveyard(Protocol):
    """Tombstones outside the database, so that a restore from a backup does not lose them."""

    async def keep(self, tombstones: Sequence[Tombstone]) -> None:
        """Adds tombstones; known ones stay.

        Raises:
            DependencyDown: the store does not answer.
        """
        ...

    async def all(self) -> Sequence[Tombstone]:
        """All that were kept.

        Raises:
            DependencyDown: the store does not answer.
        """
        ...


def hash_of(user_id: UserId) -> UserHash:
    """The user's name among the erased."""
    return UserHash(hashlib.sha256(f"{HASH_PREFIX}{user_id}".encode()).digest())


def pause_after(failures: int) -> timedelta:
    """How long a step rests that could not be taken: 5 s, doubled with each failure, 10 min."""
    doubled: int = 1 << min(failures, 10)
    return min(_FIRST_PAUSE * doubled, _LONGEST_PAUSE)


async def exchange(graveyard: Graveyard, known: Sequence[Tombstone]) -> Sequence[Tombstone]:
    """Gives the graveyard what it lacks of `known`, and answers what `known` lacks of it.

    Raises:
        DependencyDown: the store does not answer.
    """
    kept = {one.user_hash: one for one in await graveyard.all()}
    here = {one.user_hash: one for one in known}
    await graveyard.keep([here[user_hash] for user_hash in here.keys() - kept.keys()])
    return [kept[user_hash] for user_hash in kept.keys() - here.keys()]
