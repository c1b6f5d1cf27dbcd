"""Users' plans in Postgres as they change outside a submit, and what the queue has to hear.

`open_jobs.changed_at` says when a plan or the order of a user's line was changed: the queue may
not have heard of it, since the replica was one of another lane, or could not reach it.
"""

from __future__ import annotations

from collections import defaultdict

import asyncpg

from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import Entitlements
from scheduler.domain.selection import PlanChange
from scheduler.storage.rows import share_from_row


class PostgresPlans:
    """`ports.PlanStore` on Postgres."""

    def __init__(self, pool: Pool, *, lane: str) -> None:
        """`lane` becomes the home of users who are not known yet."""
        self._pool = pool
        self._lane = lane

    async def entitle(self, user_id: UserId, plan: Entitlements) -> tuple[Entitlements, str]:
        """See `ports.PlanStore`."""
        async with transaction(self._pool) as db:
            await db.execute(
                """
                INSERT INTO open_jobs AS known (user_id, version, priority, weight, max_running,
                    max_waiting, queue_time_s, home_lane)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                ON CONFLICT (user_id) DO UPDATE SET version = $2, priority = $3, weight = $4,
                    max_running = $5, max_waiting = $6, queue_time_s = $7
                WHERE known.version <= $2
                """,
                user_id,
                plan.version,
                plan.priority,
                plan.weight,
                plan.max_running,
                plan.max_waiting,
                plan.queue_time_s,
                self._lane,
            )
            await note_change(db, user_id)
            row = await db.fetchrow(
                "SELECT version, priority, weight, max_running, max_waiting, queue_time_s, "
                "home_lane FROM open_jobs WHERE user_id = $1",
                user_id,
            )
        assert row is not None  # noqa: S101 (just written)
        return Entitlements(*row[:-1]), row["home_lane"]

    async def changes(self, *, within_s: float | None) -> list[PlanChange]:
        """See `ports.PlanStore`."""
        async with connection(self._pool) as db:
            users = await db.fetch(
                """
                SELECT user_id, version, priority, weight, max_running FROM open_jobs
                WHERE changed_at IS NOT NULL AND open > 0 AND home_lane = $1
                    AND ($2::float8 IS NULL OR changed_at > now() - $2 * interval '1 second')
                """,
                self._lane,
                within_s,
            )
            orders = await _orders(db, users)
        return [
            PlanChange(UserId(row["user_id"]), share_from_row(row), orders[row["user_id"]])
            for row in users
        ]


async def _orders(db: Connection, users: list[asyncpg.Record]) -> dict[str, dict[JobId, int]]:
    rows = await db.fetch(
        "SELECT id, user_id, front FROM jobs "
        "WHERE user_id = ANY($1) AND finished_at IS NULL AND front IS NOT NULL",
        [row["user_id"] for row in users],
    )
    found: dict[str, dict[JobId, int]] = defaultdict(dict)
    for row in rows:
        found[row["user_id"]][JobId(row["id"])] = row["front"]
    return found


async def note_change(db: Connection, user_id: UserId) -> None:
    """The queue of the user's lane is to be told, should it not have heard."""
    await db.execute("UPDATE open_jobs SET changed_at = now() WHERE user_id = $1", user_id)
