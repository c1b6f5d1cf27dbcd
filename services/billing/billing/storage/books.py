"""The ledger as users read it: lines, months, what jobs cost."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from billing.domain.accounts import AccountId, Period
from billing.domain.ledger import Kind, Line
from billing.domain.pricing import Work
from billing.domain.statement import Excerpt
from billing.domain.usage import Usage, UsageLine, UsagePlace, UsageQuery
from easel_kit.db import Pool, connection
from easel_kit.ids import JobId, ModelKey

_SELECT = """
SELECT id, sequence, kind, reference, description, available_change, available_after, booked_at
FROM transfers
WHERE account_id = $1
"""

_LINES = (
    _SELECT
    + """
  AND ($2::bigint IS NULL OR sequence < $2)
  AND ($3::text IS NULL OR job_id = $3)
ORDER BY sequence DESC
LIMIT $4
"""
)

_PART = _SELECT + "AND sequence > $2 AND sequence <= $3 ORDER BY sequence LIMIT $4"

# By sequence, which has no gaps: clocks of several replicas may differ where months meet.
_LAST_BEFORE = """
SELECT sequence, available_after FROM transfers
WHERE account_id = $1 AND booked_at < $2 ORDER BY sequence DESC LIMIT 1
"""

# A barred hold is of a job that never was: its submit was refused.
_ENDED = """
FROM holds
WHERE account_id = $1 AND state <> 'open' AND NOT barred
  AND ($2::timestamptz IS NULL OR ended_at >= $2)
  AND ($3::timestamptz IS NULL OR ended_at < $3)
"""

_USAGE = f"""
SELECT job_id, ended_at, model_key, width_px, height_px, steps, image_count, pixel_steps,
       millicredits, captured_millicredits, reason
{_ENDED}
  AND ($4::timestamptz IS NULL OR (ended_at, job_id) < ($4, $5::text))
ORDER BY ended_at DESC, job_id DESC
LIMIT $6
"""

_TOTALS = f"""
SELECT coalesce(sum(captured_millicredits), 0)::bigint AS charged, count(*) AS jobs {_ENDED}
"""


class PostgresLedger:
    """The port `Ledger`."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool

    async def lines(
        self, account_id: AccountId, *, before: int | None, job_id: JobId | None, limit: int
    ) -> Sequence[Line]:
        """Newest first, only those with a sequence below `before`."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_LINES, account_id, before, job_id, limit)
        return [_line(row) for row in rows]

    async def excerpt(self, account_id: AccountId, period: Period) -> Excerpt:
        """Where the ledger's lines of a period begin and end, and the balance there."""
        async with connection(self._pool) as lent:
            first = await lent.fetchrow(_LAST_BEFORE, account_id, period.start)
            last = await lent.fetchrow(_LAST_BEFORE, account_id, period.end)
        after, opening = (0, 0) if first is None else first
        up_to, closing = (0, 0) if last is None else last
        return Excerpt(after, up_to, opening, closing)

    async def part(
        self, account_id: AccountId, *, after: int, up_to: int, limit: int
    ) -> Sequence[Line]:
        """Oldest first, those with a sequence above `after`, up to and with `up_to`."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_PART, account_id, after, up_to, limit)
        return [_line(row) for row in rows]

    async def usage(self, account_id: AccountId, query: UsageQuery) -> Usage:
        """What the account's jobs cost."""
        span = (account_id, query.since, query.until)
        place = (None, None) if query.below is None else (query.below.ended_at, query.below.job_id)
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_USAGE, *span, *place, query.limit)
            totals = await lent.fetchrow(_TOTALS, *span)
        charged, jobs = (0, 0) if totals is None else totals
        return Usage([_usage_line(row) for row in rows], charged, jobs)


def _line(row: asyncpg.Record) -> Line:
    return Line(
        id=row["id"],
        sequence=row["sequence"],
        kind=Kind(row["kind"]),
        reference=row["reference"],
        description=row["description"],
        available_change=row["available_change"],
        available_after=row["available_after"],
        booked_at=row["booked_at"],
    )


def _usage_line(row: asyncpg.Record) -> UsageLine:
    return UsageLine(
        place=UsagePlace(row["ended_at"], JobId(row["job_id"])),
        work=Work(
            ModelKey(row["model_key"]),
            row["width_px"],
            row["height_px"],
            row["steps"],
            row["image_count"],
            row["pixel_steps"],
        ),
        held=row["millicredits"],
        charged=row["captured_millicredits"],
        reason=row["reason"],
    )
