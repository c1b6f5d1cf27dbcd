"""Customers and subscriptions as last looked at, and what a look does to an account."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import asyncpg

from billing.domain.accounts import AccountId, PlanSource
from billing.domain.audit import Action, Actor
from billing.domain.customers import Customer, Outcome
from billing.domain.effects import Effect, GiveBack
from billing.domain.payments import (
    CustomerId,
    CustomerSnapshot,
    SubscriptionSnapshot,
)
from billing.domain.purchases import Purchase
from billing.storage.audit import record, record_of
from billing.storage.purchases import claw_back, give_back, grant_purchase, move_plan
from billing.storage.subscriptions import subscription_of
from easel_kit.audit import Detail
from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.erasure import ERASED
from easel_kit.errors import Forbidden

_COLUMNS = "id, account_id, version, is_deleted"

_FIND = f"SELECT {_COLUMNS} FROM customers WHERE id = $1"  # noqa: S608 (our own column list)

_OF_ACCOUNT = f"""
SELECT {_COLUMNS} FROM customers WHERE account_id = $1
ORDER BY is_deleted, created_at DESC, id DESC LIMIT 1
"""  # noqa: S608 (our own column list)

_OF_PAYMENT = """
SELECT c.id FROM credit_lots l JOIN customers c ON c.account_id = l.account_id
WHERE l.payment = $1 AND l.payment <> ''
ORDER BY c.is_deleted, c.created_at DESC LIMIT 1
"""

# Waits for whoever bars the account, and does nothing then.
_ACCOUNT_OF_PAYMENT = """
SELECT account_id FROM credit_lots WHERE payment = $1 AND payment <> '' LIMIT 1
"""

_ADD = """
INSERT INTO customers (id, account_id, created_at)
SELECT $1, a.id, $3 FROM accounts a WHERE a.id = $2 AND a.barred_at IS NULL FOR SHARE
ON CONFLICT DO NOTHING
RETURNING true
"""

# The row is locked until the commit: of two looks that began together one is applied.
_ADVANCE = """
UPDATE customers SET version = version + 1, is_deleted = $3, synced_at = $4
WHERE id = $1 AND version = $2
RETURNING true
"""

_STEP_DOWN = """
UPDATE subscriptions SET is_deciding = false
WHERE account_id = $1 AND is_deciding AND id <> $2
"""

# What Stripe no longer lists has ended with its customer.
_END_OTHERS = """
UPDATE subscriptions SET status = 'canceled', is_deciding = false
WHERE customer_id = $1 AND id <> ALL ($2::text[]) AND status <> 'canceled'
RETURNING true
"""

_KEEP = """
INSERT INTO subscriptions AS s (id, customer_id, account_id, status, is_deciding, plan_key,
                                plan_version, period_start, period_end, cancel_at_period_end,
                                created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO UPDATE
SET status = excluded.status, is_deciding = excluded.is_deciding, plan_key = excluded.plan_key,
    plan_version = excluded.plan_version, period_start = excluded.period_start,
    period_end = excluded.period_end, cancel_at_period_end = excluded.cancel_at_period_end
WHERE (s.status, s.is_deciding, s.plan_key, s.plan_version, s.period_start, s.period_end,
       s.cancel_at_period_end)
   IS DISTINCT FROM
      (excluded.status, excluded.is_deciding, excluded.plan_key, excluded.plan_version,
       excluded.period_start, excluded.period_end, excluded.cancel_at_period_end)
RETURNING true
"""

_DECIDING = """
SELECT id, status, plan_key, plan_version, period_start, period_end, cancel_at_period_end,
       created_at
FROM subscriptions WHERE account_id = $1 AND is_deciding
"""

_PLAN_SOURCE = "SELECT plan_source FROM accounts WHERE id = $1 FOR NO KEY UPDATE"


class PostgresCustomers:
    """The port `Customers`."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool

    async def of_account(self, account_id: AccountId) -> Customer | None:
        """The account's newest customer."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(_OF_ACCOUNT, account_id)
        return None if row is None else _customer(row)

    async def find(self, customer_id: CustomerId) -> Customer | None:
        """The customer; None: none of ours."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(_FIND, customer_id)
        return None if row is None else _customer(row)

    async def of_payment(self, payment: str) -> CustomerId | None:
        """Whose credits a payment bought; None: none that are known."""
        async with connection(self._pool) as lent:
            found = await lent.fetchval(_OF_PAYMENT, payment)
        return None if found is None else CustomerId(found)

    async def note_refund(self, payment: str, amount_cents: int | None, now: datetime) -> None:
        """Keeps an audit row of a refund that an operator is about to ask for; None: of all."""
        asked: Detail = {
            "payment": payment,
            "cents": "all" if amount_cents is None else amount_cents,
        }
        async with transaction(self._pool) as lent:
            account_id = await lent.fetchval(_ACCOUNT_OF_PAYMENT, payment)
            note = (
                partial(record, lent, AccountId(account_id))
                if account_id
                else partial(record_of, lent, payment)
            )
            await note(Action.REFUND_ASKED, Actor.OPERATOR, now, detail=asked)

    async def add(self, account_id: AccountId, customer_id: CustomerId, now: datetime) -> Customer:
        """Keeps the account's customer; where it has one that is not deleted, answers that.

        Raises:
            Forbidden: the account is being erased.
        """
        async with transaction(self._pool) as lent:
            if await lent.fetchval(_ADD, customer_id, account_id, now):
                linked = Action.CUSTOMER_LINKED
                await record(lent, account_id, linked, Actor.USER, now)
            row = await lent.fetchrow(_OF_ACCOUNT, account_id)
        if row is None:
            raise Forbidden(ERASED)
        return _customer(row)

    async def apply(
        self, customer: Customer, snapshot: CustomerSnapshot, outcome: Outcome, now: datetime
    ) -> bool | None:
        """Subscriptions, plan and credits in one transaction; whether that changed anything.

        None, and nothing written, when a snapshot was applied since `customer` was read.
        """
        async with transaction(self._pool) as lent:
            if not await lent.fetchval(
                _ADVANCE, customer.id, customer.version, snapshot.is_deleted, now
            ):
                return None
            changed = snapshot.is_deleted is not customer.is_deleted
            seen = await _keep_subscriptions(lent, customer, snapshot, outcome)
            changed |= seen
            changed |= await _decide_plan(lent, customer.account_id, outcome, now)
            for effect in outcome.effects:
                changed |= await _book(lent, customer.account_id, effect, now)
            if seen:
                await _record_subscriptions(lent, customer, snapshot, now)
        return changed

    async def subscription(self, account_id: AccountId) -> SubscriptionSnapshot | None:
        """The one that decides the account's plan; None: none is live."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(_DECIDING, account_id)
        return None if row is None else subscription_of(row)


async def _keep_subscriptions(
    lent: Connection, customer: Customer, snapshot: CustomerSnapshot, outcome: Outcome
) -> bool:
    decides = outcome.subscription_id
    if decides:
        await lent.execute(_STEP_DOWN, customer.account_id, decides)
    ids = [one.id for one in snapshot.subscriptions]
    changed = bool(await lent.fetch(_END_OTHERS, customer.id, ids))
    # the one that decides comes last: only one may at a time
    for one in sorted(snapshot.subscriptions, key=lambda one: one.id == decides):
        changed |= bool(
            await lent.fetchval(
                _KEEP,
                one.id,
                customer.id,
                customer.account_id,
                one.status,
                one.id == decides,
                one.plan_key,
                one.plan_version,
                one.period_start,
                one.period_end,
                one.cancel_at_period_end,
                one.created_at,
            )
        )
    return changed


async def _record_subscriptions(
    lent: Connection, customer: Customer, snapshot: CustomerSnapshot, now: datetime
) -> None:
    """One audit row of all that a look has seen changed: subscriptions and their status."""
    states: Detail = {one.id: one.status.value for one in snapshot.subscriptions}
    changed = Action.SUBSCRIPTION_CHANGED
    await record(lent, customer.account_id, changed, Actor.STRIPE, now, detail=states)


async def _decide_plan(
    lent: Connection, account_id: AccountId, outcome: Outcome, now: datetime
) -> bool:
    if outcome.paid is not None:
        plan, period = outcome.paid.plan, outcome.paid.period
        return await move_plan(lent, account_id, plan, period, PlanSource.SUBSCRIPTION, now)
    source = await lent.fetchval(_PLAN_SOURCE, account_id)
    if source != PlanSource.SUBSCRIPTION or await lent.fetchrow(_DECIDING, account_id):
        # nobody's subscription decided, or that of the account's next customer does
        return False
    plan, period = outcome.otherwise.plan, outcome.otherwise.period
    await move_plan(lent, account_id, plan, period, PlanSource.DEFAULT, now)
    return True


async def _book(lent: Connection, account_id: AccountId, effect: Effect, now: datetime) -> bool:
    if isinstance(effect, GiveBack):
        return await give_back(lent, account_id, effect.reference, now)
    if isinstance(effect, Purchase):
        return await grant_purchase(lent, account_id, effect, now)
    return await claw_back(lent, account_id, effect, now)


def _customer(row: asyncpg.Record) -> Customer:
    return Customer(
        id=CustomerId(row["id"]),
        account_id=AccountId(row["account_id"]),
        version=row["version"],
        is_deleted=row["is_deleted"],
    )
