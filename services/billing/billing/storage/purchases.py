"""Credits that money bought, what takes them back, and plans by subscription.

Each function works in a transaction of the caller, may be repeated with the same reference, and
locks the account first, so that one transaction can do several of them.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from billing.domain import ledger
from billing.domain.accounts import AccountId, Period, PlanSource
from billing.domain.ledger import Part
from billing.domain.plans import PlanVersion
from billing.domain.purchases import Clawback, Division, Paid, Purchase, PurchaseSource, divide
from billing.storage.booking import (
    Lot,
    book_surely,
    expire_lots,
    free_lots,
    grant,
    grant_monthly,
    lock_balance,
)
from billing.storage.entitlements import note_change
from easel_kit.db import Connection

_GIVE_BACK = "give_back"
# What comes back lasts as long as it would have when it was taken, and at least this long.
_LEAST_TIME_BACK = timedelta(days=30)
_BOUGHT = [source.value for source in PurchaseSource]

_LOCK_ACCOUNT = "SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE"

# A clawback that was given back counts as if it had never been, except for what had lapsed.
_PAID = """
SELECT coalesce(sum(l.granted) FILTER (WHERE l.source = ANY ($3::text[])), 0)::bigint AS granted,
       coalesce(sum(l.remaining - l.held), 0)::bigint AS free,
       coalesce(sum(l.expired), 0)::bigint AS expired,
       max(l.expires_at) AS expires_at,
       (SELECT coalesce(sum(c.lapsed + c.taken + c.owed), 0)::bigint FROM clawbacks c
        WHERE c.account_id = $1 AND c.payment = $2 AND c.given_back_at IS NULL) AS clawed,
       (SELECT coalesce(sum(c.lapsed), 0)::bigint FROM clawbacks c
        WHERE c.account_id = $1 AND c.payment = $2 AND c.given_back_at IS NULL) AS lapsed
