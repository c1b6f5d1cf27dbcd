"""Routes of the model catalogue."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from gateway.web.context import Caller, ServicesOf
from gateway.web.openapi import problems
from gateway.web.schemas.model import ModelOut, ModelsOut

_MAX_AGE_S = 300

router = APIRouter(tags=["models"])


@router.get(
    "/v1/models",
    operation_id="listModels",
    summary="Models that can draw",
    response_model=ModelsOut,
    responses=problems(422)
    | {
        200: {
            "description": "The catalogue",
            "headers": {"ETag": {"schema": {"type": "string"}}},
        },
        304: {"description": "As the caller has it"},
    },
)
async def list_models(
    caller: Caller,
    services: ServicesOf,
    type: Annotated[str, Query(max_length=100, description="e.g. main")] = "",  # noqa: A002
    base: Annotated[str, Query(max_length=100, description="e.g. sd-1")] = "",
    if_none_match: Annotated[str, Header(max_length=1000)] = "",
) -> Response:
    """The catalogue; may be kept for five minutes."""
    del caller
    found = ModelsOut(
        items=tuple(
            ModelOut.of(model)
            for model in await services.catalogue.all()
            if type in {"", model.type} and base in {"", model.base}
        )
    )
    body = found.model_dump_json().encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": f"private, max-age={_MAX_AGE_S}",
        "Vary": "Authorization",
    }
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    if known & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
