"""Erasures, tombstones, and the removal of what names a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from billing.domain.accounts import AccountId
from billing.domain.audit import Action, Actor
from billing.domain.holds import Hold
from billing.domain.payments import CustomerId
from billing.domain.privacy import Erasure, ErasureState
from billing.storage.audit import record, record_of
from billing.storage.holds import open_holds_of
from billing.storage.personal import customers_of, remove_personal
from billing.storage.tombstones import bury, lock_user
from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.erasure import HASH_PREFIX, Tombstone, UserHash, hash_of
from easel_kit.errors import Internal
from easel_kit.ids import UserId, new_id

_BATCH = 100

_COLUMNS = "id, user_hash, account_id, state, requested_at, finished_at, failures"

_FIND = f"SELECT {_COLUMNS} FROM erasures WHERE user_hash = $1"  # noqa: S608 (a constant)

_DUE = f"""
SELECT {_COLUMNS} FROM erasures WHERE state <> 'done' AND try_at <= $1
ORDER BY try_at LIMIT $2
"""  # noqa: S608 (a constant)

_ACCOUNT_OF = "SELECT account_id FROM account_pii WHERE user_id = $1"

# A finished one begins again where there is an account: it came back with a restore.
_REQUEST = """
INSERT INTO erasures AS e (id, user_hash, account_id, state, requested_at, try_at)
VALUES ($1, $2, $3, 'requested', $4, $4)
ON CONFLICT (user_hash) DO UPDATE
SET account_id = $3, state = 'requested', requested_at = $4, finished_at = NULL,
    failures = 0, try_at = $4
