"""Billing's audit rows: of accounts and of money, one stream."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType

from billing.domain.accounts import AccountId
from billing.domain.audit import Action, Actor
from billing.domain.plans import PlanVersion
from easel_kit.audit import AuditEntry, Detail, append
from easel_kit.db import Connection

STREAM = "accounts"
NOTHING: Detail = MappingProxyType({})

_LOCK_BALANCE = "SELECT FROM credit_accounts WHERE account_id = $1 FOR UPDATE"


async def record(
    lent: Connection,
    account_id: AccountId,
    action: Action,
    actor: Actor,
    now: datetime,
    *,
    detail: Detail = NOTHING,
) -> None:
    """Adds an audit row in a transaction of the caller; nothing in `detail` may name a person.

    Takes the account's lock first and then the stream's, which is the last in the order of locks:
    whoever holds the stream and needs more needs only what is under the account's lock already.
    """
    await lent.execute(_LOCK_BALANCE, account_id)
    await append(lent, STREAM, AuditEntry(actor, action, account_id, detail), now)


async def record_plan(
    lent: Connection, account_id: AccountId, plan: PlanVersion, actor: Actor, now: datetime
) -> None:
    """Adds an audit row of a change of plan or of its version."""
    moved: Detail = {"plan": plan.key, "version": plan.version}
    await record(lent, account_id, Action.PLAN_CHANGED, actor, now, detail=moved)


async def record_of(
    lent: Connection,
    subject: str,
    action: Action,
    actor: Actor,
    now: datetime,
    *,
    detail: Detail = NOTHING,
) -> None:
    """As `record` for what belongs to no account, e.g. the erasure of a user never seen."""
    await append(lent, STREAM, AuditEntry(actor, action, subject, detail), now)
