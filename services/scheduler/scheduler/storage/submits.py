"""Submits in Postgres: a group of them in one transaction, each accepted whole or refused whole.

A group of new jobs within all limits, which nearly every group is, is one call of the function
`accept_jobs` and so one round trip with its commit. Any other group takes several: one statement
locks the users, by id, and counts all they ask for; the rules are applied to what it found; one
more writes what was accepted. A submit waits for users first and then only for another
transaction that submits the same id, never for a job that an end or a cancel has locked: so it
cannot meet in a circle with those, which lock jobs by id and then users by id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import asyncpg

from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.errors import Conflict, DomainError, InvalidState, NotFound, RateLimited
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import Entitlements, Job, JobState, NewJob, Submission
from scheduler.domain.line import Accepted
from scheduler.domain.policy import Share
from scheduler.storage.generations import generation_to_json
from scheduler.storage.rows import JOB, JOB_FROM, job_from_row, share_from_row

BURIAL_LOCK = 0x6561_7365_6C01
"""Submits hold it shared, the burial of an unknown id alone: no id is submitted and buried."""

_MIN_RETRY_S, _MAX_RETRY_S = 1.0, 60.0
# An id that another transaction commits meanwhile is known at the second look.
_LOOKS = 2

_PLAN = ("version", "priority", "weight", "max_running", "max_waiting", "queue_time_s")
_NEWER = ", ".join(
    f"{column} = CASE WHEN excluded.version >= old.version THEN excluded.{column} "
    f"ELSE old.{column} END"
    for column in _PLAN
)


class PostgresSubmits:
    """`ports.JobStore.submit` on Postgres."""

    def __init__(self, pool: Pool, *, lane: str, ring: Callable[[], None]) -> None:
        """`lane` becomes the home of a user without open jobs; `ring`: the feed has grown."""
        self._pool = pool
        self._lane = lane
        self._ring = ring

    async def submit(self, submissions: Sequence[Submission]) -> list[Accepted | DomainError]:
        """See `ports.JobStore`."""
        for _ in range(_LOOKS):
            try:
                found = await self._accept_all(submissions) or await self._submit(submissions)
            except asyncpg.UniqueViolationError:
                continue
            if any(isinstance(one, Accepted) and one.fresh for one in found):
                self._ring()
            return found
        raise Conflict("the job is being submitted by someone else")

    async def _accept_all(
        self, submissions: Sequence[Submission]
    ) -> list[Accepted | DomainError] | None:
        """All of a plain group; None, and nothing has happened, where it is not plain."""
        if any(submission.prepend for submission in submissions):
            return None
        jobs = [(one, job) for one in submissions for job in one.jobs]
        try:
            async with connection(self._pool) as db:
                rows = await db.fetch(
                    "SELECT * FROM accept_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, "
                    "$13, $14, $15, $16, $17)",
                    BURIAL_LOCK,
                    self._lane,
                    *_asked(submissions),
                    [job.id for _, job in jobs],
                    [one.user_id for one, _ in jobs],
                    [json.dumps(generation_to_json(job.generation)) for _, job in jobs],
                    [job.cost_ms for _, job in jobs],
                    [one.traceparent for one, _ in jobs],
                    [one.batch_id for one, _ in jobs],
                    [job.retry_of for _, job in jobs],
                )
        except (asyncpg.RaiseError, asyncpg.UniqueViolationError):
            return None
        found = {row["id"]: row for row in rows}
        return [
            Accepted(
                [_written(one, job, found[job.id]) for job in one.jobs],
                frozenset(job.id for job in one.jobs),
                share_from_row(found[one.jobs[0].id]),
            )
            for one in submissions
        ]

    async def _submit(self, submissions: Sequence[Submission]) -> list[Accepted | DomainError]:
        lock = f"SELECT pg_advisory_xact_lock_shared({BURIAL_LOCK})"
        async with transaction(self._pool, first=lock) as db:
            group = await _look(db, submissions, self._lane)
            answers = [group.take(submission) for submission in submissions]
            if group.refused:
                await _explain(db, group.refused)
            if group.excess:
                await _uncount(db, group.excess)
            if group.fresh:
                group.known |= await _insert(db, list(group.fresh.values()))
        return [one if isinstance(one, DomainError) else one.told(group.known) for one in answers]


@dataclass(slots=True)
class _User:
    """A user's row under its lock."""

    open: int
    """Jobs that wait or run, with those that this group has accepted so far."""
    most: int
    queue_time_s: int
    home_lane: str
    share: Share


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A job that is accepted."""

    job: NewJob
    submission: Submission
    user: _User


def _written(submission: Submission, job: NewJob, row: asyncpg.Record) -> Job:
    return Job(
        id=job.id,
        user_id=submission.user_id,
        state=JobState.QUEUED,
        generation=job.generation,
        cost_ms=job.cost_ms,
        place=row["place"],
        queued_at=row["queued_at"],
        start_by=row["start_by"],
        traceparent=submission.traceparent,
        batch_id=submission.batch_id,
        retry_of=job.retry_of,
        lane=row["home_lane"],
        front=row.get("front"),
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    """A submission that is accepted."""

    submission: Submission
    user: _User
    fresh: frozenset[JobId]

    def told(self, jobs: dict[JobId, Job]) -> Accepted:
        return Accepted([jobs[job.id] for job in self.submission.jobs], self.fresh, self.user.share)


@dataclass(slots=True)
class _Group:
    """Takes submissions one by one; each sees what those before it have changed."""

    users: dict[UserId, _User]
    known: dict[JobId, Job]
    buried: Collection[JobId]
    fresh: dict[JobId, _Fresh] = field(default_factory=dict)
    refused: list[tuple[UserId, RateLimited]] = field(default_factory=list)
    excess: dict[UserId, int] = field(default_factory=dict)
    """Jobs that were counted as open and are not."""

    def take(self, submission: Submission) -> _Taken | DomainError:
        """Accepts all its jobs or none."""
        user = self.users[submission.user_id]
        fresh: list[NewJob] = []
        try:
            fresh += [job for job in submission.jobs if not self._is_known(submission.user_id, job)]
            if fresh and user.open + len(fresh) > user.most:
                raise self._over(submission.user_id, user, len(fresh))
        except DomainError as error:
            fresh.clear()
            return error
        else:
            user.open += len(fresh)
            self.fresh |= {job.id: _Fresh(job, submission, user) for job in fresh}
            return _Taken(submission, user, frozenset(job.id for job in fresh))
        finally:
            if left := len(submission.jobs) - len(fresh):
                self.excess[submission.user_id] = self.excess.get(submission.user_id, 0) + left

    def _is_known(self, user_id: UserId, job: NewJob) -> bool:
        if (just := self.fresh.get(job.id)) is not None:
            owner, generation = just.submission.user_id, just.job.generation
        elif (known := self.known.get(job.id)) is not None:
            owner, generation = known.user_id, known.generation
        elif job.id in self.buried:
            raise InvalidState(f"job {job.id} came too late: it was already given up")
        else:
            return False
        if owner != user_id:
            raise NotFound("job", job.id)
        if generation != job.generation:
            raise Conflict(f"job {job.id} was submitted with another request")
        return True

    def _over(self, user_id: UserId, user: _User, requested: int) -> RateLimited:
        error = RateLimited(
            "Too many concurrent requests",
            limit=user.most,
            current=user.open,
            requested=requested,
        )
        self.refused.append((user_id, error))
        return error


def _asked(submissions: Sequence[Submission]) -> list[list[Any]]:
    """Columns: users by id, how many jobs each asks for, and the numbers of their newest plans."""
    asked: dict[UserId, int] = {}
    plans: dict[UserId, Entitlements] = {}
    for one in submissions:
        asked[one.user_id] = asked.get(one.user_id, 0) + len(one.jobs)
        if one.entitlements.version >= plans.setdefault(one.user_id, one.entitlements).version:
            plans[one.user_id] = one.entitlements
    users = sorted(asked)
    return [
        list(users),
        [asked[user_id] for user_id in users],
        *([getattr(plans[user_id], field) for user_id in users] for field in _PLAN),
    ]


async def _look(db: Connection, submissions: Sequence[Submission], lane: str) -> _Group:
    """Locks the users' rows with their newest plans, and finds the ids that are not new."""
    columns = _asked(submissions)
    asked = dict(zip(columns[0], columns[1], strict=True))
    rows = await db.fetch(
        f"""
        WITH counted AS (
            INSERT INTO open_jobs AS old (home_lane, user_id, open, {", ".join(_PLAN)})
            SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::int[], $6::int[],
                $7::int[], $8::int[], $9::int[])
            ON CONFLICT (user_id) DO UPDATE SET {_NEWER}, open = old.open + excluded.open,
                home_lane = CASE WHEN old.open = 0 THEN excluded.home_lane ELSE old.home_lane END
            RETURNING user_id, open, home_lane, {", ".join(_PLAN)}
        )
        SELECT counted.*,
            ARRAY(SELECT id FROM jobs WHERE id = ANY($10)) AS known,
            ARRAY(SELECT job_id FROM tombstones WHERE job_id = ANY($10)) AS buried
        FROM counted
        """,  # noqa: S608 (constants)
        lane,
        *columns,
        [job.id for one in submissions for job in one.jobs],
    )
    known = rows[0]["known"]
    return _Group(
        users={
            row["user_id"]: _User(
                open=row["open"] - asked[row["user_id"]],
                most=row["max_running"] + row["max_waiting"],
                queue_time_s=row["queue_time_s"],
                home_lane=row["home_lane"],
                share=share_from_row(row),
            )
            for row in rows
        },
        known=await _read(db, known) if known else {},
        buried=rows[0]["buried"],
    )


