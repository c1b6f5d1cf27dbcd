"""Telling without Alembic whether a schema is current."""

from pathlib import Path

import asyncpg
import pytest

from easel_local.runner.schema import head_of, is_current

REVISIONS = {
    "0001_first.py": 'revision = "0001"\ndown_revision = None\n',
    "0002_second.py": 'revision: str = "0002"\ndown_revision: str | None = "0001"\n',
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A service with two migrations."""
    versions = tmp_path / "pears" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "pears" / "__init__.py").touch()
    for name, text in REVISIONS.items():
        (versions / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return "pears"


def test_the_head_is_what_nothing_follows(package: str) -> None:
    assert head_of(package) == "0002"
    assert head_of("easel_local") is None
    assert head_of("no_such_package") is None


def test_two_heads_are_none(package: str, tmp_path: Path) -> None:
    fork = tmp_path / "pears" / "migrations" / "versions" / "0003.py"
    fork.write_text('revision = "0003"\ndown_revision = "0001"\n')
    assert head_of(package) is None


async def test_only_a_schema_at_the_head_is_current(package: str, postgres_url: str) -> None:
    assert not await is_current(postgres_url, package)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE SCHEMA pears")
    await connection.execute("CREATE TABLE pears.alembic_version (version_num text)")
    assert not await is_current(postgres_url, package)
    await connection.execute("INSERT INTO pears.alembic_version VALUES ('0001')")
    assert not await is_current(postgres_url, package)
    await connection.execute("UPDATE pears.alembic_version SET version_num = '0002'")
    assert await is_current(postgres_url, package)
    await connection.close()


async def test_a_server_that_is_away_is_no_answer(package: str, free_port: int) -> None:
    assert not await is_current(f"postgresql://x:y@127.0.0.1:{free_port}/easel", package)