FROM credit_lots l WHERE l.account_id = $1 AND l.payment = $2
"""

_HAS_CLAWBACK = "SELECT true FROM clawbacks WHERE account_id = $1 AND reference = $2"

_CLAW = """
INSERT INTO clawbacks (account_id, reference, payment, asked, lapsed, taken, owed, clawed_at,
                       expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

_OF_PAYMENT = """
SELECT id FROM credit_lots WHERE account_id = $1 AND payment = $2 AND remaining > held
"""

_TAKE = """
UPDATE credit_lots AS lot
SET remaining = lot.remaining - part.millicredits, clawed = lot.clawed + part.millicredits
FROM unnest($1::text[], $2::bigint[]) AS part (lot_id, millicredits) WHERE lot.id = part.lot_id
"""

_RETURN = """
UPDATE clawbacks SET given_back_at = $3
WHERE account_id = $1 AND reference = $2 AND given_back_at IS NULL
RETURNING payment, taken + owed AS amount, expires_at - clawed_at AS time_left
"""

_MOVE = """
UPDATE accounts
SET plan_key = $2, plan_version = $3, period_start = $4, period_end = $5, plan_source = $6,
    period_anchor = CASE WHEN (period_start, period_end) = ($4, $5) THEN period_anchor ELSE $4 END,
    entitlements_version = entitlements_version
        + ((plan_key, plan_version) IS DISTINCT FROM ($2, $3::integer))::integer
WHERE id = $1
  AND (plan_key, plan_version, period_start, period_end, plan_source)
      IS DISTINCT FROM ($2, $3::integer, $4, $5, $6)
RETURNING entitlements_version
"""

_VERSION = "SELECT entitlements_version FROM accounts WHERE id = $1 FOR NO KEY UPDATE"


async def grant_purchase(
    lent: Connection, account_id: AccountId, purchase: Purchase, now: datetime
) -> bool:
    """Grants bought credits, once per source and reference over all accounts.

    What is owed is paid first. True when this call granted them.
    """
    await lent.execute(_LOCK_ACCOUNT, account_id)
    lot = Lot(
        purchase.source,
        purchase.reference,
        purchase.payment,
        purchase.millicredits,
        purchase.expires_at,
    )
    reference = f"{purchase.source}/{purchase.reference}"
    transfer = ledger.purchase(account_id, reference, purchase.millicredits, purchase.description)
    return await grant(lent, lot, transfer, now)


async def purchased(lent: Connection, account_id: AccountId, payment: str) -> int:
    """Millicredits that the purchases of a payment granted, whatever became of them."""
    row = await lent.fetchrow(_PAID, account_id, payment, _BOUGHT)
    return 0 if row is None else int(row["granted"])


async def claw_back(
    lent: Connection, account_id: AccountId, clawback: Clawback, now: datetime
) -> bool:
    """Takes credits back, once per reference; see `Clawback` for what from.

    True when this call did it, even where nothing was left to be taken. A payment that bought
    nothing yet leaves no trace, so that the same clawback takes hold once it has.
    """
    await lent.execute(_LOCK_ACCOUNT, account_id)
    if await lent.fetchval(_HAS_CLAWBACK, account_id, clawback.reference):
        return False
    await expire_lots(lent, account_id, now)
    row = await lent.fetchrow(_PAID, account_id, clawback.payment, _BOUGHT)
    if row is None or row["granted"] == 0 or not clawback.payment:
        return False
    paid = Paid(row["granted"], row["clawed"], row["free"], row["expired"] - row["lapsed"])
    balance = await lock_balance(lent, account_id)
    division = divide(clawback, paid, balance.available)
    await lent.execute(
        _CLAW,
        account_id,
        clawback.reference,
        clawback.payment,
        clawback.millicredits,
        division.lapsed,
        division.taken,
        division.owed,
        now,
        row["expires_at"],
    )
    await _take(lent, account_id, clawback, division, now)
    return True


async def give_back(lent: Connection, account_id: AccountId, reference: str, now: datetime) -> bool:
    """Undoes the clawback of that reference, once; without one it does nothing.

    Its credits come as a new lot that lasts as long from now as the payment's had left when they
    were taken, at least 30 days; what is owed is paid first. True when this call did it.
    """
    await lent.execute(_LOCK_ACCOUNT, account_id)
    row = await lent.fetchrow(_RETURN, account_id, reference, now)
    if row is None:
        return False
    if row["amount"]:
        expires_at = now + max(row["time_left"], _LEAST_TIME_BACK)
        lot = Lot(
            _GIVE_BACK, f"{account_id}/{reference}", row["payment"], row["amount"], expires_at
        )
        await grant(lent, lot, ledger.give_back(account_id, reference, row["amount"]), now)
    return True


async def move_plan(  # noqa: PLR0917 (all that makes up an account's plan)
    lent: Connection,
    account_id: AccountId,
    plan: PlanVersion,
    period: Period,
    source: PlanSource,
    now: datetime,
) -> bool:
    """Sets an account's plan, its period and who decides it.

    A changed plan or version is told to the scheduler. A plan that no subscription pays for brings
    its credits of the period, unless they were had. True when the plan or its version changed.
    """
    before = await lent.fetchval(_VERSION, account_id)
    version = await lent.fetchval(
        _MOVE, account_id, plan.key, plan.version, period.start, period.end, source
    )
    has_changed = version is not None and version != before
    if has_changed:
        await note_change(lent, account_id, version, now)
    if source is not PlanSource.SUBSCRIPTION:
        await grant_monthly(lent, account_id, plan.terms, period, now)
    return has_changed


async def _take(
    lent: Connection, account_id: AccountId, clawback: Clawback, division: Division, now: datetime
) -> None:
    if division.taken + division.owed == 0:
        return
    own = {row["id"] for row in await lent.fetch(_OF_PAYMENT, account_id, clawback.payment)}
    free = await free_lots(lent, account_id)
    # a stable sort: the payment's own lots first, each group in the order of spending
    lots: list[Part] = sorted(free, key=lambda part: part.lot_id not in own)
    parts = ledger.take(lots, division.taken)
    transfer = ledger.clawback(
        account_id, clawback.reference, division.taken, division.owed, clawback.description
    )
    await book_surely(lent, transfer, now)
    await lent.execute(
        _TAKE, [part.lot_id for part in parts], [part.millicredits for part in parts]
    )
