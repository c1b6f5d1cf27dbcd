"""Accounts, their renewal and changes of plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from billing.domain.accounts import Account, AccountId, Balance, Period, PlanSource
from billing.domain.audit import Action, Actor
from billing.domain.plans import PlanVersion
from billing.storage.audit import record, record_plan
from billing.storage.booking import expire_lots, grant_monthly
from billing.storage.entitlements import note_change
from billing.storage.plans import PostgresPlans
from billing.storage.subscriptions import subscription_of
from billing.storage.tombstones import is_erased, lock_user
from easel_kit.audit import Detail
from easel_kit.db import Pool, connection, transaction
from easel_kit.erasure import ERASED, hash_of
from easel_kit.errors import Forbidden
from easel_kit.ids import UserId, new_id

_SELECT = """
SELECT a.id, p.user_id, a.opened_at, a.plan_key, a.plan_version, a.entitlements_version,
       a.period_start, a.period_end, a.plan_source, a.barred_at,
       coalesce(a.period_anchor, a.opened_at) AS period_anchor, c.available, c.held, c.debt,
       s.id AS s_id, s.status AS s_status, s.plan_key AS s_plan_key,
       s.plan_version AS s_plan_version, s.period_start AS s_period_start,
       s.period_end AS s_period_end, s.cancel_at_period_end AS s_cancel_at_period_end,
       s.created_at AS s_created_at,
       EXISTS (
           SELECT FROM credit_lots l
           WHERE l.account_id = a.id AND l.remaining > l.held AND l.expires_at <= $1
       ) AS has_expired_lots
FROM account_pii p
JOIN accounts a ON a.id = p.account_id
JOIN credit_accounts c ON c.account_id = p.account_id
LEFT JOIN subscriptions s ON s.account_id = a.id AND s.is_deciding
"""

_FIND = _SELECT + "WHERE p.user_id = $2"

_WHERE_DUE = """
WHERE a.barred_at IS NULL AND a.id IN (
    (SELECT id FROM accounts
     WHERE period_end <= $1 AND plan_source <> 'subscription' AND barred_at IS NULL LIMIT $2)
    UNION
    (SELECT l.account_id FROM credit_lots l JOIN accounts b ON b.id = l.account_id
     WHERE l.remaining > l.held AND l.expires_at <= $1 AND b.barred_at IS NULL LIMIT $2)
)
LIMIT $2
"""

_DUE = _SELECT + _WHERE_DUE

_OPEN_PII = """
INSERT INTO account_pii (account_id, user_id) VALUES ($1, $2)
ON CONFLICT (user_id) DO NOTHING RETURNING true
"""

_OPEN = """
INSERT INTO accounts (id, opened_at, plan_key, plan_version, period_start, period_end)
VALUES ($1, $2, $3, $4, $5, $6)
"""

_OPEN_CREDITS = "INSERT INTO credit_accounts (account_id) VALUES ($1)"

_MOVE_PERIOD = """
UPDATE accounts
SET period_start = $2, period_end = $3, plan_key = $4, plan_version = $5,
    entitlements_version = entitlements_version
        + ((plan_key, plan_version) IS DISTINCT FROM ($4, $5::integer))::integer
WHERE id = $1 AND period_end <= $2 AND plan_key = $4 AND plan_source <> 'subscription'
  AND barred_at IS NULL
RETURNING entitlements_version
"""

_CHANGE_PLAN = """
UPDATE accounts
SET plan_key = $2, plan_version = $3, plan_source = 'granted',
    entitlements_version = entitlements_version + 1
WHERE id = $1 AND plan_key <> $2 AND plan_source <> 'subscription' AND barred_at IS NULL
RETURNING period_start, period_end, entitlements_version
"""


class PostgresAccounts:
    """The port `Accounts`."""

    def __init__(self, pool: Pool, plans: PostgresPlans) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool
        self._plans = plans

    async def find(self, user_id: UserId, now: datetime) -> Account | None:
        """The user's account; None for a user never seen."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(_FIND, now, user_id)
        return None if row is None else await self._account(row)

    async def open(self, user_id: UserId, plan: PlanVersion, period: Period, now: datetime) -> None:
        """Opens the account with the plan's first grant; does nothing where there is one.

        Raises:
            Forbidden: the user was erased.
        """
        account_id, user = AccountId(new_id("acc")), hash_of(user_id)
        async with transaction(self._pool) as lent:
            await lock_user(lent, user)
            if await is_erased(lent, user):
                raise Forbidden(ERASED)
            if not await lent.fetchval(_OPEN_PII, account_id, user_id):
                return
            await lent.execute(
                _OPEN, account_id, now, plan.key, plan.version, period.start, period.end
            )
            await lent.execute(_OPEN_CREDITS, account_id)
            await grant_monthly(lent, account_id, plan.terms, period, now)
            opened: Detail = {"plan": plan.key, "version": plan.version}
            await record(lent, account_id, Action.ACCOUNT_OPENED, Actor.USER, now, detail=opened)

    async def renew(
        self, account: Account, plan: PlanVersion, period: Period, now: datetime
    ) -> None:
        """Books expired credits off and, if `period` is a later one, moves there with its grant."""
        async with transaction(self._pool) as lent:
            version = await lent.fetchval(
                _MOVE_PERIOD, account.id, period.start, period.end, plan.key, plan.version
            )
            await expire_lots(lent, account.id, now)
            if version is None:
                return
            await grant_monthly(lent, account.id, plan.terms, period, now)
            if plan.version != account.plan.version:
                await note_change(lent, account.id, version, now)
                await record_plan(lent, account.id, plan, Actor.BILLING, now)

    async def change_plan(self, account_id: AccountId, plan: PlanVersion, now: datetime) -> None:
        """Moves to another plan, with its grant for the running period unless it was had."""
        async with transaction(self._pool) as lent:
            row = await lent.fetchrow(_CHANGE_PLAN, account_id, plan.key, plan.version)
            if row is not None:
                period = Period(row["period_start"], row["period_end"])
                await grant_monthly(lent, account_id, plan.terms, period, now)
                await note_change(lent, account_id, row["entitlements_version"], now)
                # the call is for operators; users change their plan by paying for it
                await record_plan(lent, account_id, plan, Actor.OPERATOR, now)

    async def due(self, now: datetime, limit: int) -> Sequence[Account]:
        """Accounts to renew."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_DUE, now, limit)
        return [await self._account(row) for row in rows]

    async def _account(self, row: asyncpg.Record) -> Account:
        return Account(
            id=AccountId(row["id"]),
            user_id=UserId(row["user_id"]),
            opened_at=row["opened_at"],
            plan=await self._plans.get(row["plan_key"], row["plan_version"]),
            entitlements_version=row["entitlements_version"],
            period=Period(row["period_start"], row["period_end"]),
            balance=Balance(row["available"], row["held"], row["debt"]),
            has_expired_lots=row["has_expired_lots"],
            plan_source=PlanSource(row["plan_source"]),
            period_anchor=row["period_anchor"],
            is_barred=row["barred_at"] is not None,
            subscription=None if row["s_id"] is None else subscription_of(row, "s_"),
        )