async def _read(db: Connection, job_ids: Sequence[JobId]) -> dict[JobId, Job]:
    rows = await db.fetch(
        f"SELECT {JOB} FROM {JOB_FROM} WHERE jobs.id = ANY($1)",  # noqa: S608 (constants)
        job_ids,
    )
    return {row["id"]: job_from_row(row) for row in rows}


async def _explain(db: Connection, refused: Sequence[tuple[UserId, RateLimited]]) -> None:
    """Says when another try is worth it: once the shortest of the user's open jobs may be done."""
    rows = await db.fetch(
        """
        SELECT asked.id, (
            SELECT min(cost_ms) FROM jobs WHERE user_id = asked.id AND finished_at IS NULL
        ) AS soonest_ms
        FROM (SELECT DISTINCT unnest($1::text[]) AS id) AS asked
        """,
        [user_id for user_id, _ in refused],
    )
    soonest_ms = {row["id"]: row["soonest_ms"] or 0 for row in rows}
    for user_id, error in refused:
        wait_s = soonest_ms[user_id] / 1000
        error.retry_after_s = min(_MAX_RETRY_S, max(_MIN_RETRY_S, wait_s))


async def _uncount(db: Connection, excess: dict[UserId, int]) -> None:
    """Takes back what was counted for jobs that were refused or known; the rows are locked."""
    await db.execute(
        """
        UPDATE open_jobs SET open = open - excess.count
        FROM unnest($1::text[], $2::int[]) AS excess (user_id, count)
        WHERE open_jobs.user_id = excess.user_id
        """,
        list(excess),
        list(excess.values()),
    )


