"""Uploads: a file becomes a picture of the user's library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from easel_kit.clock import Clock
from easel_kit.errors import Overloaded
from easel_kit.ids import UserId, new_image_id
from gateway.domain.library import Picture
from gateway.domain.upload import MEDIA_TYPE, THUMBNAIL_MEDIA_TYPE, uploaded
from gateway.ports import Darkroom, Library, Objects


class Uploads:
    """Files on their way into the library."""

    def __init__(
        self, darkroom: Darkroom, library: Library, objects: Objects, clock: Clock, *, at_once: int
    ) -> None:
        """At most `at_once` files are received and worked on together."""
        self._darkroom = darkroom
        self._library = library
        self._objects = objects
        self._clock = clock
        self._free = at_once

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds one of the places; a file is received inside, as its bytes take up memory.

        Raises:
            Overloaded: all are taken.
        """
        if self._free <= 0:
            raise Overloaded("too many uploads at once")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def add(self, user_id: UserId, data: bytes) -> Picture:
        """Keeps a file as a PNG, with a small copy, then records it.

        Objects of a try that was cut stay behind without a row.

        Raises:
            InvalidInput: no PNG, JPEG or WebP, damaged, or too large.
            DependencyDown: the object store or the database does not answer.
        """
        developed = await self._darkroom.develop(data)
        picture = uploaded(user_id, new_image_id(), developed, self._clock.now())
        image = picture.image
        await self._objects.put(image.object_key, developed.png, MEDIA_TYPE)
        await self._objects.put(
            image.thumbnail_object_key, developed.thumbnail, THUMBNAIL_MEDIA_TYPE
        )
        await self._library.record([picture])
        return picture
