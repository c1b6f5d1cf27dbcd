"""Pools and clients of the kit on a real Postgres and a real Redis."""

import asyncio
import sys
from pathlib import Path

import pytest

from easel_kit import db, migrations
from easel_kit.errors import DependencyDown
from easel_kit.redis import open_redis, redis_errors


async def test_a_transaction_is_all_or_nothing(postgres_url: str) -> None:
    async with db.open_pool(postgres_url, schema="public", name="test") as pool:
        async with db.connection(pool) as lent:
            await lent.execute("CREATE TABLE one (value jsonb)")
        with pytest.raises(ZeroDivisionError):
            async with db.transaction(pool) as lent:
                await lent.execute("INSERT INTO one VALUES ($1)", {"kept": False})
                raise ZeroDivisionError
        async with db.transaction(pool) as lent:
            await lent.execute("INSERT INTO one VALUES ($1)", {"kept": True})
        async with db.connection(pool) as lent:
            assert await lent.fetchval("SELECT value FROM one") == {"kept": True}


async def test_a_database_that_is_away_says_so(free_port: int) -> None:
    with pytest.raises(DependencyDown):
        async with db.open_pool(
            f"postgresql://nobody@127.0.0.1:{free_port}/none", schema="public", name="test"
        ):
            pass


async def test_a_connection_that_is_cut_says_so_and_the_pool_recovers(postgres_url: str) -> None:
    async with db.open_pool(postgres_url, schema="public", name="test", max_size=2) as pool:
        with pytest.raises(DependencyDown):
            async with db.connection(pool) as victim, db.connection(pool) as killer:
                own = await victim.fetchval("SELECT pg_backend_pid()")
                await killer.execute("SELECT pg_terminate_backend($1)", own)
                await victim.fetchval("SELECT pg_sleep(1)")
        async with db.connection(pool) as lent:
            assert await lent.fetchval("SELECT 1") == 1


async def test_redis_answers_and_a_lost_one_says_so(redis_url: str, free_port: int) -> None:
    async with open_redis(redis_url, name="test") as client:
        await client.set("key", b"value")
        assert await client.get("key") == b"value"
    async with open_redis(f"redis://127.0.0.1:{free_port}", name="test", retries=1) as client:
        with pytest.raises(DependencyDown), redis_errors():
            await client.get("key")


def chain(folder: Path) -> Path:
    """A service's migrations with one revision."""
    versions = folder / "versions"
    versions.mkdir(parents=True)
    (folder / "env.py").write_text("from easel_kit import migrations\n\nmigrations.run()\n")
    (versions / "0001_first.py").write_text(
        "from alembic import op\n\nrevision = '0001'\ndown_revision = None\n\n\n"
        "def upgrade():\n    op.execute('CREATE TABLE thing (id int)')\n\n\n"
        "def downgrade():\n    op.execute('DROP TABLE thing')\n"
    )
    return folder


async def test_two_processes_may_migrate_at_once(postgres_url: str, tmp_path: Path) -> None:
    folder = chain(tmp_path / "migrations")
    both = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys, pathlib; from easel_kit import migrations;"
            "migrations.upgrade(pathlib.Path(sys.argv[1]), sys.argv[2], 'own')",
            str(folder),
            postgres_url,
        )
        for _ in range(2)
    ]
    assert [await one.wait() for one in both] == [0, 0]
    async with (
        db.open_pool(postgres_url, schema="own", name="test") as pool,
        db.connection(pool) as lent,
    ):
        assert await lent.fetchval("SELECT count(*) FROM own.thing") == 0
        assert await lent.fetchval("SELECT version_num FROM own.alembic_version") == "0001"
    await asyncio.to_thread(migrations.downgrade, folder, postgres_url, "own")
    async with (
        db.open_pool(postgres_url, schema="own", name="test") as pool,
        db.connection(pool) as lent,
    ):
        assert await lent.fetchval("SELECT to_regclass('own.thing')") is None