async def _insert(db: Connection, fresh: Sequence[_Fresh]) -> dict[JobId, Job]:
    rows = await db.fetch(
        """
        WITH fresh AS (
            INSERT INTO jobs (id, user_id, lane, state, generation, cost_ms, queued_at, start_by,
                traceparent, batch_id, retry_of, front)
            SELECT id, user_id, lane, 'queued', generation::jsonb, cost_ms, now(),
                now() + queue_time_s * interval '1 second', traceparent, batch_id, retry_of, front
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::int[],
                    $7::text[], $8::text[], $9::text[], $10::bigint[]) WITH ORDINALITY
                AS asked (id, user_id, lane, generation, cost_ms, queue_time_s, traceparent,
                    batch_id, retry_of, front, n)
            ORDER BY n
            RETURNING id, user_id, lane, place, front, queued_at, start_by, traceparent,
                total_steps(generation) AS steps
        ), told AS (
            INSERT INTO events (generation, type, job_id, user_id, occurred_at, steps_done, steps,
                images, traceparent)
            SELECT feed.generation, 'queued', id, user_id, queued_at, 0, steps, '[]', traceparent
            FROM fresh, feed ORDER BY place
        )
        SELECT id, lane AS home_lane, place, front, queued_at, start_by FROM fresh
        """,
        [one.job.id for one in fresh],
        [one.submission.user_id for one in fresh],
        [one.user.home_lane for one in fresh],
        [json.dumps(generation_to_json(one.job.generation)) for one in fresh],
        [one.job.cost_ms for one in fresh],
        [one.user.queue_time_s for one in fresh],
        [one.submission.traceparent for one in fresh],
        [one.submission.batch_id for one in fresh],
        [one.job.retry_of for one in fresh],
        await _fronts(db, fresh),
    )
    found = {row["id"]: row for row in rows}
    return {one.job.id: _written(one.submission, one.job, found[one.job.id]) for one in fresh}


async def _fronts(db: Connection, fresh: Sequence[_Fresh]) -> list[int | None]:
    """Of each job: those of a later submission come before those of an earlier one."""
    wanted = sum(one.submission.prepend for one in fresh)
    if not wanted:
        return [None] * len(fresh)
    drawn = await draw_fronts(db, wanted)
    fronts: list[int | None] = []
    for _, jobs in groupby(fresh, key=lambda one: id(one.submission)):
        prepends = [one.submission.prepend for one in jobs]
        if prepends[0]:
            fronts += drawn[-len(prepends) :]
            del drawn[-len(prepends) :]
        else:
            fronts += [None] * len(prepends)
    return fronts


async def draw_fronts(db: Connection, count: int) -> list[int]:
    """Values of `jobs.front` before all that were drawn until now, ascending."""
    rows = await db.fetch("SELECT -nextval('fronts') AS front FROM generate_series(1, $1)", count)
    return sorted(row["front"] for row in rows)
