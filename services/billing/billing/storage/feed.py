"""How far the scheduler's feed is applied: effect and cursor in one transaction."""

from __future__ import annotations

from datetime import datetime

import asyncpg

from billing.domain.feed import (
    Applied,
    Cursor,
    Finding,
    JobEvent,
    Outcome,
    applied,
    contradiction,
    is_settled_otherwise,
)
from billing.domain.holds import Extension, effect_of
from billing.storage.holds import extend_hold, find_hold, settle_hold
from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.errors import Internal, InvalidState

_CURSOR = """
SELECT generation, transaction_id::text, sequence FROM feed_cursor WHERE feed = 'scheduler'
"""

# Also the lock by which several readers of the feed apply each event once, in order.
_ADVANCE = """
UPDATE feed_cursor SET generation = $1, transaction_id = $2, sequence = $3
WHERE feed = 'scheduler' AND (generation, transaction_id, sequence) < ($1, $2::numeric, $3)
RETURNING true
"""

_RESTART = """
UPDATE feed_cursor SET generation = 0, transaction_id = 0, sequence = 0 WHERE feed = 'scheduler'
"""

_RECORD = """
INSERT INTO reconciliation_findings (kind, reference, detail, found_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (kind, reference) DO NOTHING
"""

_CONTRADICTIONS = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,
    InvalidState,
)


class PostgresFeed:
    """The port `Feed`."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool

    async def cursor(self) -> Cursor:
        """The last event applied."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(_CURSOR)
        if row is None:
            raise Internal("the feed's cursor is missing")  # starting over would hide it
        return Cursor(row["generation"], int(row["transaction_id"]), row["sequence"])

    async def apply(self, event: JobEvent, now: datetime, extend_until: datetime) -> Applied:
        """The event's effect and the cursor, in one transaction; nothing for a repeated event."""
        place = event.cursor
        async with transaction(self._pool) as lent:
            if not await lent.fetchval(
                _ADVANCE, place.generation, place.transaction_id, place.sequence
            ):
                return Applied(Outcome.REPEATED)
            try:
                async with lent.transaction():
                    result = await _apply(lent, event, now, extend_until)
            except _CONTRADICTIONS as error:
                # trying again would fail again: the rows contradict the event
                finding = _finding("event_failed", event, error=type(error).__name__)
                result = Applied(Outcome.FOUND, finding=finding)
            if result.finding is not None:
                await _record(lent, result.finding, now)
        return result

    async def restart(self, finding: Finding, now: datetime) -> None:
        """Keeps a finding, once per kind and reference, and puts the cursor before everything."""
        async with transaction(self._pool) as lent:
            await lent.execute(_RESTART)
            await _record(lent, finding, now)


async def _apply(
    lent: Connection, event: JobEvent, now: datetime, extend_until: datetime
) -> Applied:
    if event.report is None:
        return Applied(Outcome.IGNORED)
    hold = await find_hold(lent, event.job_id)
    kind = contradiction(event, hold)
    if hold is None or kind is not None:
        return Applied(Outcome.FOUND, hold, _finding(kind or "hold_missing", event))
    effect = effect_of(event.report)
    if isinstance(effect, Extension):
        extended = await extend_hold(lent, event.job_id, extend_until)
        return Applied(Outcome.EXTENDED if extended else Outcome.UNCHANGED, hold)
    settled = await settle_hold(lent, event.job_id, effect, now)
    if settled is not None and not settled.is_new and is_settled_otherwise(settled.hold, effect):
        return Applied(Outcome.FOUND, settled.hold, _finding("settled_otherwise", event))
    return applied(settled)


def _finding(kind: str, event: JobEvent, **more: str) -> Finding:
    status = "" if event.report is None else event.report.status.value
    return Finding(kind, event.job_id, {"event": status, **more})


async def _record(lent: Connection, finding: Finding, now: datetime) -> None:
    await lent.execute(_RECORD, finding.kind, finding.reference, finding.detail, now)
