"""The schema: up from nothing, down and up again, and what its constraints refuse."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from pydantic import SecretStr

from easel_kit import migrations
from scheduler.main import _MIGRATIONS, SCHEMA, migrate
from scheduler.settings import Settings
from tests.fakes.scheduler_stack import SchedulerStack

TABLES = {"attempts", "events", "feed", "jobs", "open_jobs", "results", "tombstones"}


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'scheduler' "
        "AND tablename <> 'alembic_version'"
    )
    await connection.close()
    return {row[0] for row in rows}


async def test_up_from_empty_down_and_up_again(postgres_url: str) -> None:
    settings = Settings(
        database_url=SecretStr(postgres_url), redis_url=SecretStr("redis://127.0.0.1:1")
    )
    await asyncio.to_thread(migrate, settings)
    assert await tables(postgres_url) == TABLES
    await asyncio.to_thread(migrate, settings)
    await asyncio.to_thread(migrations.downgrade, _MIGRATIONS, postgres_url, SCHEMA)
    assert await tables(postgres_url) == set()
    await asyncio.to_thread(migrate, settings)
    assert await tables(postgres_url) == TABLES


async def test_the_database_refuses_a_second_end_and_a_negative_count(
    stack: SchedulerStack,
) -> None:
    (job,) = await stack.submit()
    await stack.cancel(job.id)
    with pytest.raises(asyncpg.UniqueViolationError):
        await stack.execute(
            """
            INSERT INTO events (generation, type, job_id, user_id, occurred_at, steps_done, steps,
                images, traceparent)
            VALUES (1, 'succeeded', $1, 'alice', now(), 0, 10, '[]', '')
            """,
            job.id,
        )
    with pytest.raises(asyncpg.CheckViolationError):
        await stack.execute("UPDATE open_jobs SET open = -1")
