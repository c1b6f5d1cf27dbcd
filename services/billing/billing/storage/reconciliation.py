"""Findings, when reconciliation last ran, and what it looks at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from billing.domain.feed import Finding
from billing.domain.holds import Hold
from billing.domain.reconciliation import RunKind
from billing.storage.holds import PostgresHolds
from easel_kit.db import Pool, connection
from easel_kit.errors import Internal
from easel_kit.ids import JobId

# of the session: no transaction is open while Stripe and the scheduler are asked
_LOCK = "SELECT pg_try_advisory_lock(hashtext('easel.billing.reconciliation'))"

_BEGUN_AT = "SELECT begun_at FROM reconciliation_runs WHERE kind = $1"

_DONE = "UPDATE reconciliation_runs SET begun_at = $2 WHERE kind = $1 AND begun_at < $2"

_RECORD = """
INSERT INTO reconciliation_findings (kind, reference, detail, found_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (kind, reference) DO NOTHING
RETURNING true
"""

_OPEN_HOLDS = """
SELECT job_id FROM holds
WHERE state = 'open' AND placed_at < $1 AND ($2::text IS NULL OR job_id > $2)
ORDER BY job_id LIMIT $3
"""


class PostgresRecords:
    """The ports `Records` and `OpenHolds`."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema; a run keeps one of its connections for itself."""
        self._pool = pool
        self._holds = PostgresHolds(pool)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Whether no other process reconciles, and none does until the block is left."""
        async with connection(self._pool, clean=True) as lent:
            yield bool(await lent.fetchval(_LOCK))

    async def begun_at(self, kind: RunKind) -> datetime:
        """When the last run that came to its end had begun."""
        async with connection(self._pool) as lent:
            begun_at: datetime | None = await lent.fetchval(_BEGUN_AT, kind)
        if begun_at is None:
            raise Internal("the record of a reconciliation is missing")
        return begun_at

    async def done(self, kind: RunKind, begun_at: datetime) -> None:
        """A run has come to its end."""
        async with connection(self._pool) as lent:
            await lent.execute(_DONE, kind, begun_at)

    async def record(self, finding: Finding, now: datetime) -> bool:
        """Keeps a finding; False when one of its kind and reference is there already."""
        async with connection(self._pool) as lent:
            return bool(
                await lent.fetchval(_RECORD, finding.kind, finding.reference, finding.detail, now)
            )

    async def open_holds(
        self, placed_before: datetime, after: JobId | None, limit: int
    ) -> Sequence[Hold]:
        """Open holds by job id, only those with one above `after`."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_OPEN_HOLDS, placed_before, after, limit)
        found = await self._holds.find([JobId(row["job_id"]) for row in rows])
        return sorted(found, key=lambda hold: hold.job_id)
