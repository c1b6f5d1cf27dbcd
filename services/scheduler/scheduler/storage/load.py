"""How full a lane is, counted in Postgres: the truth, also while the queue is away."""

from __future__ import annotations

from easel_kit.db import Pool, connection
from easel_kit.ids import ModelKey
from scheduler.domain.load import Load, ModelLoad, TierLoad


class PostgresLoad:
    """`ports.LoadStore` on Postgres."""

    def __init__(self, pool: Pool, *, lane: str) -> None:
        """Counts the open jobs of `lane`."""
        self._pool = pool
        self._lane = lane

    async def load(self) -> Load:
        """See `ports.LoadStore`. One pass over the index of open jobs."""
        async with connection(self._pool) as db:
            rows = await db.fetch(
                """
                SELECT priority, model_key, max(weight) AS weight,
                    count(*) FILTER (WHERE waits) AS waiting,
                    count(*) FILTER (WHERE NOT waits) AS running,
                    count(DISTINCT user_id) FILTER (WHERE waits) AS waiting_users,
                    coalesce(sum(cost_ms) FILTER (WHERE waits), 0)::bigint AS waiting_cost_ms,
                    coalesce(extract(epoch FROM now() - min(queued_at) FILTER (WHERE waits)), 0)
                        AS oldest_waiting_s
                FROM (
                    SELECT user_id, priority, weight, generation ->> 'model_key' AS model_key,
                        cost_ms, queued_at, state = 'queued' AS waits
                    FROM jobs JOIN open_jobs USING (user_id)
                    WHERE lane = $1 AND finished_at IS NULL
                ) AS open
                GROUP BY GROUPING SETS (priority, model_key)
                ORDER BY priority DESC, model_key
                """,
                self._lane,
            )
        return Load(
            tiers=tuple(
                TierLoad(
                    priority=row["priority"],
                    weight=row["weight"],
                    waiting=row["waiting"],
                    running=row["running"],
                    waiting_users=row["waiting_users"],
                )
                for row in rows
                if row["model_key"] is None
            ),
            models=tuple(
                ModelLoad(
                    model_key=ModelKey(row["model_key"]),
                    waiting=row["waiting"],
                    running=row["running"],
                    waiting_cost_ms=row["waiting_cost_ms"],
                    oldest_waiting_s=max(0.0, float(row["oldest_waiting_s"])),
                )
                for row in rows
                if row["model_key"] is not None
            ),
        )
