"""A trap in a billing process: it dies before or after what it does next to a named thing.

The product knows nothing of it: the driver's connection, the HTTP client and the client of the
scheduler are wrapped, so that every statement and call passes by here.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import asyncpg
import httpx

from billing.clients.scheduler import SchedulerJobs, SchedulerQueue

T = TypeVar("T")
When = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a process dies.

    Attributes:
        what: regular expression; matches a statement's text with single blanks, "COMMIT", or a call
            as "GET /v1/path", "ResolveJob" or "SetEntitlements".
        when: before it is sent, or after it was answered.
        inside: regular expression; a statement of the same transaction before it. Empty: anywhere.
    """

    what: str
    when: When
    inside: str = ""


class Trap:
    """Kills this process at the spot that is set, the first time it comes by."""

    def __init__(self) -> None:
        self._spot: Spot | None = None
        self._transactions: dict[int, list[str]] = {}

    def arm(self, spot: Spot | None) -> None:
        """From now on; None: nowhere."""
        self._spot = spot

    def install(self) -> None:
        """Wraps drivers and clients of this process, for good."""
        self._wrap_asyncpg()
        self._wrap_calls()

    async def passing(self, text: str, work: Callable[[], Awaitable[T]], session: int = 0) -> T:
        """Does the work, unless it is where the process dies."""
        text = " ".join(text.split()).rstrip(";")
        before = self._transactions.setdefault(session, [])
        if text.startswith("BEGIN"):
            before.clear()
        self._die("before", text, before)
        answer = await work()
        self._die("after", text, before)
        before.append(text)
        return answer

    def _die(self, when: When, text: str, before: list[str]) -> None:
        spot = self._spot
        if spot is None or spot.when != when or not re.search(spot.what, text):
            return
        if spot.inside and not any(re.search(spot.inside, earlier) for earlier in before):
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def _wrap_asyncpg(self) -> None:
        connection: Any = asyncpg.connection.Connection
        plain, prepared = connection.execute, connection._execute

        async def execute(self: Any, query: str, *args: object, **more: Any) -> Any:  # noqa: ANN401
            if args:  # comes by below
                return await plain(self, query, *args, **more)
            return await trap.passing(query, lambda: plain(self, query, **more), id(self))

        async def _execute(self: Any, query: str, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            return await trap.passing(query, lambda: prepared(self, query, *args, **more), id(self))

        trap = self
        connection.execute, connection._execute = execute, _execute

    def _wrap_calls(self) -> None:
        send, resolve = httpx.AsyncClient.send, SchedulerJobs.resolve
        set_entitlements = SchedulerQueue.set_entitlements

        async def sending(self: Any, request: httpx.Request, **more: Any) -> Any:  # noqa: ANN401
            text = f"{request.method} {request.url.path}"
            return await trap.passing(text, lambda: send(self, request, **more))

        async def resolving(self: Any, job_id: Any) -> Any:  # noqa: ANN401
            return await trap.passing("ResolveJob", lambda: resolve(self, job_id))

        async def telling(self: Any, change: Any) -> None:  # noqa: ANN401
            await trap.passing("SetEntitlements", lambda: set_entitlements(self, change))

        trap = self
        SchedulerQueue.set_entitlements = telling  # type: ignore[method-assign]
        httpx.AsyncClient.send = sending  # type: ignore[method-assign]
        SchedulerJobs.resolve = resolving  # type: ignore[method-assign]
