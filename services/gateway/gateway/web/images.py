"""Routes of the library's pictures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import RedirectResponse

from easel_kit import ids
from easel_kit.errors import InvalidInput, NotFound
from easel_kit.ids import ImageId
from gateway.web.context import Caller, ServicesOf
from gateway.web.openapi import problems
from gateway.web.schemas.base import IMAGE_EXAMPLE
from gateway.web.schemas.generation import ImageOut

router = APIRouter(tags=["images"])

_ImageIdIn = Annotated[str, Path(max_length=64, examples=[IMAGE_EXAMPLE])]


def _known_image_id(text: str) -> ImageId:
    try:
        return ids.image_id(text)
    except InvalidInput as error:
        raise NotFound("image", text) from error


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
    responses=problems(404, 422)
    | {
        307: {
            "description": "To the bytes; the link works for minutes, for whoever has it",
            "headers": {"Location": {"schema": {"type": "string"}}},
        }
    },
)
async def get_image_content(
    image_id: _ImageIdIn, caller: Caller, services: ServicesOf
) -> RedirectResponse:
    """Redirects to a short-lived signed link."""
    url = await services.pictures.content_url(caller.user_id, _known_image_id(image_id))
    return RedirectResponse(url, status_code=307)
