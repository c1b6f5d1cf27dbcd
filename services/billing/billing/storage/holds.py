"""Holds: placed by one conditional update of the balance, ended once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg

from billing.domain import ledger
from billing.domain.accounts import AccountId, Balance
from billing.domain.holds import Hold, HoldOrder, HoldState, PlacedHolds, Settled, Settlement
from billing.domain.pricing import Work
from billing.storage.booking import (
    allocation_of,
    book,
    book_surely,
    free_reserved,
    repay,
    reserve,
)
from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.erasure import ERASED
from easel_kit.errors import Forbidden, InsufficientCredits, Internal
from easel_kit.ids import HoldId, JobId, ModelKey, UserId, new_hold_id

_SELECT = """
SELECT h.id, h.job_id, h.account_id, p.user_id, h.model_key, h.width_px, h.height_px, h.steps,
       h.image_count, h.pixel_steps, h.state, h.millicredits, h.captured_millicredits, h.barred,
       h.traceparent, h.expires_at
FROM holds h LEFT JOIN account_pii p ON p.account_id = h.account_id
"""

_FIND = _SELECT + "WHERE h.job_id = ANY ($1::text[])"

_OF_USER = _SELECT + "WHERE h.job_id = ANY ($1::text[]) AND p.user_id = $2"

_EXPIRED = _SELECT + "WHERE h.state = 'open' AND h.expires_at <= $1 ORDER BY h.expires_at LIMIT $2"

_OPEN_OF = _SELECT + "WHERE h.account_id = $1 AND h.state = 'open' ORDER BY h.job_id LIMIT $2"

_INSERT = """
INSERT INTO holds (job_id, id, account_id, state, millicredits, model_key, width_px, height_px,
                   steps, image_count, pixel_steps, plan_key, plan_version, traceparent, placed_at,
                   expires_at)
