"""Routes of the library's pictures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from easel_kit import ids
from easel_kit.errors import InvalidInput, NotFound
from easel_kit.ids import ImageId
from easel_kit.log import get_logger
from gateway.domain.library import PictureKind
from gateway.web.context import Caller, ServicesOf
from gateway.web.openapi import Responses, problems
from gateway.web.receiving import raw_body
from gateway.web.schemas.base import IMAGE_EXAMPLE
from gateway.web.schemas.image import ImageOut, ImagePage, Kind

router = APIRouter(tags=["images"])

_ImageIdIn = Annotated[str, Path(max_length=64, examples=[IMAGE_EXAMPLE])]


UPLOAD_PATH = "/v1/images"
# A slow line brings 20 MiB in this time; whoever is slower takes up a place for too long.
_RECEIVE_S = 60.0

_REDIRECT: Responses = {
    307: {
        "description": "To the bytes; the link works for minutes, for whoever has it",
        "headers": {"Location": {"schema": {"type": "string"}}},
    }
}

_log = get_logger(__name__)


def _place(cursor: str) -> ImageId:
    try:
        return ids.image_id(cursor)
    except InvalidInput as error:
        raise InvalidInput("cursor", "is not from a page of this list") from error


def _known_image_id(text: str) -> ImageId:
    try:
        return ids.image_id(text)
    except InvalidInput as error:
        raise NotFound("image", text) from error


@router.post(
    UPLOAD_PATH,
    operation_id="uploadImage",
    summary="Upload a picture",
    status_code=201,
    responses=problems(400, 413, 422)
    | {
        201: {
            "description": "The picture is in your library",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "The picture."}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The file's bytes as they are: a PNG, JPEG or WebP.",
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in (
                    "application/octet-stream",
                    "image/jpeg",
                    "image/png",
                    "image/webp",
                )
            },
        }
    },
)
async def upload_image(
    request: Request, caller: Caller, services: ServicesOf, response: Response
) -> ImageOut:
    """Kept as a PNG, upright and without metadata; what the bytes are decides, not their label."""
    with services.uploads.admitted():
        data = await raw_body(request, within_s=_RECEIVE_S)
        picture = await services.uploads.add(caller.user_id, data)
    _log.info("image.uploaded", image_id=picture.image.id, size_bytes=picture.image.size_bytes)
    response.headers["Location"] = f"{UPLOAD_PATH}/{picture.image.id}"
    return ImageOut.of(picture)


@router.get(
    "/v1/images/{image_id}",
    operation_id="getImage",
    summary="One picture",
    responses=problems(404, 422),
)
async def get_image(image_id: _ImageIdIn, caller: Caller, services: ServicesOf) -> ImageOut:
    """A picture of the caller's library."""
    return ImageOut.of(await services.pictures.find(caller.user_id, _known_image_id(image_id)))


@router.get(
    "/v1/images/{image_id}/content",
    operation_id="getImageContent",
    summary="A picture's bytes",
    status_code=307,
    response_class=RedirectResponse,
    responses=problems(404, 422) | _REDIRECT,
)
async def get_image_content(
    image_id: _ImageIdIn, caller: Caller, services: ServicesOf
) -> RedirectResponse:
    """Redirects to a short-lived signed link."""
    url = await services.pictures.content_url(caller.user_id, _known_image_id(image_id))
    return RedirectResponse(url, status_code=307)


@router.get(
    "/v1/images/{image_id}/thumbnail",
    operation_id="getImageThumbnail",
    summary="A small copy of a picture",
    status_code=307,
    response_class=RedirectResponse,
    responses=problems(404, 422) | _REDIRECT,
)
async def get_image_thumbnail(
    image_id: _ImageIdIn, caller: Caller, services: ServicesOf
) -> RedirectResponse:
    """Redirects to a WebP of at most 256 pixels a side; 404 where there is none."""
    url = await services.pictures.thumbnail_url(caller.user_id, _known_image_id(image_id))
    return RedirectResponse(url, status_code=307)


@router.get(
    UPLOAD_PATH,
    operation_id="listImages",
    summary="Your pictures, newest first",
    responses=problems(422),
)
async def list_images(
    *,
    caller: Caller,
    services: ServicesOf,
    kind: Annotated[Kind | None, Query(description="Only these.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str, Query(max_length=64, description="From the previous page.")] = "",
) -> ImagePage:
    """One page of the caller's library."""
    page = await services.pictures.page(
        caller.user_id,
        kind=PictureKind(kind) if kind else None,
        before=_place(cursor) if cursor else None,
        limit=limit,
    )
    return ImagePage.of(page)


@router.delete(
    "/v1/images/{image_id}",
    operation_id="deleteImage",
    summary="Remove a picture",
    status_code=204,
    responses=problems(404, 422),
)
async def delete_image(image_id: _ImageIdIn, caller: Caller, services: ServicesOf) -> None:
    """Its bytes are gone for good; the job that has drawn it goes on naming it."""
    await services.pictures.delete(caller.user_id, _known_image_id(image_id))
    _log.info("image.deleted", image_id=image_id)
