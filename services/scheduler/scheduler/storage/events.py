"""The event feed in Postgres: written with each change of state, read in commit order.

Order is (generation, transaction id, sequence). A row whose transaction id is at or above the
oldest one still running is held back, so that a transaction that commits late is not skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.errors import OutOfRange
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import Cursor, Event, EventType
from scheduler.storage.codec import images_from_json
from scheduler.storage.rows import error_from_row

_PRUNE_BATCH = 5_000


async def write_events(db: Connection, job_ids: Sequence[JobId]) -> None:
    """Writes an event of each job's state now, in the order given, in the caller's transaction."""
    await db.execute(
        """
        INSERT INTO events (generation, type, job_id, user_id, occurred_at, steps_done, steps,
            images, error_code, error_message, traceparent)
        SELECT feed.generation, jobs.state, jobs.id, jobs.user_id,
            coalesce(jobs.finished_at, jobs.queued_at), jobs.steps_done,
            total_steps(jobs.generation),
            coalesce(results.images, '[]'), jobs.error_code, jobs.error_message, jobs.traceparent
        FROM feed, unnest($1::text[]) WITH ORDINALITY AS told (id, n)
            JOIN jobs USING (id) LEFT JOIN results ON results.job_id = jobs.id
        ORDER BY told.n
        """,
        list(job_ids),
    )


class PostgresFeed:
    """`ports.FeedStore` on Postgres."""

    def __init__(self, pool: Pool) -> None:
        """Reads through the pool."""
        self._pool = pool

    async def events(self, after: Cursor, *, limit: int) -> tuple[list[Event], bool]:
        """See `ports.FeedStore`."""
        async with connection(self._pool) as db:
            # one snapshot: what it cannot see yet is at or above its xmin
            rows = await db.fetch(
                """
                SELECT events.*, events.generation < feed.generation OR transaction_id
                    < pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS settled
                FROM events, feed
                WHERE (events.generation, transaction_id, sequence) > ($1, $2, $3)
                ORDER BY events.generation, transaction_id, sequence LIMIT $4
                """,
                after.generation,
                after.transaction_id,
                after.sequence,
                limit,
            )
            await _check(db, after)  # after the rows: what was removed meanwhile is noticed
        events = [
            Event(
                cursor=Cursor(row["generation"], row["transaction_id"], row["sequence"]),
                type=EventType(row["type"]),
                job_id=JobId(row["job_id"]),
                user_id=UserId(row["user_id"]),
                occurred_at=row["occurred_at"],
                steps_done=row["steps_done"],
                steps=row["steps"],
                images=images_from_json(row["images"]),
                error=error_from_row(row),
                traceparent=row["traceparent"],
            )
            for row in rows
            if row["settled"]
        ]
        return events, len(events) < len(rows)

    async def prune(self, *, older_than_s: float) -> int:
        """See `ports.FeedStore`. Removes a bounded number, oldest first."""
        async with transaction(self._pool) as db:
            row = await db.fetchrow(
                """
                WITH old AS (
                    DELETE FROM events WHERE (generation, transaction_id, sequence) IN (
                        SELECT generation, transaction_id, sequence FROM events
                        WHERE occurred_at < now() - $1 * interval '1 second'
                        ORDER BY generation, transaction_id, sequence LIMIT $2)
                    RETURNING generation, transaction_id, sequence
                )
                SELECT count(*) OVER () AS removed, * FROM old
                ORDER BY generation DESC, transaction_id DESC, sequence DESC LIMIT 1
                """,
                older_than_s,
                _PRUNE_BATCH,
            )
            if row is None:
                return 0
            await db.execute(
                """
                UPDATE feed SET pruned_generation = $1, pruned_transaction_id = $2,
                    pruned_sequence = $3
                WHERE (pruned_generation, pruned_transaction_id, pruned_sequence) < ($1, $2, $3)
                """,
                row["generation"],
                row["transaction_id"],
                row["sequence"],
            )
        return int(row["removed"])


async def _check(db: Connection, after: Cursor) -> None:
    row = await db.fetchrow(
        "SELECT generation, pruned_generation, pruned_transaction_id, pruned_sequence FROM feed"
    )
    assert row is not None  # noqa: S101 (the migration has written it)
    kept = Cursor(*row[1:])
    if Cursor() < after < kept:  # the zero cursor is no place: it begins with what is kept
        raise OutOfRange("the cursor lies below what the feed still keeps")
    if after.generation > row["generation"]:
        raise OutOfRange("the cursor belongs to a later life of this database")
