"""The Postgres and the Redis that all systems share, and facts of the machine."""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis as RedisClient

from easel_local.postgres import Postgres
from easel_local.redis import Redis

_DEADLINE_S = 10.0
_SAMPLES = 200


@dataclass(frozen=True, slots=True)
class Servers:
    """One Postgres with fsync and synchronous commit, one Redis without persistence."""

    postgres: Postgres
    redis: Redis

    @property
    def pids(self) -> list[int]:
        """Both processes."""
        return [pid for pid in (self.postgres.pid, self.redis.pid) if pid is not None]

    async def create_database(self, name: str) -> str:
        """Makes an empty database and answers its address."""
        connection = await asyncpg.connect(self.postgres.url, timeout=_DEADLINE_S)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"', timeout=_DEADLINE_S)
        finally:
            await connection.close(timeout=_DEADLINE_S)
        return urlunsplit(urlsplit(self.postgres.url)._replace(path=f"/{name}"))

    def redis_url(self, database: int) -> str:
        """The address of one of Redis's numbered databases."""
        return urlunsplit(urlsplit(self.redis.url)._replace(path=f"/{database}"))


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Servers]:
    """Starts both on fresh data, on the disk that folder lies on."""
    async with Postgres(folder / "postgres") as postgres, Redis(folder / "redis") as redis:
        yield Servers(postgres, redis)


async def facts(servers: Servers) -> dict[str, Any]:
    """What the figures depend on: machine, versions, and the cost of the steps they are made of."""
    connection = await asyncpg.connect(servers.postgres.url, timeout=_DEADLINE_S)
    client = RedisClient.from_url(servers.redis.url, socket_timeout=_DEADLINE_S)
    try:
        settings = {
            name: await connection.fetchval(f"SHOW {name}")
            for name in ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        }
        await connection.execute("CREATE TABLE floor (n bigint)")

        async def commit() -> None:
            await connection.execute("INSERT INTO floor VALUES (1)")

        async def ping() -> None:
            await client.ping()

        return {
            "cores": os.cpu_count(),
            "cpu": await asyncio.to_thread(_cpu_model),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "postgres": settings,
            "redis": (await client.info("server"))["redis_version"],
            "load_1m": round(os.getloadavg()[0], 2),
            "one_commit_ms": await _median_ms(commit),
            "redis_round_trip_ms": await _median_ms(ping),
        }
    finally:
        await connection.close(timeout=_DEADLINE_S)
        await client.aclose()


async def _median_ms(action: Any) -> float:  # noqa: ANN401 (a coroutine function)
    samples = []
    for _ in range(_SAMPLES):
        began_s = time.perf_counter()
        await asyncio.wait_for(action(), _DEADLINE_S)
        samples.append(time.perf_counter() - began_s)
    return round(statistics.median(samples) * 1000, 3)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
