"""Everything that billing keeps of a user, as one JSON document of one snapshot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from billing.domain.accounts import AccountId
from billing.domain.audit import Action, Actor
from billing.storage.audit import record
from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.errors import DeadlineExceeded, NotFound, Overloaded
from easel_kit.ids import UserId

# Each holds a connection and a snapshot for as long as its reader takes.
_AT_ONCE = 2
_LONGEST_S = 600.0
_ROWS_AHEAD = 200
_PART_CHARACTERS = 32_768

_ACCOUNT_OF = "SELECT account_id FROM account_pii WHERE user_id = $1"


@dataclass(frozen=True, slots=True)
class Section:
    """A member of the document.

    Attributes:
        name: of the member.
        statement: answers one JSON object a row; `$1` is the account.
        is_list: all rows as an array; else the one row, or null.
    """

    name: str
    statement: str
    is_list: bool = True


SECTIONS: tuple[Section, ...] = (
    Section(
        "account",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT id, opened_at, plan_key, plan_version, plan_source, entitlements_version,
                   period_start, period_end, period_anchor, barred_at
            FROM accounts WHERE id = $1
        ) AS r
        """,
        is_list=False,
    ),
    Section(
        "plan",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT v.plan_key, v.version, v.name, v.price_cents, v.currency,
                   v.monthly_millicredits, v.priority, v.max_running, v.max_waiting, v.max_pixels,
                   v.max_images, v.requests_per_minute, v.model_keys
            FROM accounts a JOIN plan_versions v
              ON v.plan_key = a.plan_key AND v.version = a.plan_version
            WHERE a.id = $1
        ) AS r
        """,
        is_list=False,
    ),
    Section(
        "balance",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT available AS available_millicredits, held AS held_millicredits,
                   debt AS debt_millicredits
            FROM credit_accounts WHERE account_id = $1
        ) AS r
        """,
        is_list=False,
    ),
    Section(
        "lots",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT id, source, source_ref, payment, granted AS granted_millicredits,
                   remaining AS remaining_millicredits, held AS held_millicredits,
                   expired AS expired_millicredits, clawed AS clawed_millicredits,
                   repaid AS repaid_millicredits, granted_at, expires_at
            FROM credit_lots WHERE account_id = $1 ORDER BY granted_at, id
        ) AS r
        """,
    ),
    Section(
        "ledger",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT id, sequence, kind, reference, job_id, description,
                   available_change AS millicredits,
                   available_after AS available_after_millicredits, booked_at
            FROM transfers WHERE account_id = $1 ORDER BY sequence
        ) AS r
        """,
    ),
    Section(
        "usage",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT job_id, id AS hold_id, state, millicredits AS held_millicredits,
                   captured_millicredits AS charged_millicredits, reason, model_key, width_px,
                   height_px, steps, image_count, pixel_steps, plan_key, plan_version, traceparent,
                   placed_at, expires_at, ended_at
            FROM holds WHERE account_id = $1 ORDER BY placed_at, job_id
        ) AS r
        """,
    ),
    Section(
        "subscriptions",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT id, status, is_deciding, plan_key, plan_version, period_start, period_end,
                   cancel_at_period_end, created_at
            FROM subscriptions WHERE account_id = $1 ORDER BY created_at, id
        ) AS r
        """,
    ),
    Section(
        "customers",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT id, is_deleted, created_at, synced_at
            FROM customers WHERE account_id = $1 ORDER BY created_at, id
        ) AS r
        """,
    ),
    Section(
        "clawbacks",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT reference, payment, asked AS asked_millicredits, lapsed AS lapsed_millicredits,
                   taken AS taken_millicredits, owed AS owed_millicredits, clawed_at,
                   given_back_at
            FROM clawbacks WHERE account_id = $1 ORDER BY clawed_at, reference
        ) AS r
        """,
    ),
    Section(
        "webhooks",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT w.event_id, w.type, w.state, w.created_at, w.received_at, w.ended_at
            FROM customers c JOIN webhook_inbox w ON w.customer_id = c.id
            WHERE c.account_id = $1 ORDER BY w.received_at, w.event_id
        ) AS r
        """,
    ),
    Section(
        "findings",
        """
        SELECT to_jsonb(r)::text FROM (
            SELECT f.kind, f.reference, f.detail, f.found_at FROM reconciliation_findings f
            WHERE f.reference = $1
               OR f.reference IN (SELECT id FROM customers WHERE account_id = $1)
               OR f.reference IN (SELECT job_id FROM holds WHERE account_id = $1)
            ORDER BY f.id
        ) AS r
        """,
    ),
    Section(
        "audit",
        """
        SELECT (to_jsonb(r) || jsonb_build_object('detail', r.detail::jsonb))::text FROM (
            SELECT at, actor, action, detail FROM audit WHERE subject = $1 ORDER BY stream, sequence
        ) AS r
        """,
    ),
)


class PostgresExports:
    """The port `Exports`."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def note(self, user_id: UserId, actor: Actor, now: datetime) -> None:
        """Keeps an audit row of an export that begins."""
        async with transaction(self._pool) as lent:
            account_id = await _account_of(lent, user_id)
            await record(lent, account_id, Action.ACCOUNT_EXPORTED, actor, now)

    @asynccontextmanager
    async def open(self, user_id: UserId, now: datetime) -> AsyncIterator[AsyncIterator[str]]:
        """One JSON document in parts, of one snapshot, for at most ten minutes."""
        if self._turn.locked():
            raise Overloaded("too many exports at once, try again")
        try:
            async with (
                self._turn,
                asyncio.timeout(_LONGEST_S),
                connection(self._pool) as lent,
                lent.transaction(isolation="repeatable_read", readonly=True),
            ):
                account_id = await _account_of(lent, user_id)
                yield _parts(_document(lent, account_id, user_id, now))
        except TimeoutError as error:
            raise DeadlineExceeded("the export was read too slowly") from error


async def _account_of(lent: Connection, user_id: UserId) -> AccountId:
    account_id = await lent.fetchval(_ACCOUNT_OF, user_id)
    if account_id is None:
        raise NotFound("account", "of this user")
    return AccountId(account_id)


async def _document(
    lent: Connection, account_id: AccountId, user_id: UserId, now: datetime
) -> AsyncIterator[str]:
    head = {"exported_at": now.isoformat(), "user_id": user_id}
    yield json.dumps(head)[:-1]
    for section in SECTIONS:
        yield f",\n{json.dumps(section.name)}: "
        if not section.is_list:
            yield await lent.fetchval(section.statement, account_id) or "null"
            continue
        separator = "["
        async for row in lent.cursor(section.statement, account_id, prefetch=_ROWS_AHEAD):
            yield f"{separator}\n{row[0]}"
            separator = ","
        yield "]" if separator == "," else "[]"
    yield "}\n"


async def _parts(texts: AsyncIterator[str]) -> AsyncIterator[str]:
    kept: list[str] = []
    length = 0
    async for text in texts:
        kept.append(text)
        length += len(text)
        if length >= _PART_CHARACTERS:
            yield "".join(kept)
            kept, length = [], 0
    yield "".join(kept)
