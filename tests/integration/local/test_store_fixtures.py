"""The fixtures of tests/conftest.py: isolation between tests, one server for the run."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from redis.asyncio import Redis

from easel_local.testing import Databases, Migrate


async def prepare(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE fruit (name text); INSERT INTO fruit VALUES ('pear')")
    await connection.close()


@pytest.mark.parametrize("_again", [1, 2])
async def test_each_test_has_an_empty_database(postgres_url: str, _again: int) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE TABLE mine ()")
    await connection.close()


@pytest.mark.parametrize("_again", [1, 2])
async def test_each_test_has_an_empty_redis(redis_url: str, _again: int) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.set("mine", 1, nx=True)


def test_a_database_can_be_had_without_a_loop(postgres_url: str) -> None:
    assert postgres_url.startswith("postgresql://")


async def test_copies_of_a_template_do_not_share_rows(
    migrated_database: Callable[[str, Migrate], str],
) -> None:
    calls = []

    async def migrate(url: str) -> None:
        calls.append(url)
        await prepare(url)

    first, second = (migrated_database("fruit", migrate) for _ in range(2))
    assert first != second
    assert len(calls) <= 1  # none when another process of the run was first
    one, two = await asyncio.gather(asyncpg.connect(first), asyncpg.connect(second))
    await one.execute("DELETE FROM fruit")
    assert await two.fetchval("SELECT name FROM fruit") == "pear"
    await one.close()
    await two.close()


async def test_a_plain_function_may_migrate(
    migrated_database: Callable[[str, Migrate], str],
) -> None:
    url = migrated_database("fruit_by_run", lambda address: asyncio.run(prepare(address)))
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM fruit") == 1
    await connection.close()


def test_a_failed_migration_is_reported_and_leaves_no_template(databases: Databases) -> None:
    def migrate(_url: str) -> None:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            databases.create_migrated("broken", migrate)


async def test_a_dropped_database_is_gone_although_someone_is_connected(
    databases: Databases,
) -> None:
    url = databases.create()
    connection = await asyncpg.connect(url)
    databases.drop(url)
    with pytest.raises(asyncpg.PostgresError):
        await connection.execute("SELECT 1")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)
