"""What users do to their own jobs in Postgres: cancel, move to the front, take out of sight.

Locks are taken as everywhere: jobs by id, then open_jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from easel_kit.db import Connection, Pool, transaction
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import ENDED_STATES, Job, JobState
from scheduler.domain.selection import Cancellation, Filter, Selection
from scheduler.storage.browse import find
from scheduler.storage.events import write_events
from scheduler.storage.plans import note_change
from scheduler.storage.submits import draw_fronts

_HIDE_BATCH = 2_000


class PostgresOwnLine:
    """`ports.OwnLineStore` on Postgres."""

    def __init__(self, pool: Pool, *, ring: Callable[[], None]) -> None:
        """`ring` is called when the feed has grown."""
        self._pool = pool
        self._ring = ring

    async def cancel(
        self,
        user_id: UserId,
        selection: Selection,
        *,
        waiting_only: bool = False,
        hide: bool = False,
    ) -> Cancellation:
        """See `ports.OwnLineStore`."""
        async with transaction(self._pool) as db:
            meant = await _lock_open(db, user_id, selection)
            waiting = [job_id for job_id, state in meant.items() if state is JobState.QUEUED]
            running = [job_id for job_id, state in meant.items() if state is JobState.RUNNING]
            stopping = [] if waiting_only else running
            await _cancel(db, user_id, waiting, stopping, hide=hide)
            found = await find(db, user_id, {*waiting, *stopping, *selection.job_ids})
        if waiting:
            self._ring()
        named = [found.get(job_id) for job_id in sorted(selection.job_ids - meant.keys())]
        over = tuple(job.id for job in named if job is not None and not job.is_hidden)
        return Cancellation(
            ended=_by_place(found[job_id] for job_id in waiting),
            stopping=_by_place(found[job_id] for job_id in stopping),
            running=tuple(running) if waiting_only else (),
            over=over,
            unknown=tuple(sorted(selection.job_ids - meant.keys() - set(over))),
        )

    async def prepend(self, user_id: UserId, job_ids: Sequence[JobId]) -> dict[JobId, int]:
        """See `ports.OwnLineStore`."""
        async with transaction(self._pool) as db:
            rows = await db.fetch(
                "SELECT id FROM jobs WHERE id = ANY($1) AND user_id = $2 AND state = 'queued' "
                "AND hidden_at IS NULL ORDER BY id FOR UPDATE",
                list(job_ids),
                user_id,
            )
            waiting = {row["id"] for row in rows}
            moved = [job_id for job_id in dict.fromkeys(job_ids) if job_id in waiting]
            fronts = await draw_fronts(db, len(moved))
            await db.execute(
                "UPDATE jobs SET front = told.front "
                "FROM unnest($1::text[], $2::bigint[]) AS told (id, front) "
                "WHERE jobs.id = told.id",
                moved,
                fronts,
            )
            await note_change(db, user_id)
        return dict(zip(moved, fronts, strict=True))

    async def hide(self, user_id: UserId, wanted: Filter) -> int:
        """See `ports.OwnLineStore`. A bounded number a transaction; repeated until none is left."""
        hidden = 0
        while True:
            async with transaction(self._pool) as db:
                some = await _hide(db, user_id, wanted)
            hidden += some
            if some < _HIDE_BATCH:
                return hidden


def _by_place(jobs: Iterable[Job]) -> tuple[Job, ...]:
    return tuple(sorted(jobs, key=lambda job: job.place))


async def _lock_open(
    db: Connection, user_id: UserId, selection: Selection
) -> dict[JobId, JobState]:
    rows = await db.fetch(
        """
        SELECT id, state FROM jobs
        WHERE user_id = $1 AND finished_at IS NULL AND hidden_at IS NULL
            AND ($2 OR id = ANY($3) OR batch_id = ANY($4))
        ORDER BY id FOR UPDATE
        """,
        user_id,
        selection.is_all,
        list(selection.job_ids),
        list(selection.batch_ids),
    )
    return {JobId(row["id"]): JobState(row["state"]) for row in rows}


async def _cancel(
    db: Connection,
    user_id: UserId,
    waiting: Sequence[JobId],
    stopping: Sequence[JobId],
    *,
    hide: bool,
) -> None:
    """Ends those that wait, marks those that run; all of them are locked."""
    await db.execute(
        """
        UPDATE jobs SET cancel_requested = true,
            state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END,
            finished_at = CASE state WHEN 'queued' THEN now() END,
            hidden_at = CASE WHEN $2 THEN now() END
        WHERE id = ANY($1)
        """,
        [*waiting, *stopping],
        hide,
    )
    if waiting:
        await write_events(db, waiting)
        await db.execute(
            "UPDATE open_jobs SET open = open - $2 WHERE user_id = $1", user_id, len(waiting)
        )


async def _hide(db: Connection, user_id: UserId, wanted: Filter) -> int:
    rows = await db.fetch(
        """
        WITH picked AS (
            SELECT id FROM jobs
            WHERE user_id = $1 AND state = ANY($2) AND finished_at IS NOT NULL
                AND hidden_at IS NULL AND ($3::text[] = '{}' OR batch_id = ANY($3))
            LIMIT $4
        ), locked AS (
            SELECT id FROM jobs WHERE id IN (SELECT id FROM picked) AND hidden_at IS NULL
            ORDER BY id FOR UPDATE
        )
        UPDATE jobs SET hidden_at = now() FROM locked WHERE jobs.id = locked.id RETURNING jobs.id
        """,
        user_id,
        sorted(wanted.states or ENDED_STATES),
        list(wanted.batch_ids),
        _HIDE_BATCH,
    )
    return len(rows)
