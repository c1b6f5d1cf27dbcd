"""What users see of their jobs: lists and counts, without those taken out of sight.

Open jobs of a user are few (the plan's limit) and in an index of their own; ended ones are read
state by state from an index in the order of the list, so a page costs what it shows, however long
the history is. A filter by model reads past jobs of other models.
"""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from easel_kit.db import Connection
from easel_kit.ids import BatchId, JobId, UserId
from scheduler.domain.job import Job, JobState
from scheduler.domain.selection import Filter, Mark
from scheduler.storage.rows import JOB, JOB_FROM, job_from_row

# each names a partial index: jobs_of_user_open, jobs_of_user_ended
_OPEN = "finished_at IS NULL AND hidden_at IS NULL"
_ENDED = "finished_at IS NOT NULL AND hidden_at IS NULL"


async def read_page(
    db: Connection, user_id: UserId, wanted: Filter, *, before: Mark | None, limit: int
) -> list[Job]:
    """Jobs that the filter admits, newest first, beginning after `before`."""
    values: list[object] = [user_id]
    conditions = ["user_id = $1"]

    def ask(condition: str, *asked: object) -> None:
        numbers = [f"${len(values) + n}" for n in range(1, len(asked) + 1)]
        values.extend(asked)
        conditions.append(condition.format(*numbers))

    if wanted.batch_ids:
        ask("batch_id = ANY({})", list(wanted.batch_ids))
    if wanted.model_keys:
        ask("generation ->> 'model_key' = ANY({})", list(wanted.model_keys))
    if wanted.queued_from is not None:
        ask("queued_at >= {}", wanted.queued_from)
    if wanted.queued_before is not None:
        ask("queued_at < {}", wanted.queued_before)
    if before is not None:
        ask("(queued_at, place) < ({}, {})", before.queued_at, before.place)
    values.append(limit)
    newest = f"ORDER BY queued_at DESC, place DESC LIMIT ${len(values)}"
    parts = [
        f"(SELECT id FROM jobs WHERE state = '{state}' "  # noqa: S608 (constants)
        f"AND {_ENDED if state.ended else _OPEN} AND {' AND '.join(conditions)} {newest})"
        for state in sorted(wanted.states or JobState)
    ]
    rows = await db.fetch(
        f"SELECT {JOB} FROM {JOB_FROM} "  # noqa: S608 (constants)
        f"WHERE jobs.id IN ({' UNION ALL '.join(parts)}) {newest}",
        *values,
    )
    return [job_from_row(row) for row in rows]


async def count_by_state(
    db: Connection, user_id: UserId, batch_ids: Collection[BatchId]
) -> dict[JobState, int]:
    """How many jobs of the user, or of these batches, are in each state; none is left out."""
    values: list[object] = [user_id]
    batch = ""
    if batch_ids:
        values.append(list(batch_ids))
        batch = "AND batch_id = ANY($2)"
    rows: list[asyncpg.Record] = await db.fetch(
        " UNION ALL ".join(
            f"SELECT state, count(*) FROM jobs WHERE user_id = $1 AND {kind} {batch} "  # noqa: S608 (constants)
            "GROUP BY state"
            for kind in (_OPEN, _ENDED)
        ),
        *values,
    )
    return dict.fromkeys(JobState, 0) | {JobState(row["state"]): row["count"] for row in rows}


async def find(db: Connection, user_id: UserId, job_ids: Collection[JobId]) -> dict[JobId, Job]:
    """Those of the jobs that are the user's, those out of sight too."""
    rows = await db.fetch(
        f"SELECT {JOB} FROM {JOB_FROM} WHERE jobs.id = ANY($1) AND jobs.user_id = $2",  # noqa: S608 (constants)
        list(job_ids),
        user_id,
    )
    return {JobId(row["id"]): job_from_row(row) for row in rows}
