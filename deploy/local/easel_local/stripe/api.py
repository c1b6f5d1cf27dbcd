"""Stripe's API v1: from an HTTP request to an answer, each step as Stripe takes it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from stripe._api_version import _ApiVersion

from easel_kit.log import get_logger
from easel_local.stripe import (
    catalog,
    checkout,
    customers,
    events,
    invoice_calls,
    payments,
    portal,
    reversals,
    subscription_calls,
    timekeeping,
)
from easel_local.stripe.calls import Call, Endpoint
from easel_local.stripe.faults import ApiFault, Faults
from easel_local.stripe.form import decode
from easel_local.stripe.idempotency import Answer, Keys, fingerprint
from easel_local.stripe.objects import new_id
from easel_local.stripe.refusal import Refused
from easel_local.stripe.rendering import expand
from easel_local.stripe.snapshot import Snapshot
from easel_local.stripe.world import Asked, World

_MAX_BODY_BYTES = 262_144
_KEY = re.compile(r"sk_test_\w{1,200}", re.ASCII)
_log = get_logger(__name__)

ENDPOINTS: tuple[Endpoint, ...] = (
    *customers.ENDPOINTS,
    *catalog.ENDPOINTS,
    *checkout.ENDPOINTS,
    *subscription_calls.ENDPOINTS,
    *invoice_calls.ENDPOINTS,
    *payments.ENDPOINTS,
    *reversals.ENDPOINTS,
    *portal.ENDPOINTS,
    *events.ENDPOINTS,
    *timekeeping.ENDPOINTS,
)


class Broken(Response):
    """An answer that ends before it is complete, as when a connection breaks."""

    async def __call__(self, _scope: object, _receive: object, send: Any) -> None:  # noqa: ANN401 - ASGI's
        """Promise more than is sent; the server then closes the connection."""
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


class Api:
    """Serves `ENDPOINTS`."""

    def __init__(self, world: World, keys: Keys, faults: Faults, snapshot: Snapshot) -> None:
        """Serve world."""
        self._world = world
        self._keys = keys
        self._faults = faults
        self._snapshot = snapshot
        self._routes = [(endpoint, endpoint.pattern) for endpoint in ENDPOINTS]

    async def serve(self, request: Request) -> Response:
        """Answer one request."""
        request_id = new_id("req")
        try:
            answer, headers = await self._serve(request, request_id)
        except _Reset:
            return Broken()
        except Refused as refused:
            answer, headers = Answer(refused.status, refused.body(request_id), request_id), {}
        _log.debug(
            "call.answered", method=request.method, path=request.url.path, status=answer.status
        )
        return JSONResponse(
            answer.body,
            status_code=answer.status,
            headers={
                "Request-Id": request_id,
                "Stripe-Version": _ApiVersion.CURRENT,
                **headers,
            },
        )

    async def _serve(self, request: Request, request_id: str) -> tuple[Answer, dict[str, str]]:
        body = await bounded_body(request)
        _check_key(request)
        path = request.url.path
        fault = self._faults.of_call(request.method, path)
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if key is None:
            return await self._carry_out(request, body, request_id, None, fault), {}
        now = self._world.clock.now()
        earlier = self._keys.begin(key, fingerprint(request.method, path, body), now)
        headers = {"Idempotency-Key": key, "Original-Request": request_id}
        if earlier is not None:
            headers |= {
                "Idempotent-Replayed": "true",
                "Original-Request": earlier.request_id,
            }
            return earlier, headers
        try:
            return await self._carry_out(request, body, request_id, key, fault), headers
        finally:
            self._keys.release(key)

    async def _carry_out(
        self,
        request: Request,
        body: bytes,
        request_id: str,
        key: str | None,
        fault: ApiFault | None,
    ) -> Answer:
        if fault is not None and fault.when == "before":
            await _suffer(fault)
        endpoint, ids = self._find(request.method, request.url.path)
        sent = decode(request.scope["query_string"] if request.method != "POST" else body)
        params = endpoint.read(sent)
        timekeeping.catch_up(self._world)
        self._world.asked = Asked(request_id, key)
        try:
            call = Call(self._world, params, ids, request.url.path)
            answer = Answer(200, self._expanded(endpoint.handler(call), params), request_id)
        except Refused as refused:
            answer = Answer(refused.status, refused.body(request_id), request_id)
        finally:
            self._world.asked = Asked()
        if fault is not None and fault.when == "after" and fault.keep:
            answer = Answer(fault.status, _failure(fault).body(request_id), request_id)
        if key is not None:
            # Kept before anything is waited for: what was done and its key belong together.
            self._keys.finish(key, answer)
            self._world.version += 1
        await self._snapshot.save()
        if fault is not None and fault.when == "after":
            await _suffer(fault)
        return answer

    def _expanded(self, body: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return expand(self._world, body, params.get("expand", ()))

    def _find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        for endpoint, pattern in self._routes:
            found = pattern.fullmatch(path)
            if found is not None and endpoint.method == method:
                return endpoint, {name: unquote(text) for name, text in found.groupdict().items()}
        raise Refused(
            404, f"Unrecognized request URL ({method}: {path}), or none that the stand-in serves."
        )


class _Reset(Exception):
    """The connection shall break."""


async def _suffer(fault: ApiFault) -> None:
    await asyncio.sleep(fault.delay_s)
    if fault.kind == "reset":
        raise _Reset
    if fault.kind == "fail":
        raise _failure(fault)


def _failure(fault: ApiFault) -> Refused:
    if fault.status == 429:  # noqa: PLR2004
        return Refused(429, "Too many requests (a planned fault).", code="rate_limit")
    return Refused(fault.status, "Something went wrong (a planned fault).", kind="api_error")


async def bounded_body(request: Request) -> bytes:
    """The body.

    Raises:
        Refused: 413, it is too long.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise Refused(413, f"A request has at most {_MAX_BODY_BYTES} bytes.")
    return body


def _check_key(request: Request) -> None:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "basic":
        given = _basic_user(given)
    if not given:
        raise Refused(401, "You did not provide an API key.")
    if kind.lower() not in {"bearer", "basic"} or _KEY.fullmatch(given) is None:
        raise Refused(401, "Invalid API Key provided: the stand-in takes any sk_test_… key.")


def _basic_user(given: str) -> str:
    try:
        return base64.b64decode(given, validate=True).decode("ascii").partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return "?"
