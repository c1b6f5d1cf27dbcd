"""Transfers, lots and grants inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from billing.domain import ledger
from billing.domain.accounts import AccountId, Balance, Period
from billing.domain.ledger import Book, Part, Transfer
from billing.domain.plans import PlanTerms
from easel_kit.db import Connection
from easel_kit.errors import InvalidState
from easel_kit.ids import JobId, new_id

_MONTHLY = "monthly"

# The hot row is changed by one conditional statement, which is also the account's lock until the
# commit; the transfer and its entries go along.
_BOOK = """
WITH balance AS (
    UPDATE credit_accounts
    SET available = available + $2, held = held + $3, sequence = sequence + 1
    WHERE account_id = $1 AND available + $2 >= 0 AND NOT (barred AND $3 > 0)
    RETURNING available, held, sequence
), transfer AS (
    INSERT INTO transfers (id, account_id, sequence, kind, reference, job_id, description,
                           available_change, available_after, booked_at)
    SELECT $4, $1, sequence, $5, $6, $7, $8, $2, available, $9 FROM balance
), entry AS (
    INSERT INTO entries (transfer_id, account_id, book, millicredits)
    SELECT $4, $1, e.book, e.millicredits
    FROM balance, unnest($10::text[], $11::bigint[]) AS e (book, millicredits)
)
SELECT available, held FROM balance
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

_LOCK_BALANCE = "SELECT FROM credit_accounts WHERE account_id = $1 FOR UPDATE"

_EXPIRED_LOTS = """
SELECT id, remaining - held AS free, expired, expires_at FROM credit_lots
WHERE account_id = $1 AND remaining > held AND expires_at <= $2
ORDER BY expires_at, id
"""

_EXPIRE_LOT = "UPDATE credit_lots SET remaining = held, expired = expired + $2 WHERE id = $1"

_GRANT = """
INSERT INTO credit_lots (id, account_id, source, source_ref, granted, remaining,
                         granted_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $5, $6, $7)
ON CONFLICT (source, source_ref) DO NOTHING
RETURNING true
"""


async def book(connection: Connection, transfer: Transfer, now: datetime) -> Balance | None:
    """Writes a transfer and changes the balance; None, and nothing written, when it falls short.

    None also when it would reserve something of an account that is being erased.
    The account's balance stays locked until the transaction ends.
    """
    row = await connection.fetchrow(
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
    )
    return None if row is None else Balance(row["available"], row["held"])


async def book_surely(connection: Connection, transfer: Transfer, now: datetime) -> None:
    """As `book`, where the books themselves say that the balance is there.

    Raises:
        InvalidState: it is not; lots, holds and balance contradict each other.
    """
    if await book(connection, transfer, now) is None:
        raise InvalidState("the balance holds less than lots and holds say")


async def reserve(
    connection: Connection, account_id: AccountId, job_id: JobId, millicredits: int
) -> None:
    """Reserves an amount in the lots that are spent first; the balance is locked and covers it.

    Lots whose time has just run out count until they are booked off, as they do in the balance.
    """
    rows = await connection.fetch(_FREE_LOTS, account_id)
    parts = ledger.take([Part(row["id"], row["free"]) for row in rows], millicredits)
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
    await connection.execute(_LOCK_BALANCE, account_id)
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
    is_new = await connection.fetchval(
        _GRANT,
        new_id("lot"),
        account_id,
        _MONTHLY,
        f"{account_id}/{reference}",
        terms.monthly_millicredits,
        now,
        period.end,
    )
    if is_new:
        amount = terms.monthly_millicredits
        transfer = ledger.grant(account_id, period, terms.name, reference, amount)
        await book_surely(connection, transfer, now)
