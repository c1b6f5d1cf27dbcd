"""The pictures that a job reads, brought before it draws."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from easel_kit.errors import InvalidInput, NotFound
from gpu_worker.domain.drawing import Raster
from gpu_worker.domain.generation import Generation
from gpu_worker.ports import Gallery
from gpu_worker.service.together import together

_AT_ONCE = 4


async def fetch_inputs(gallery: Gallery, asked: Generation) -> dict[str, Raster]:
    """All of `asked.input_keys`, by key.

    Raises:
        InvalidInput: one is missing or no fit picture; names the field that asks for it.
        DependencyDown: the store does not answer.
    """
    fields: dict[str, str] = {}
    for field, key in _fields(asked):
        fields.setdefault(key, field)
    calls = [partial(_fetch, gallery, key, fields[key]) for key in asked.input_keys]
    rasters = await together(calls, at_once=_AT_ONCE)
    return dict(zip(asked.input_keys, rasters, strict=True))


async def _fetch(gallery: Gallery, key: str, field: str) -> Raster:
    try:
        return await gallery.fetch(key)
    except NotFound as error:
        raise InvalidInput(field, "there is no such picture") from error
    except InvalidInput as error:
        raise InvalidInput(field, error.reason) from error


def _fields(asked: Generation) -> Iterator[tuple[str, str]]:
    """What asks for which key."""
    if asked.init_image is not None:
        yield "init_image.object_key", asked.init_image.object_key
        yield "init_image.mask_object_key", asked.init_image.mask_object_key
    for index, control in enumerate(asked.controls):
        yield f"controls.{index}.object_key", control.object_key
