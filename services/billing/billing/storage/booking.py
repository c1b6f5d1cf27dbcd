"""Transfers, lots and grants inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from billing.domain import ledger
from billing.domain.accounts import AccountId, Balance, Period
from billing.domain.ledger import Book, Part, Transfer
from billing.domain.plans import PlanTerms
from easel_kit.db import Connection
from easel_kit.errors import InvalidState
from easel_kit.ids import JobId, new_id

_MONTHLY = "monthly"

# The hot row is changed by one conditional statement, which is also the account's lock until the
# commit; the transfer and its entries go along. What it makes available pays what is owed first, in
# a transfer of its own. Nothing is available while something is owed: so less available than this
# transfer brought says how much of it paid.
_BOOK = """
WITH balance AS (
    UPDATE credit_accounts
    SET available = available + $2 - least(debt, greatest($2, 0)),
        held = held + $3,
        debt = debt + $12 - least(debt, greatest($2, 0)),
        sequence = sequence + CASE WHEN debt > 0 AND $2 > 0 THEN 2 ELSE 1 END
    WHERE account_id = $1 AND available + $2 >= 0
    RETURNING available, held, debt, sequence, greatest(least($2, $2 - available), 0) AS repaid
), transfer AS (
    INSERT INTO transfers (id, account_id, sequence, kind, reference, job_id, description,
                           available_change, available_after, booked_at)
    SELECT $4::text, $1, sequence - (repaid > 0)::integer, $5::text, $6::text, $7::text, $8::text,
           $2::bigint, available + repaid, $9::timestamptz
    FROM balance
    UNION ALL
    SELECT $13::text, $1, sequence, 'repay', $5 || '/' || $6, $7, 'What was owed, paid', -repaid,
           available, $9
    FROM balance WHERE repaid > 0
), entry AS (
    INSERT INTO entries (transfer_id, account_id, book, millicredits)
    SELECT $4, $1, e.book, e.millicredits
    FROM balance, unnest($10::text[], $11::bigint[]) AS e (book, millicredits)
    UNION ALL
    SELECT $13, $1, e.book, e.sign * repaid
    FROM balance, (VALUES ('available', -1), ('debt', 1)) AS e (book, sign)
    WHERE repaid > 0
)
SELECT available, held, debt, repaid FROM balance
"""

_FREE_LOTS = """
SELECT id, remaining - held AS free FROM credit_lots
WHERE account_id = $1 AND remaining > held
ORDER BY priority, expires_at, id
"""

_RESERVE = """
WITH part AS (
    SELECT * FROM unnest($2::text[], $3::bigint[]) AS p (lot_id, millicredits)
), allocation AS (
    INSERT INTO hold_allocations (job_id, lot_id, millicredits) SELECT $1, * FROM part
)
UPDATE credit_lots AS lot SET held = lot.held + part.millicredits
FROM part WHERE lot.id = part.lot_id
"""

_ALLOCATIONS = """
SELECT a.lot_id, a.millicredits
FROM hold_allocations a JOIN credit_lots l ON l.id = a.lot_id
WHERE a.job_id = $1
ORDER BY l.priority, l.expires_at, l.id
"""

_FREE_RESERVED = """
WITH part AS (
    SELECT * FROM unnest($2::text[], $3::bigint[], $4::bigint[])
        AS p (lot_id, millicredits, captured)
), allocation AS (
    UPDATE hold_allocations AS a SET captured_millicredits = part.captured
    FROM part WHERE a.job_id = $1 AND a.lot_id = part.lot_id
)
UPDATE credit_lots AS lot
SET held = lot.held - part.millicredits, remaining = lot.remaining - part.captured
FROM part WHERE lot.id = part.lot_id
"""

_LOCK_BALANCE = """
SELECT available, held, debt FROM credit_accounts WHERE account_id = $1 FOR UPDATE
"""

_EXPIRED_LOTS = """
SELECT id, remaining - held AS free, expired, expires_at FROM credit_lots
WHERE account_id = $1 AND remaining > held AND expires_at <= $2
ORDER BY expires_at, id
"""

_REPAY = """
UPDATE credit_lots AS lot
SET remaining = lot.remaining - part.millicredits, repaid = lot.repaid + part.millicredits
FROM unnest($1::text[], $2::bigint[]) AS part (lot_id, millicredits) WHERE lot.id = part.lot_id
"""

_EXPIRE_LOT = "UPDATE credit_lots SET remaining = held, expired = expired + $2 WHERE id = $1"

_GRANT = """
INSERT INTO credit_lots (id, account_id, source, source_ref, payment, granted, remaining,
                         granted_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8)
