"""The gateway as a process: migrate, serve, stop."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from easel_kit import migrations
from gateway import main
from tests.fakes.gateway_issuer import AUDIENCE, Issuer

MIGRATIONS = Path(main.__file__).parent / "migrations"


@asynccontextmanager
async def process(
    environment: dict[str, str], *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def test_migrate_serve_and_stop(postgres_url: str, issuer: Issuer, tmp_path: Path) -> None:
    environment = {
        "GATEWAY_DATABASE_URL": postgres_url,
        "GATEWAY_BILLING_ADDRESS": "127.0.0.1:1",
        "GATEWAY_SCHEDULER_ADDRESS": "127.0.0.1:1",
        "GATEWAY_JWT__ISSUER": issuer.url,
        "GATEWAY_JWT__AUDIENCE": AUDIENCE,
        "GATEWAY_OBJECTS__URL": f"file://{tmp_path}",
    }
    async with process(environment, "migrate") as migrating:
        assert await migrating.wait() == 0
    async with process(environment) as serving:
        assert serving.stdout is not None
        written = {"event": ""}
        while written["event"] != "service.ready":
            written = json.loads(await serving.stdout.readline())
        reader, writer = await asyncio.open_connection("127.0.0.1", int(written["port"]))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        serving.send_signal(signal.SIGTERM)
        assert await serving.wait() == 0
        writer.close()


async def test_a_missing_setting_is_named() -> None:
    async with process({}, "--check-config") as checking:
        assert await checking.wait() == 2


async def test_the_schema_goes_up_and_down_and_up(postgres_url: str) -> None:
    async def tables() -> set[str]:
        connection = await asyncpg.connect(postgres_url)
        rows = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'gateway'"
        )
        await connection.close()
        return {row["table_name"] for row in rows}

    for step in (migrations.upgrade, migrations.downgrade, migrations.upgrade):
        await asyncio.to_thread(step, MIGRATIONS, postgres_url, main.SCHEMA)
        up = step is migrations.upgrade
        assert ({"images", "feed_cursor"} <= await tables()) is up
