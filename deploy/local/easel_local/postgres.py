"""A real Postgres server of our own on loopback: start, health and stop.

Its binaries and the folder of its data come from `easel_local.postgres_install`; databases, roles
and schemas in it are the business of whoever uses it.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from easel_local.ports import free_port
from easel_local.postgres_install import Installation, find_installation
from easel_local.process import Child, StartFailed, expect_free, last_words

SUPERUSER = "easel_admin"
_START_DEADLINE_S = 60.0  # a crash recovery may come first
_INITDB_DEADLINE_S = 120.0
_STOP_GRACE_S = 20.0
_PREDECESSOR_GRACE_S = 15.0
_POLL_S = 0.02

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may be 107 bytes long, a folder's any length
    "shared_buffers": "64MB",
    "max_connections": "200",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "jit": "off",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "2GB",
}


class Postgres:
    """One server over one data folder, open to its superuser with a generated password.

    It can be started again after a stop, also by another process: password and data stay.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        bin_dir: Path | None = None,
        identity: str | None = None,
        log: Path | None = None,
    ) -> None:
        """Prepare a server whose data and password lie in folder.

        Args:
            folder: created when missing.
            port: on 127.0.0.1; a free one is chosen when None.
            durable: False trades safety for speed: a crash of the machine may lose the data.
            bin_dir: binaries to use instead of the embedded ones.
            identity: who runs it (see `easel_local.launch`); found out when None.
            log: file its output is appended to; ``folder/postgres.log`` when None.
        """
        self._folder = folder
        self._port = port or free_port()
        self._settings = _SETTINGS if durable else _SETTINGS | _NOT_DURABLE
        self._bin_dir = bin_dir
        self._identity = identity
        self._log = log or folder / "postgres.log"
        self._child: Child | None = None

    @cached_property
    def _password(self) -> str:
        """Made at first use, kept with the data."""
        file = self._folder / "postgres.password"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = file.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(24))
            fresh.rename(file)
        return file.read_text().strip()

    @property
    def url(self) -> str:
        """The superuser's address of the database ``postgres``."""
        return f"postgresql://{SUPERUSER}:{self._password}@127.0.0.1:{self._port}/postgres"

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
        """Start the server, on new data when there is none, and wait until it answers.

        Raises:
            StartFailed: there are no binaries, or the server ended or did not answer in time.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        install = await asyncio.to_thread(
            find_installation, self._folder, bin_dir=self._bin_dir, identity=self._identity
        )
        if not (install.data / "PG_VERSION").exists():
            await self._create_cluster(install)
        await _retire_predecessor(install.data)
        await expect_free(self._port)
        argv = [str(install.binary("postgres")), "-D", str(install.data), f"--port={self._port}"]
        argv += [f"--{name}={value}" for name, value in self._settings.items()]
        self._child = Child(
            argv,
            log=self._log,
            death_signal=signal.SIGINT,  # fast shutdown: disconnects clients, keeps the data clean
            identity=install.identity,
        )
        try:
            await self._wait_until_ready(self._child)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Disconnect clients, write everything down, end; killed after 20 seconds."""
        if self._child is not None:
            await self._child.stop(signal.SIGINT, grace_s=_STOP_GRACE_S)

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

    async def _create_cluster(self, install: Installation) -> None:
        """Initialise into a temporary folder, then rename: half a cluster is never mistaken."""
        fresh, password_file = install.prepare_fresh(self._password)
        argv = [str(install.binary("initdb")), "-D", str(fresh), "-U", SUPERUSER]
        argv += ["-A", "scram-sha-256", f"--pwfile={password_file}"]
        argv += ["-E", "UTF8", "--locale=C", "--no-instructions"]
        if self._settings.get("fsync") == "off":
            argv.append("--no-sync")
        child = Child(argv, log=self._log, identity=install.identity)
        try:
            status = await asyncio.wait_for(child.wait(), _INITDB_DEADLINE_S)
        except TimeoutError:
            status = -1
        finally:
            child.kill_group()
            password_file.unlink()
        if status != 0:
            raise StartFailed(f"initdb failed with {status}:\n{last_words(self._log)}")
        await asyncio.to_thread(fresh.rename, install.data)

    async def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + _START_DEADLINE_S
        while child.returncode is None and time.monotonic() < deadline:
            if await postgres_answers(self.url):
                return
            await asyncio.sleep(_POLL_S)
        raise StartFailed(f"Postgres did not start on port {self._port}:\n{last_words(self._log)}")


async def postgres_answers(url: str) -> bool:
    """Whether the server at url lets us in within two seconds.

    Raises:
        StartFailed: it answers, but knows no such password.
    """
    try:
        connection = await asyncpg.connect(url, timeout=2)
    except asyncpg.InvalidPasswordError as error:
        raise StartFailed("Postgres refuses the stored password") from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close(timeout=2)
    return True


async def _retire_predecessor(data: Path) -> None:
    """End a server that a killed stack left over these data; its lock file names it.

    Raises:
        StartFailed: it is still there after 15 seconds.
    """
    deadline = time.monotonic() + _PREDECESSOR_GRACE_S
    while (pid := _owner_of(data)) is not None:
        if time.monotonic() > deadline:
            raise StartFailed(f"another Postgres (process {pid}) uses {data}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        await asyncio.sleep(_POLL_S * 5)


def _owner_of(data: Path) -> int | None:
    """The live server whose lock file lies in data, if any."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return pid if not Path("/proc/self").exists() else None
    # The number may long belong to another program.
    return pid if os.fsencode(str(data)) in words.split(b"\0") else None
