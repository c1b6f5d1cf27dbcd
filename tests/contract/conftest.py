"""The scheduler's database, once in memory and once in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr

from easel_kit.db import open_pool
from easel_local.testing import Migrate
from scheduler.main import SCHEMA, migrate
from scheduler.settings import Settings
from tests.fakes.scheduler_contract import Store, in_memory, on_postgres


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Each test runs on both."""
    if request.param == "memory":
        yield in_memory()
        return

    def prepare(url: str) -> None:
        migrate(Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://127.0.0.1:1")))

    migrated_database: Callable[[str, Migrate], str] = request.getfixturevalue("migrated_database")
    url = await asyncio.to_thread(migrated_database, "scheduler", prepare)
    async with open_pool(url, schema=SCHEMA, name="test") as pool:
        yield on_postgres(pool)
