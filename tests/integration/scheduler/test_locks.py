"""Two replicas write jobs of the same users at once: no circle of waits, and exact counts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from random import Random

from easel_kit.db import Pool, open_pool
from easel_kit.errors import DomainError, InvalidState, RateLimited
from easel_kit.ids import UserId, WorkerId, new_attempt_id, new_job_id
from scheduler.domain.job import Job, NewJob, Submission
from scheduler.domain.lease import Claim, Outcome, Report
from scheduler.domain.selection import Selection
from scheduler.main import SCHEMA
from scheduler.storage.jobs import PostgresJobs
from scheduler.storage.submits import BURIAL_LOCK
from tests.fakes.scheduler_contract import ALICE, PICTURE, PLAN, Store, on_postgres

USERS = [UserId(f"user-{number}") for number in range(4)]
ROUNDS = 25
_OUTCOMES = (Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.HANDED_BACK, Outcome.REFUSED)


class Hustle:
    """One of many that work on the jobs of all users, in an order of its own."""

    def __init__(self, store: Store, seed: int, jobs: list[Job]) -> None:
        self._store = store
        self._random = Random(seed)
        self._jobs = jobs

    async def run(self) -> None:
        for _ in range(ROUNDS):
            step = self._random.choice((self._submit, self._submit, self._claim, self._cancel))
            await step()

    def _some(self, most: int) -> list[Job]:
        return self._random.sample(self._jobs, min(len(self._jobs), most))

    async def _submit(self) -> None:
        users = self._random.sample(USERS, self._random.randint(1, len(USERS)))
        submissions = [
            Submission(user, PLAN, tuple(NewJob(new_job_id(), PICTURE, 100) for _ in range(count)))
            for user in users
            for count in (self._random.randint(1, 2),)
        ]
        for answer in await self._store.jobs.submit(submissions):
            if isinstance(answer, DomainError):
                assert isinstance(answer, RateLimited)
            else:
                self._jobs.extend(answer.jobs)

    async def _claim(self) -> None:
        claims = [
            Claim(new_attempt_id(), job.id, job.user_id, WorkerId("w"), number, datetime.now(UTC))
            for job in self._some(5)
            for number in (self._random.randint(1, 3),)
        ]
        if self._random.random() < 0.5:
            await self._store.attempts.record(claims)
        reports = [Report(claim, self._random.choice(_OUTCOMES), 5) for claim in claims]
        await self._store.attempts.settle(reports)

    async def _cancel(self) -> None:
        user = self._random.choice(USERS)
        mine = frozenset(job.id for job in self._some(6) if job.user_id == user)
        await self._store.own_line.cancel(user, Selection(mine))


async def counted(pool: Pool) -> dict[UserId, tuple[int, int]]:
    """Of each user: what is counted as open, and what is."""
    rows = await pool.fetch(
        "SELECT user_id, open, (SELECT count(*) FROM jobs WHERE jobs.user_id = open_jobs.user_id "
        "AND finished_at IS NULL) AS really FROM open_jobs"
    )
    return {row["user_id"]: (row["open"], row["really"]) for row in rows}


async def test_writers_of_the_same_users_never_wait_in_a_circle(scheduler_url: str) -> None:
    async with (
        open_pool(scheduler_url, schema=SCHEMA, name="one", max_size=4) as one,
        open_pool(scheduler_url, schema=SCHEMA, name="two", max_size=4) as two,
    ):
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        before = await one.fetchval(deadlocks)
        jobs: list[Job] = []
        hustle = [Hustle(on_postgres(pool), seed, jobs) for seed in range(4) for pool in (one, two)]
        await asyncio.gather(*(each.run() for each in hustle))
        assert await one.fetchval(deadlocks) == before
        found = await counted(one)
        assert set(found) == set(USERS)
        assert all(count == really <= PLAN.max_open for count, really in found.values())
        ends = await one.fetchval("SELECT count(*) FROM events WHERE type <> 'queued'")
        assert ends == await one.fetchval("SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL")
        assert ends > len(hustle)


async def test_a_burial_under_way_is_waited_for(scheduler_url: str) -> None:
    async with open_pool(scheduler_url, schema=SCHEMA, name="test") as pool:
        store = PostgresJobs(pool, lane="default", ring=lambda: None)
        job_id = new_job_id()
        job = NewJob(job_id, PICTURE, 100)
        async with pool.acquire() as burial, burial.transaction():
            await burial.execute("SELECT pg_advisory_xact_lock($1)", BURIAL_LOCK)
            submit = asyncio.create_task(store.submit([Submission(ALICE, PLAN, (job,), "")]))
            waits = """
                SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid
                WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
                """
            while not await burial.fetchval(waits):  # noqa: ASYNC110 (seen in the database)
                await asyncio.sleep(0.01)
            await burial.execute("INSERT INTO tombstones (job_id) VALUES ($1)", job_id)
        (answer,) = await submit
        assert isinstance(answer, InvalidState)
        assert await pool.fetchval("SELECT count(*) FROM jobs") == 0
        assert await pool.fetchval("SELECT coalesce(sum(open), 0) FROM open_jobs") == 0