WHERE $3 IS NOT NULL AND e.account_id IS DISTINCT FROM $3
RETURNING id
"""

_BAR = "UPDATE accounts SET barred_at = $2 WHERE id = $1 AND barred_at IS NULL"

_BAR_BALANCE = "UPDATE credit_accounts SET barred = true WHERE account_id = $1"

_LOCK_BALANCE = "SELECT FROM credit_accounts WHERE account_id = $1 FOR UPDATE"

_HAS_OPEN = "SELECT EXISTS (SELECT FROM holds WHERE account_id = $1 AND state = 'open')"

_STEP = """
UPDATE erasures SET state = $3, failures = 0, try_at = $4
WHERE id = $1 AND state = $2 RETURNING true
"""

_FINISH = """
UPDATE erasures SET state = 'done', finished_at = $2, account_id = NULL, failures = 0
WHERE id = $1 AND state = 'cancelled' RETURNING true
"""

_POSTPONE = "UPDATE erasures SET try_at = $2, failures = failures + $3 WHERE id = $1"

_RETURNED = """
SELECT p.user_id FROM account_pii p
JOIN erased_users u ON u.user_hash = sha256(convert_to($1 || p.user_id, 'UTF8'))
LEFT JOIN erasures e ON e.user_hash = u.user_hash AND e.account_id = p.account_id
WHERE e.id IS NULL
"""

_TOMBSTONES = "SELECT user_hash, erased_at FROM erased_users"


class PostgresErasures:
    """The port `Erasures`."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool

    async def request(self, user_id: UserId, actor: Actor, now: datetime) -> Erasure:
        """Bars the user, also one never seen; answers with the erasure that runs or has ended."""
        user = hash_of(user_id)
        async with transaction(self._pool) as lent:
            await lock_user(lent, user)
            await bury(lent, [Tombstone(user, now)])
            account_id = await lent.fetchval(_ACCOUNT_OF, user_id)
            erasure_id = await lent.fetchval(_REQUEST, new_id("era"), user, account_id, now)
            if erasure_id is not None:
                if account_id is not None:
                    await lent.execute(_BAR, account_id, now)
                    await lent.execute(_BAR_BALANCE, account_id)
                subject = account_id or erasure_id
                await record_of(lent, subject, Action.ERASURE_REQUESTED, actor, now)
            row = await lent.fetchrow(_FIND, user)
        if row is None:
            raise Internal("an erasure has vanished")
        return _erasure(row)

    async def find(self, user_hash: UserHash) -> Erasure | None:
        """The user's erasure."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(_FIND, user_hash)
        return None if row is None else _erasure(row)

    async def due(self, now: datetime, limit: int) -> Sequence[Erasure]:
        """Unfinished erasures whose time to be tried has come, the oldest first."""
        async with connection(self._pool) as lent:
            return [_erasure(row) for row in await lent.fetch(_DUE, now, limit)]

    async def open_holds(self, account_id: AccountId) -> Sequence[Hold]:
        """Holds that are waited for, at most 100 at a time."""
        async with connection(self._pool) as lent:
            return await open_holds_of(lent, account_id, _BATCH)

    async def customers(self, account_id: AccountId) -> Sequence[CustomerId]:
        """The account's customers at Stripe."""
        async with connection(self._pool) as lent:
            return await customers_of(lent, account_id)

    async def settle(self, erasure: Erasure, now: datetime) -> bool:
        """From REQUESTED to SETTLED; False while a hold is open."""
        async with transaction(self._pool) as lent:
            if erasure.account_id is not None:
                # waits for a hold that is being placed; one that comes later sees the bar
                await lent.execute(_LOCK_BALANCE, erasure.account_id)
                if await lent.fetchval(_HAS_OPEN, erasure.account_id):
                    return False
            await _step(lent, erasure, ErasureState.SETTLED, Action.ERASURE_SETTLED, now)
        return True

    async def cancel(self, erasure: Erasure, deleted: Sequence[CustomerId], now: datetime) -> bool:
        """From SETTLED to CANCELLED; False if there is a customer that is not among `deleted`."""
        async with transaction(self._pool) as lent:
            if erasure.account_id is not None:
                await lent.execute(_LOCK_BALANCE, erasure.account_id)
                if set(await customers_of(lent, erasure.account_id)) - set(deleted):
                    return False
            await _step(lent, erasure, ErasureState.CANCELLED, Action.ERASURE_CANCELLED, now)
        return True

    async def finish(self, erasure: Erasure, now: datetime) -> None:
        """From CANCELLED to DONE: the personal part is removed."""
        async with transaction(self._pool) as lent:
            await lock_user(lent, erasure.user_hash)
            if not await lent.fetchval(_FINISH, erasure.id, now):
                return  # another process was faster
            if erasure.account_id is not None:
                await remove_personal(lent, erasure.account_id, now)
            await _record(lent, erasure, Action.ERASURE_FINISHED, now)

    async def postpone(self, erasure: Erasure, until: datetime, *, failed: bool) -> None:
        """Lets the erasure rest; `failed` counts."""
        async with connection(self._pool) as lent:
            await lent.execute(_POSTPONE, erasure.id, until, int(failed))

    async def returned(self) -> Sequence[UserId]:
        """Users who were erased and have an account that is not being erased: after a restore."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_RETURNED, HASH_PREFIX)
        return [UserId(row["user_id"]) for row in rows]

    async def tombstones(self) -> Sequence[Tombstone]:
        """All who were erased."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_TOMBSTONES)
        return [Tombstone(UserHash(row["user_hash"]), row["erased_at"]) for row in rows]

    async def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Adds tombstones that were lost with a restore; known ones stay."""
        async with connection(self._pool) as lent:
            await bury(lent, tombstones)


async def _step(
    lent: Connection, erasure: Erasure, to: ErasureState, action: Action, now: datetime
) -> None:
    if await lent.fetchval(_STEP, erasure.id, erasure.state, to, now):
        await _record(lent, erasure, action, now)


async def _record(lent: Connection, erasure: Erasure, action: Action, now: datetime) -> None:
    if erasure.account_id is None:
        await record_of(lent, erasure.id, action, Actor.BILLING, now)
    else:
        await record(lent, erasure.account_id, action, Actor.BILLING, now)


def _erasure(row: asyncpg.Record) -> Erasure:
    return Erasure(
        id=row["id"],
        user_hash=UserHash(row["user_hash"]),
        account_id=None if row["account_id"] is None else AccountId(row["account_id"]),
        state=ErasureState(row["state"]),
        requested_at=row["requested_at"],
        finished_at=row["finished_at"],
        failures=row["failures"],
    )
