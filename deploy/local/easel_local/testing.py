"""Real Postgres and Redis for a test run: one Postgres for all its processes, a Redis for each.

Nothing starts before a test asks. The run's first process hosts Postgres, because workers of
pytest-xdist end one by one; they ask it over loopback. Fixtures on top are in tests/conftest.py.
"""

import asyncio
import contextlib
import inspect
import itertools
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis as RedisClient

from easel_local.postgres import Postgres
from easel_local.redis import Redis

Migrate = Callable[[str], Awaitable[object] | object]
T = TypeVar("T")
_CALL_DEADLINE_S = 55.0
_STOP = "stop"


class PostgresHost:
    """Starts one Postgres when it is first asked for its address, and ends it with the run."""

    def __init__(self) -> None:
        """Listen for questions; costs a thread and a socket, no server yet."""
        self._key = secrets.token_bytes(16)
        self._listener = Listener(("127.0.0.1", 0), authkey=self._key)
        # The server dies with the thread that starts it, and this one lives as long as the run.
        self._thread = threading.Thread(target=self._answer, name="postgres-host", daemon=True)
        self._thread.start()

    @property
    def ticket(self) -> str:
        """What a process needs to ask: `ask_postgres_host` takes it."""
        _host, port = self._listener.address
        return f"{port}:{self._key.hex()}"

    def close(self) -> None:
        """Stop the server, if it was started, and remove its data."""
        ask_postgres_host(self.ticket, _STOP)
        self._thread.join()
        self._listener.close()

    def _answer(self) -> None:
        with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
            url = ""
            while True:
                with self._listener.accept() as connection:
                    if connection.recv() == _STOP:
                        connection.send("")
                        return
                    try:
                        url = url or self._start(runner, stack)
                        connection.send(url)
                    except Exception as error:  # noqa: BLE001 - reported to whoever asked
                        connection.send(error)

    @staticmethod
    def _start(runner: asyncio.Runner, stack: contextlib.ExitStack) -> str:
        folder = Path(tempfile.mkdtemp(prefix="easel-tests-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = Postgres(folder, durable=False)
        runner.run(server.start())
        stack.callback(lambda: runner.run(server.stop()))
        return server.url


def ask_postgres_host(ticket: str, question: str = "url") -> str:
    """The superuser's address of the run's Postgres, started now if it was not yet.

    Raises:
        StartFailed: it does not start.
    """
    port, key = ticket.split(":")
    with Client(("127.0.0.1", int(port)), authkey=bytes.fromhex(key)) as connection:
        connection.send(question)
        answer = connection.recv()
    if isinstance(answer, Exception):
        raise answer
    return str(answer)


class _LoopThread:
    """An event loop of its own, so that a test's loop may be running while it works."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_DEADLINE_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class Databases:
    """Makes and drops databases on one server; blocks its caller, in any thread or loop."""

    def __init__(self, admin_url: str) -> None:
        """Use the server whose superuser's address is admin_url."""
        self._admin_url = admin_url
        self._thread = _LoopThread("test-databases")
        self._numbers = itertools.count()
        self._templates: set[str] = set()
        self._connection: asyncpg.Connection = self._thread.call(asyncpg.connect(admin_url))

    def create(self, template: str = "template1") -> str:
        """Create a database as a copy of template and return its address."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._thread.call(self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        return self._url_of(name)

    def create_migrated(self, template: str, migrate: Migrate) -> str:
        """Create a copy of a database that migrate has prepared once in this run.

        Args:
            template: names what migrate makes; the same for all tests that share it.
            migrate: is given the address of an empty database; may be a coroutine function. It
                runs in another thread and must leave no connection open.
        """
        if template not in self._templates:
            self._thread.call(self._make_template(template, migrate))
            self._templates.add(template)
        return self.create(f"template_{template}")

    def drop(self, url: str) -> None:
        """Drop a database that this object created, whoever is still connected."""
        name = urlsplit(url).path.lstrip("/")
        self._thread.call(self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    def close(self) -> None:
        """Disconnect."""
        self._thread.call(self._connection.close())
        self._thread.close()

    def _url_of(self, name: str) -> str:
        return urlunsplit(urlsplit(self._admin_url)._replace(path=f"/{name}"))

    async def _execute(self, statement: str) -> None:
        await self._connection.execute(statement)

    async def _make_template(self, template: str, migrate: Migrate) -> None:
        name = f"template_{template}"
        lock = "SELECT pg_advisory_lock(hashtext($1))"
        await self._connection.execute(lock, name)  # processes of one run share templates
        try:
            known = "SELECT 1 FROM pg_database WHERE datname = $1"
            if await self._connection.fetchval(known, name):
                return
            # Under another name until it is complete: a failed migration leaves no template.
            draft = f"draft_{template}_{secrets.token_hex(4)}"
            await self._execute(f'CREATE DATABASE "{draft}"')
            made = await asyncio.to_thread(migrate, self._url_of(draft))
            if inspect.isawaitable(made):
                await made
            await self._execute(f'ALTER DATABASE "{draft}" RENAME TO "{name}"')
        finally:
            await self._connection.execute("SELECT pg_advisory_unlock(hashtext($1))", name)


class RedisForTests:
    """A Redis of this process, emptied between tests; blocks its caller, in any thread or loop."""

    def __init__(self) -> None:
        """Start it."""
        self._folder = Path(tempfile.mkdtemp(prefix="easel-tests-"))
        self._thread = _LoopThread("test-redis")
        self._server = Redis(self._folder)
        self._thread.call(self._server.start())

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self._server.url

    def flush(self) -> None:
        """Remove every key, function and cached script."""
        self._thread.call(self._flush())

    def close(self) -> None:
        """Stop the server and remove its files."""
        self._thread.call(self._server.stop())
        self._thread.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _flush(self) -> None:
        async with RedisClient.from_url(self.url) as client:
            await client.flushall()
            await client.script_flush()
