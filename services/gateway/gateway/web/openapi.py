"""How the API is described: problems beside every answer, and what FastAPI leaves out."""

from __future__ import annotations

from typing import Any, cast

from gateway.web.problems import BY_STATUS, MEDIA_TYPE

_PROBLEM = {
    "title": "Problem",
    "description": "An error as in RFC 9457. `type` never changes and is safe to branch on.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "enum": sorted(kind.type for kinds in BY_STATUS.values() for kind in kinds),
        },
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "For a person."},
        "request_id": {"type": "string", "description": "Name it when you ask for help."},
        "errors": {
            "type": "array",
            "description": "Which fields are wrong, and why.",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
        "limit": {"type": "integer", "description": "429: how many are allowed."},
        "current": {"type": "integer", "description": "429: how many there are."},
        "needed_millicredits": {"type": "integer", "description": "402: what it costs."},
        "available_millicredits": {"type": "integer", "description": "402: what is there."},
        "offers_url": {"type": "string", "description": "402: plans and packs that can be bought."},
        "checkout_url": {"type": "string", "description": "402: POST there to buy one."},
        "job_id": {
            "type": "string",
            "description": "5xx of a submit: the job of this id may exist all the same. "
            "Look at it before you submit again.",
        },
    },
}
_RETRY_AFTER = {
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}
}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_HEADERS = {401: _CHALLENGE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}
_EVERYWHERE = (500, 503)
_AS_CALLER = (401, 403, 429, 504)

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int, caller: bool = True) -> Responses:
    """The problems that a route may answer with, besides those that any route may.

    Args:
        statuses: of this route.
        caller: the route is for authenticated callers.
    """
    every = sorted({*statuses, *_EVERYWHERE, *(_AS_CALLER if caller else ())})
    return {status: _documented(status) for status in every}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the problem's schema in its place."""
    schemas = cast(
        "dict[str, Any]", document.setdefault("components", {}).setdefault("schemas", {})
    )
    schemas["Problem"] = _PROBLEM
    return document


def _documented(status: int) -> dict[str, Any]:
    kinds = BY_STATUS[status]
    examples = {
        kind.name: {
            "value": {
                "type": kind.type,
                "title": kind.title,
                "status": kind.status,
                "detail": "…",
                "request_id": "req_01932f6ba1c07f3e8d5a4b7c9e0f1a2b",
            }
        }
        for kind in kinds
    }
    answer: dict[str, Any] = {
        "description": " / ".join(kind.title for kind in kinds),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": examples,
            }
        },
    }
    if status in _HEADERS:
        answer["headers"] = _HEADERS[status]
    return answer
