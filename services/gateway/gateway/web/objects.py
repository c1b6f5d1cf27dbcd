"""The folder store's signed links lead here; with S3 there is nothing here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from easel_kit.errors import InvalidInput, NotFound
from gateway.web.context import LimitedByAddress, ServicesOf
from gateway.web.openapi import problems

_MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
_OTHER = "application/octet-stream"
_SIGNATURE = r"^[0-9a-f]{64}$"

router = APIRouter(tags=["images"], dependencies=[LimitedByAddress])


@router.get(
    "/objects/{key:path}",
    operation_id="getObject",
    summary="What a signed link of the folder store leads to",
    response_class=Response,
    responses=problems(403, 404, 422, 429, caller=False)
    | {
        200: {
            "description": "The bytes",
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in sorted({*_MEDIA_TYPES.values(), _OTHER})
            },
        }
    },
)
async def get_object(
    key: Annotated[str, Path(max_length=512)],
    expires: Annotated[int, Query(ge=0, le=2**53, description="Unix seconds.")],
    signature: Annotated[str, Query(pattern=_SIGNATURE)],
    services: ServicesOf,
) -> Response:
    """The link itself is the permission, until it expires."""
    store = services.local_objects
    if store is None:
        raise NotFound("object", "here: they are in another store")
    try:
        store.verify(key, expires, signature)
    except InvalidInput as error:
        raise NotFound("object", "of that key") from error
    return Response(
        await store.get(key),
        media_type=_MEDIA_TYPES.get(key.rpartition(".")[2].lower(), _OTHER),
        headers={
            # a key's bytes never change, and the link ends anyway
            "Cache-Control": "private, max-age=86400, immutable",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cross-Origin-Resource-Policy": "cross-origin",
        },
    )
