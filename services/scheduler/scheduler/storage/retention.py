"""History in Postgres: what has ended long ago is removed."""

from __future__ import annotations

from easel_kit.db import Pool, transaction

_BATCH = 1_000


class PostgresHistory:
    """`ports.HistoryStore` on Postgres."""

    def __init__(self, pool: Pool) -> None:
        """Removes through the pool."""
        self._pool = pool

    async def remove(self, *, older_than_s: float) -> int:
        """See `ports.HistoryStore`. Passes by what another transaction holds."""
        async with transaction(self._pool) as db:
            rows = await db.fetch(
                "SELECT id FROM jobs WHERE finished_at < now() - $1 * interval '1 second' "
                "ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED",
                older_than_s,
                _BATCH,
            )
            ended = [row["id"] for row in rows]
            for table, column in (("results", "job_id"), ("attempts", "job_id"), ("jobs", "id")):
                await db.execute(f"DELETE FROM {table} WHERE {column} = ANY($1)", ended)  # noqa: S608 (constants)
            buried = await db.fetch(
                """
                DELETE FROM tombstones WHERE job_id IN (
                    SELECT job_id FROM tombstones
                    WHERE buried_at < now() - $1 * interval '1 second' LIMIT $2
                    FOR UPDATE SKIP LOCKED)
                RETURNING job_id
                """,
                older_than_s,
                _BATCH,
            )
        return len(ended) + len(buried)
