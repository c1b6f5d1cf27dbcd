"""The ledger as users read it."""

from __future__ import annotations

from collections.abc import Sequence

from billing.domain.accounts import AccountId
from billing.domain.ledger import Kind, Line
from easel_kit.db import Pool, connection
from easel_kit.ids import JobId

_LINES = """
SELECT id, sequence, kind, reference, description, available_change, available_after, booked_at
FROM transfers
WHERE account_id = $1
  AND ($2::bigint IS NULL OR sequence < $2)
  AND ($3::text IS NULL OR job_id = $3)
ORDER BY sequence DESC
LIMIT $4
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
        return [
            Line(
                id=row["id"],
                sequence=row["sequence"],
                kind=Kind(row["kind"]),
                reference=row["reference"],
                description=row["description"],
                available_change=row["available_change"],
                available_after=row["available_after"],
                booked_at=row["booked_at"],
            )
            for row in rows
        ]