ON CONFLICT (source, source_ref) DO NOTHING
RETURNING true
"""


@dataclass(frozen=True, slots=True)
class Lot:
    """Credits to be granted: from where, unique with the reference, and until when."""

    source: str
    reference: str
    payment: str
    millicredits: int
    expires_at: datetime


async def book(connection: Connection, transfer: Transfer, now: datetime) -> Balance | None:
    """Writes a transfer that makes nothing available; None, and nothing written, if it falls short.

    The account's balance stays locked until the transaction ends.
    """
    row = await _book(connection, transfer, now)
    return None if row is None else Balance(row["available"], row["held"], row["debt"])


async def book_surely(connection: Connection, transfer: Transfer, now: datetime) -> int:
    """As `book`, where the books themselves say that the balance is there.

    Returns:
        Millicredits of those it made available that paid what was owed: `repay` them from lots.

    Raises:
        InvalidState: it is not; lots, holds and balance contradict each other.
    """
    row = await _book(connection, transfer, now)
    if row is None:
        raise InvalidState("the balance holds less than lots and holds say")
    return int(row["repaid"])


async def _book(connection: Connection, transfer: Transfer, now: datetime) -> asyncpg.Record | None:
    return await connection.fetchrow(
        _BOOK,
        transfer.account_id,
        transfer.change(Book.AVAILABLE),
        transfer.change(Book.HELD),
        new_id("trf"),
        transfer.kind,
        transfer.reference,
        transfer.job_id,
        transfer.description,
        now,
        [entry.book for entry in transfer.entries],
        [entry.millicredits for entry in transfer.entries],
        -transfer.change(Book.DEBT),
        new_id("trf"),
    )


async def repay(connection: Connection, account_id: AccountId, millicredits: int) -> None:
    """Takes what paid a debt out of the lots that have something free, in the order of spending.

    Nothing was available before, so these are the lots that the same transfer has filled.
    """
    if millicredits:
        parts = ledger.take(await free_lots(connection, account_id), millicredits)
        await connection.execute(
            _REPAY, [part.lot_id for part in parts], [part.millicredits for part in parts]
        )


async def lock_balance(connection: Connection, account_id: AccountId) -> Balance:
    """The balance, locked until the transaction ends."""
    row = await connection.fetchrow(_LOCK_BALANCE, account_id)
    if row is None:
        raise InvalidState("the account has no balance")
    return Balance(row["available"], row["held"], row["debt"])


async def free_lots(connection: Connection, account_id: AccountId) -> Sequence[Part]:
    """What is free in each lot, in the order of spending; the balance is locked."""
    rows = await connection.fetch(_FREE_LOTS, account_id)
    return [Part(row["id"], row["free"]) for row in rows]


async def reserve(
    connection: Connection, account_id: AccountId, job_id: JobId, millicredits: int
) -> None:
    """Reserves an amount in the lots that are spent first; the balance is locked and covers it.

    Lots whose time has just run out count until they are booked off, as they do in the balance.
    """
    parts = ledger.take(await free_lots(connection, account_id), millicredits)
    await connection.execute(
        _RESERVE, job_id, [part.lot_id for part in parts], [part.millicredits for part in parts]
    )


async def allocation_of(connection: Connection, job_id: JobId) -> Sequence[Part]:
    """What an open hold has reserved, in the order of spending; it changes only with the hold."""
    rows = await connection.fetch(_ALLOCATIONS, job_id)
    return [Part(row["lot_id"], row["millicredits"]) for row in rows]


async def free_reserved(
    connection: Connection, job_id: JobId, parts: Sequence[Part], captured: int
) -> None:
    """Spends `captured` of the lots' reserved parts, the first ones first, and frees the rest."""
    spent = {part.lot_id: part.millicredits for part in ledger.take(parts, captured)}
    await connection.execute(
        _FREE_RESERVED,
        job_id,
        [part.lot_id for part in parts],
        [part.millicredits for part in parts],
        [spent.get(part.lot_id, 0) for part in parts],
    )


async def expire_lots(connection: Connection, account_id: AccountId, now: datetime) -> None:
    """Books off what is free in lots whose time is over; what holds reserve stays reserved."""
    await lock_balance(connection, account_id)
    for row in await connection.fetch(_EXPIRED_LOTS, account_id, now):
        # a lot may expire in parts, as its holds end: the amount before makes each part unique
        reference = f"{row['id']}/{row['expired']}"
        transfer = ledger.expire(account_id, reference, row["free"], row["expires_at"])
        await book_surely(connection, transfer, now)
        await connection.execute(_EXPIRE_LOT, row["id"], row["free"])


async def grant_monthly(
    connection: Connection, account_id: AccountId, terms: PlanTerms, period: Period, now: datetime
) -> None:
    """The plan's credits for a period, once per account, period and plan."""
    if terms.monthly_millicredits == 0:
        return
    reference = f"{period.name}/{terms.key}"
    amount = terms.monthly_millicredits
    lot = Lot(_MONTHLY, f"{account_id}/{reference}", "", amount, period.end)
    transfer = ledger.grant(account_id, period, terms.name, reference, amount)
    await grant(connection, lot, transfer, now)


async def grant(connection: Connection, lot: Lot, transfer: Transfer, now: datetime) -> bool:
    """Opens a lot and books its credits, once per source and reference of the lot.

    What is owed is paid first. Whether this call did it.
    """
    is_new = await connection.fetchval(
        _GRANT,
        new_id("lot"),
        transfer.account_id,
        lot.source,
        lot.reference,
        lot.payment,
        lot.millicredits,
        now,
        lot.expires_at,
    )
    if is_new:
        await repay(connection, transfer.account_id, await book_surely(connection, transfer, now))
    return bool(is_new)
