"""Finished pictures on their way into the store, each with a small one beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from easel_kit.errors import DependencyDown
from easel_kit.ids import new_image_id
from easel_kit.log import get_logger
from gpu_worker.domain.drawing import DrawnPicture
from gpu_worker.domain.work import Assign, StoredImage, picture_key, thumbnail_key
from gpu_worker.ports import Gallery
from gpu_worker.service.together import together

_log = get_logger(__name__)

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A picture in the store, and how many bytes it took there with its thumbnail."""

    image: StoredImage
    size_bytes: int


async def upload_pictures(
    gallery: Gallery,
    work: Assign,
    pictures: tuple[DrawnPicture, ...],
    is_cancelled: Callable[[], bool],
) -> list[Uploaded] | None:
    """Encodes and stores all pictures; None once somebody has cancelled.

    Raises:
        DependencyDown: the store did not take a picture.
    """
    calls = [
        partial(_upload, gallery, work, index, picture, is_cancelled)
        for index, picture in enumerate(pictures)
    ]
    found = await together(calls, at_once=_AT_ONCE)
    uploaded = [one for one in found if one is not None]
    return uploaded if len(uploaded) == len(pictures) else None


async def _upload(
    gallery: Gallery,
    work: Assign,
    index: int,
    picture: DrawnPicture,
    is_cancelled: Callable[[], bool],
) -> Uploaded | None:
    encoded = await gallery.encode(picture, work.generation)
    if is_cancelled():
        return None
    key = picture_key(work, index)
    await gallery.store(key, encoded)
    thumbnail, thumbnail_bytes = await _upload_thumbnail(gallery, work, index, picture)
    image = StoredImage(
        id=new_image_id(),
        object_key=key,
        width_px=picture.raster.width_px,
        height_px=picture.raster.height_px,
        media_type=encoded.media_type,
        size_bytes=len(encoded.data),
        sha256=encoded.sha256,
        seed=picture.seed,
        thumbnail_object_key=thumbnail,
    )
    return Uploaded(image, len(encoded.data) + thumbnail_bytes)


async def _upload_thumbnail(
    gallery: Gallery, work: Assign, index: int, picture: DrawnPicture
) -> tuple[str, int]:
    """Its key and bytes; none where the store takes it not: a picture is whole without it."""
    key = thumbnail_key(work, index)
    small = await gallery.thumbnail(picture.raster)
    try:
        await gallery.store(key, small)
    except DependencyDown as error:
        _log.warning("thumbnail.lost", picture=index, reason=str(error))
        return "", 0
    return key, len(small.data)
