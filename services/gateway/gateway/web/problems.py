"""Errors as RFC 9457 problems: the only table of HTTP statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from easel_kit import errors
from gateway.domain.money import BadSignature

MEDIA_TYPE = "application/problem+json"
REQUEST_ID_KEY = "easel.request_id"
JOB_ID_KEY = "easel.job_id"
_MAX_ERRORS = 20
_WHERE_TO_BUY = {"offers_url": "/v1/plans", "checkout_url": "/v1/billing/checkout"}
_FIXED_TEXT = "something went wrong here; it has been logged"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a class of errors becomes."""

    status: int
    name: str
    title: str

    @property
    def type(self) -> str:
        """The problem's type, a URI reference that never changes."""
        return f"/problems/{self.name}"


KINDS: Mapping[type[errors.DomainError], Kind] = {
    BadSignature: Kind(400, "bad-signature", "Signature does not fit"),
    errors.InvalidInput: Kind(422, "invalid-input", "Invalid input"),
    errors.Unauthenticated: Kind(401, "unauthenticated", "Not authenticated"),
    errors.Forbidden: Kind(403, "forbidden", "Not allowed"),
    errors.NotFound: Kind(404, "not-found", "Not found"),
    errors.AlreadyExists: Kind(409, "already-exists", "Already there"),
    errors.Conflict: Kind(409, "conflict", "Changed meanwhile"),
    errors.InvalidState: Kind(409, "invalid-state", "Not possible in this state"),
    errors.InsufficientCredits: Kind(402, "insufficient-credits", "Not enough credits"),
    errors.RateLimited: Kind(429, "rate-limited", "Too many requests"),
    errors.OutOfRange: Kind(409, "out-of-range", "Kept no longer"),
    errors.Overloaded: Kind(503, "overloaded", "Too busy"),
    errors.DependencyDown: Kind(503, "dependency-down", "Temporarily unavailable"),
    errors.DeadlineExceeded: Kind(504, "deadline-exceeded", "Took too long"),
    errors.Internal: Kind(500, "internal", "Internal error"),
}
# What the framework itself refuses, by status.
_REFUSALS: Mapping[int, tuple[Kind, str]] = {
    400: (Kind(400, "malformed", "Malformed request"), "the body cannot be read"),
    404: (KINDS[errors.NotFound], "there is nothing at this path"),
    405: (
        Kind(405, "method-not-allowed", "Method not allowed"),
        "this path does not take this method",
    ),
    413: (Kind(413, "too-large", "Too large"), "the body is too large"),
}
BY_STATUS: Mapping[int, tuple[Kind, ...]] = {
    status: tuple(
        {
            kind.name: kind
            for kind in (*KINDS.values(), *(kind for kind, _ in _REFUSALS.values()))
            if kind.status == status
        }.values()
    )
    for status in sorted({*(kind.status for kind in KINDS.values()), *_REFUSALS})
}


def problem(scope: Scope, error: errors.DomainError) -> JSONResponse:
    """The answer to an error of ours."""
    kind = KINDS[type(error)]
    body, headers = _extras(scope, error, kind)
    match error:
        case errors.Internal():
            detail = _FIXED_TEXT
        case errors.InsufficientCredits():
            detail = f"{error}; /v1/plans lists what can be bought, /v1/billing/checkout sells it"
        case _:
            detail = str(error)
    return _response(scope, kind, detail, body, headers)


def refusal(scope: Scope, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to what the framework refused; an unknown status is a fault of ours."""
    if status not in _REFUSALS:
        return problem(scope, errors.Internal(""))
    kind, detail = _REFUSALS[status]
    return _response(scope, kind, detail, {}, dict(headers or {}))


async def on_domain_error(request: Request, error: Exception) -> JSONResponse:
    """Handler of our own errors."""
    return problem(request.scope, cast("errors.DomainError", error))


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Handler of the framework's refusals: unknown path or method, unreadable or huge body."""
    known = cast("HTTPException", error)
    headers = dict(known.headers or {})
    if known.status_code == 405:  # noqa: PLR2004 (the framework names one route's methods only)
        headers["Allow"] = _methods(request) or headers.get("Allow", "")
    return refusal(request.scope, known.status_code, headers)


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Handler of requests that do not fit the schema; names each field, echoes no value."""
    found = [
        {"field": _field(item["loc"]), "reason": _sentence(item)}
        for item in cast("RequestValidationError", error).errors()[:_MAX_ERRORS]
    ]
    detail = "; ".join(f"{item['field']}: {item['reason']}" for item in found)
    return _response(request.scope, KINDS[errors.InvalidInput], detail, {"errors": found}, {})


def _extras(
    scope: Scope, error: errors.DomainError, kind: Kind
) -> tuple[dict[str, Any], dict[str, str]]:
    body: dict[str, Any] = {}
    headers: dict[str, str] = {}
    match error:
        case errors.InvalidInput():
            body["errors"] = [{"field": error.field, "reason": error.reason}]
        case errors.Unauthenticated():
            named = any(name == b"authorization" for name, _ in scope["headers"])
            challenge = 'Bearer realm="easel"'
            headers["WWW-Authenticate"] = (
                f'{challenge}, error="invalid_token"' if named else challenge
            )
        case errors.InsufficientCredits():
            body["needed_millicredits"] = error.needed_millicredits
            body["available_millicredits"] = error.available_millicredits
            body |= _WHERE_TO_BUY
        case errors.RateLimited():
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
            body |= {
                name: value
                for name, value in (("limit", error.limit), ("current", error.current))
                if value is not None
            }
        case errors.Overloaded() | errors.DependencyDown():
            headers["Retry-After"] = "1"
    if kind.status >= 500 and JOB_ID_KEY in scope:  # noqa: PLR2004 (server errors)
        body["job_id"] = scope[JOB_ID_KEY]
    return body, headers


def _response(
    scope: Scope, kind: Kind, detail: str, body: dict[str, Any], headers: dict[str, str]
) -> JSONResponse:
    content = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "request_id": scope.get(REQUEST_ID_KEY, ""),
    }
    return JSONResponse(
        content | body, status_code=kind.status, media_type=MEDIA_TYPE, headers=headers
    )


def _methods(request: Request) -> str:
    """Every method of the path, as RFC 9110 section 10.2.1 asks for."""
    path = getattr(request.scope.get("route"), "path_format", "")
    described = request.app.openapi()["paths"].get(path, {})
    return ", ".join(sorted(method.upper() for method in described))


def _field(location: tuple[str | int, ...]) -> str:
    where, *path = location
    if where == "body" and (not path or isinstance(path[0], int)):
        return "body"  # no JSON at all, or not an object
    return ".".join(str(part) for part in path) or str(where)


def _sentence(item: dict[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return "is not valid JSON"
    if item["type"] in {"model_attributes_type", "dict_type", "model_type"}:
        return "must be a JSON object, sent as application/json"
    text = str(item["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
