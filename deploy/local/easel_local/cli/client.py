"""The demo's view of Easel's REST interface: one user with a token."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import httpx
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse

from easel_kit.errors import DependencyDown, DomainError

_CALL_DEADLINE_S = 30.0
_SILENCE_S = 60.0  # an event stream that says nothing for so long is dead
_JOB_DEADLINE_S = 600.0
_SETTLE_DEADLINE_S = 15.0
_POLL_S = 0.2
_MORE_TRIES = 3
_RETRY_S = 0.5
_SETTLED = frozenset({"capture", "release"})
LAST_EVENTS = frozenset({"succeeded", "failed", "cancelled"})


class Refused(DomainError):
    """The gateway would not do what was asked; the text is for the person who asked."""


class Easel:
    """Calls in the name of one user."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        """Call through a client that knows the gateway's address and the token."""
        self._http = http

    async def submit(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for pictures; the answer is the queued generation.

        Raises:
            Refused: something in wanted is wrong, or credits are missing.
            DependencyDown: a service failed.
        """
        return await self._json("POST", "/v1/generations", wanted)

    async def generation(self, job_id: str) -> dict[str, Any]:
        """The generation as it is now.

        Raises:
            DependencyDown: a service failed.
        """
        return await self._json("GET", f"/v1/generations/{job_id}")

    async def picture(self, url: str) -> bytes:
        """A picture's bytes, by way of its signed URL.

        Raises:
            DependencyDown: a service failed.
        """
        return (await self._call("GET", url)).content

    async def credits(self) -> dict[str, int]:
        """Available and held millicredits.

        Raises:
            DependencyDown: a service failed.
        """
        account = await self._json("GET", "/v1/me")
        found: dict[str, int] = account["credits"]
        return found

    async def settled_lines(self, job_id: str) -> list[dict[str, Any]]:
        """The job's ledger lines, once its hold has ended, or as they are after 15 seconds.

        Billing settles when it reads of the job's end, a moment after the job ended.

        Raises:
            DependencyDown: a service failed.
        """
        deadline = time.monotonic() + _SETTLE_DEADLINE_S
        while True:
            page = await self._json("GET", f"/v1/billing/ledger?job_id={job_id}")
            lines: list[dict[str, Any]] = page["items"]
            if is_settled(lines) or time.monotonic() > deadline:
                return lines
            await asyncio.sleep(_POLL_S)

    async def events(self, job_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """The generation's events up to the last one, over lost connections.

        Raises:
            Refused: there is no such generation.
            DependencyDown: it took more than ten minutes.
        """
        seen = ""
        deadline = time.monotonic() + _JOB_DEADLINE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError, SSEError):
                async for event in self._stream(job_id, seen):
                    seen = event.id or seen
                    if not event.data:  # sets the pause before a reconnection, or an id
                        continue
                    yield event.event, event.json()
                    if event.event in LAST_EVENTS:
                        return
            await asyncio.sleep(_RETRY_S)
        raise DependencyDown("the picture took too long")

    async def _stream(self, job_id: str, seen: str) -> AsyncIterator[ServerSentEvent]:
        headers = {"Last-Event-ID": seen} if seen else {}
        path = f"/v1/generations/{job_id}/events"
        timeout = httpx.Timeout(_CALL_DEADLINE_S, read=_SILENCE_S)
        async with aconnect_sse(
            self._http, "GET", path, headers=headers, timeout=timeout
        ) as source:
            if source.response.is_error:
                await source.response.aread()
                _raise_for(source.response)
            async for event in source.aiter_sse():
                yield event

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._call(method, path, body)).json()
        return answer

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        response = await self._request(method, path, body)
        for _ in range(_MORE_TRIES):
            if method != "GET" or response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            await asyncio.sleep(float(response.headers.get("retry-after", _RETRY_S)))
            response = await self._request(method, path, body)
        if response.is_error:
            _raise_for(response)
        return response

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> httpx.Response:
        try:
            return await self._http.request(
                method, path, json=body, timeout=_CALL_DEADLINE_S, follow_redirects=True
            )
        except httpx.HTTPError as error:
            raise DependencyDown(f"{method} {path}: {type(error).__name__} {error}") from error


def is_settled(lines: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these ledger lines of a job tell how its hold has ended."""
    return any(line["kind"] in _SETTLED for line in lines)


def _raise_for(response: httpx.Response) -> None:
    """Raise what a problem document (RFC 9457) says: the person's fault or a service's."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    said = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
    more = [_line(item) for item in problem.get("errors") or []]
    text = "\n".join([said, *(f"  {line}" for line in more if line not in said)])
    ours = {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}  # we made the token
    if response.is_client_error and response.status_code not in ours:
        raise Refused(text)
    raise DependencyDown(f"the gateway answers {response.status_code}: {text}")


def _line(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    field = item.get("field") or item.get("loc") or ""
    reason = item.get("reason") or item.get("detail") or item.get("msg") or ""
    return f"{field}: {reason}"