VALUES ($1, $2, $3, 'open', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (job_id) DO NOTHING
RETURNING true
"""

_BURY = """
INSERT INTO holds (job_id, id, state, millicredits, barred, reason, placed_at, expires_at, ended_at)
VALUES ($1, $2, 'released', 0, true, $3, $4, $4, $4)
ON CONFLICT (job_id) DO NOTHING
"""

_END = """
UPDATE holds
SET state = $2, captured_millicredits = $3, reason = $4, barred = $5, ended_at = $6
WHERE job_id = $1 AND state = 'open'
RETURNING true
"""

_EXTEND = """
UPDATE holds SET expires_at = $2 WHERE job_id = $1 AND state = 'open' AND expires_at < $2
"""

_AVAILABLE = "SELECT available, barred FROM credit_accounts WHERE account_id = $1"


class PostgresHolds:
    """The port `Holds`."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool

    async def find(self, job_ids: Sequence[JobId]) -> Sequence[Hold]:
        """The jobs' holds or their tombstones; a job without is left out."""
        async with connection(self._pool) as lent:
            return [_hold(row) for row in await lent.fetch(_FIND, list(job_ids))]

    async def of_user(self, user_id: UserId, job_ids: Sequence[JobId]) -> Sequence[Hold]:
        """The user's holds among those of the jobs."""
        async with connection(self._pool) as lent:
            return [_hold(row) for row in await lent.fetch(_OF_USER, list(job_ids), user_id)]

    async def place(self, orders: Sequence[HoldOrder]) -> PlacedHolds | None:
        """Reserves all amounts; None, and nothing written, if a job has a hold or a tombstone.

        Raises:
            InsufficientCredits: fewer are available; nothing is written.
            Forbidden: the account is being erased; nothing is written.
        """
        balance = None
        try:
            async with transaction(self._pool) as lent:
                reserved = 0
                # by id: whoever places several meets everyone else in the same order
                for order in sorted(orders, key=lambda one: one.job_id):
                    balance = await reserve_price(lent, order, orders, reserved)
                    reserved += order.millicredits
        except _KnownError:
            return None
        return PlacedHolds([_placed(order) for order in orders], balance)

    async def settle(self, job_id: JobId, settlement: Settlement, now: datetime) -> Settled | None:
        """Ends an open hold; one that has ended stays as it is. None: the job has no hold."""
        async with transaction(self._pool) as lent:
            return await settle_hold(lent, job_id, settlement, now)

    async def release(self, job_id: JobId, settlement: Settlement, now: datetime) -> Settled:
        """As `settle`; leaves a tombstone where the job has no hold yet."""
        async with transaction(self._pool) as lent:
            # waits for a hold of the same job that is being placed
            await lent.execute(_BURY, job_id, new_hold_id(), settlement.reason, now)
            settled = await settle_hold(lent, job_id, settlement, now)
        if settled is None:
            raise Internal("a hold has vanished")
        return settled

    async def extend(self, job_id: JobId, until: datetime) -> None:
        """Keeps an open hold at least until then."""
        async with connection(self._pool) as lent:
            await extend_hold(lent, job_id, until)

    async def expired(self, now: datetime, limit: int) -> Sequence[Hold]:
        """Open holds whose time is over, the oldest first."""
        async with connection(self._pool) as lent:
            return [_hold(row) for row in await lent.fetch(_EXPIRED, now, limit)]


class _KnownError(Exception):
    """A job has a hold already: what was written for its neighbours goes too."""


async def reserve_price(
    lent: Connection, order: HoldOrder, orders: Sequence[HoldOrder], reserved: int
) -> Balance:
    """One order of several, of which `reserved` millicredits were taken before it."""
    if not await _insert(lent, order):
        raise _KnownError
    transfer = ledger.hold(order.account_id, order.job_id, order.work, order.millicredits)
    balance = await book(lent, transfer, order.placed_at)
    if balance is None:
        left = await lent.fetchrow(_AVAILABLE, order.account_id)
        if left is None:
            raise Internal("a balance has vanished")
        if left["barred"]:
            raise Forbidden(ERASED)
        wanted = sum(one.millicredits for one in orders)
        raise InsufficientCredits(wanted, left["available"] + reserved)
    await reserve(lent, order.account_id, order.job_id, order.millicredits)
    return balance


async def find_hold(lent: Connection, job_id: JobId) -> Hold | None:
    """The job's hold or its tombstone, on a connection of the caller."""
    row = await lent.fetchrow(_FIND, [job_id])
    return None if row is None else _hold(row)


async def open_holds_of(lent: Connection, account_id: AccountId, limit: int) -> Sequence[Hold]:
    """The account's holds that have not ended, on a connection of the caller."""
    return [_hold(row) for row in await lent.fetch(_OPEN_OF, account_id, limit)]


async def settle_hold(
    lent: Connection, job_id: JobId, settlement: Settlement, now: datetime
) -> Settled | None:
    """As `PostgresHolds.settle`, in a transaction of the caller."""
    hold = await find_hold(lent, job_id)
    if hold is None or hold.account_id is None:
        return None if hold is None else Settled(hold, is_new=False)
    captured = settlement.charge(hold.millicredits)
    state = HoldState.CAPTURED if captured else HoldState.RELEASED
    is_new = await lent.fetchval(
        _END, job_id, state, captured, settlement.reason, settlement.is_barring, now
    )
    if is_new:
        parts = await allocation_of(lent, job_id)
        transfer = ledger.settle(
            hold.account_id, job_id, hold.millicredits, captured, settlement.reason
        )
        repaid = await book_surely(lent, transfer, now)
        await free_reserved(lent, job_id, parts, captured)
        await repay(lent, hold.account_id, repaid)
        ended = replace(hold, state=state, captured=captured, is_barred=settlement.is_barring)
        return Settled(ended, is_new=True)
    # it had ended before, or between the two statements
    kept = await find_hold(lent, job_id)
    return None if kept is None else Settled(kept, is_new=False)


async def extend_hold(lent: Connection, job_id: JobId, until: datetime) -> bool:
    """As `PostgresHolds.extend`, on a connection of the caller; whether it changed anything."""
    return str(await lent.execute(_EXTEND, job_id, until)) == "UPDATE 1"


async def _insert(lent: Connection, order: HoldOrder) -> bool:
    return bool(
        await lent.fetchval(
            _INSERT,
            order.job_id,
            order.id,
            order.account_id,
            order.millicredits,
            order.work.model_key,
            order.work.width_px,
            order.work.height_px,
            order.work.steps,
            order.work.image_count,
            order.work.reckoned_pixel_steps,
            order.plan_key,
            order.plan_version,
            order.traceparent,
            order.placed_at,
            order.expires_at,
        )
    )


def _placed(order: HoldOrder) -> Hold:
    return Hold(
        id=order.id,
        job_id=order.job_id,
        account_id=order.account_id,
        user_id=order.user_id,
        work=order.work,
        state=HoldState.OPEN,
        millicredits=order.millicredits,
        captured=0,
        is_barred=False,
        traceparent=order.traceparent,
        expires_at=order.expires_at,
    )


def _hold(row: asyncpg.Record) -> Hold:
    work = None
    if row["account_id"] is not None:
        work = Work(
            ModelKey(row["model_key"]),
            row["width_px"],
            row["height_px"],
            row["steps"],
            row["image_count"],
            row["pixel_steps"],
        )
    return Hold(
        id=HoldId(row["id"]),
        job_id=JobId(row["job_id"]),
        account_id=None if row["account_id"] is None else AccountId(row["account_id"]),
        user_id=None if row["user_id"] is None else UserId(row["user_id"]),
        work=work,
        state=HoldState(row["state"]),
        millicredits=row["millicredits"],
        captured=row["captured_millicredits"],
        is_barred=row["barred"],
        traceparent=row["traceparent"],
        expires_at=row["expires_at"],
    )
