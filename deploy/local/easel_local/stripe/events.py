"""The calls about events: what happened, with the objects as they were."""

from __future__ import annotations

from stripe.params import EventListParams, EventRetrieveParams

from easel_local.stripe.calls import Call, Endpoint
from easel_local.stripe.objects import Obj
from easel_local.stripe.refusal import invalid
from easel_local.stripe.rendering import render

_MAX_TYPES = 20


def _list(call: Call) -> Obj:
    wanted = call.params
    types = wanted.get("types", [wanted["type"]] if "type" in wanted else ["*"])
    if "types" in wanted and "type" in wanted:
        raise invalid("types", "cannot be given together with type")
    if len(types) > _MAX_TYPES:
        raise invalid("types", f"at most {_MAX_TYPES}")
    return call.page(
        event
        for event in call.world.every("event")
        if any(_matches(event["type"], pattern) for pattern in types)
    )


def _matches(kind: str, pattern: str) -> bool:
    return kind.startswith(pattern[:-1]) if pattern.endswith("*") else kind == pattern


ENDPOINTS = (
    Endpoint("GET", "/v1/events", EventListParams, _list, frozenset({"delivery_success"})),
    Endpoint(
        "GET",
        "/v1/events/{id}",
        EventRetrieveParams,
        lambda call: render(call.world, call.world.get("event", call.id)),
    ),
)
