"""Around every request: its id, log context, root span, bounds, headers, metrics, one log line."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import structlog
from opentelemetry.trace import Span
from prometheus_client import Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easel_kit import errors, ids
from easel_kit.log import get_logger
from easel_kit.telemetry import span
from gateway.web.context import HEADERS_KEY
from gateway.web.problems import REQUEST_ID_KEY, problem, refusal

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked every few seconds by machines: not worth a line at the usual level.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

_log = get_logger(__name__)
_requests = Counter("easel_http_requests", "Requests answered.", ["route", "method", "status"])
_seconds = Histogram("easel_http_seconds", "Seconds until an answer begins.", ["route"])
_open = Gauge("easel_http_open", "Requests being served, event streams included.")


class Edge:
    """The outermost middleware of ours."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_requests: int,
        max_body_bytes: int,
        other_bodies: Mapping[tuple[str, str], int],
    ) -> None:
        """Bounds: requests at once, bytes of a body; other bounds by method and path."""
        self._app = app
        self._max_requests = max_requests
        self._max_body_bytes = max_body_bytes
        self._other_bodies = other_bodies
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else ids.new_id("req")
        scope[REQUEST_ID_KEY] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        self._running += 1
        _open.inc()
        try:
            with span("http.request", traceparent=headers.get("traceparent", "")) as current:
                await _Exchange(scope, receive, send, current).serve(self)
        finally:
            self._running -= 1
            _open.dec()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, or a refusal where there is too much at once or to read."""
        if self._running > self._max_requests:
            await problem(scope, errors.Overloaded("too many requests at once"))(
                scope, receive, send
            )
            return
        place = (scope["method"], scope["path"])
        most_bytes = self._other_bodies.get(place, self._max_body_bytes)
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > most_bytes:
            await refusal(scope, 413)(scope, receive, send)
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most_bytes:
                raise HTTPException(413)
            return message

        await self._app(scope, bounded, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, current: Span) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._span = current
        self._began = time.monotonic()
        self._status = 0

    async def serve(self, edge: Edge) -> None:
        try:
            await edge.serve(self._scope, self._receive, self._answer)
        except Exception as error:
            _log.error("request.failed", exc_info=error)
            if self._status:
                raise  # an answer that has begun cannot be taken back: cut the connection
            await problem(self._scope, errors.Internal(""))(
                self._scope, self._receive, self._answer
            )
        finally:
            self._finish()

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._scope[REQUEST_ID_KEY]
            for name, value in self._scope.get(HEADERS_KEY, {}).items():
                headers[name] = value
            for name, value in _SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            _seconds.labels(self._route).observe(time.monotonic() - self._began)
        await self._send(message)

    @property
    def _route(self) -> str:
        route: Any = self._scope.get("route")
        return str(getattr(route, "path", "unmatched"))

    @property
    def _method(self) -> str:
        method = str(self._scope["method"])
        return method if method in _METHODS else "other"

    def _finish(self) -> None:
        # an answer that never began: the client left, or the process is stopping
        status = str(self._status) if self._status else "none"
        _requests.labels(self._route, self._method, f"{status[0]}xx").inc()
        self._span.update_name(f"{self._method} {self._route}")
        self._span.set_attribute("http.response.status_code", self._status)
        write = _log.debug if self._route in _QUIET else _log.info
        write(
            "request.finished",
            method=self._method,
            route=self._route,
            status=self._status,
            duration_s=round(time.monotonic() - self._began, 4),
        )
