"""The library: which picture is whose, and how its bytes are handed out."""

from __future__ import annotations

from easel_kit.errors import NotFound
from easel_kit.ids import ImageId, UserId
from gateway.domain.library import Picture, PictureKind, PicturePage
from gateway.ports import Library, Objects

# Long enough for a slow client to start a download, short enough for a link that leaks.
_LINK_TTL_S = 300


class Pictures:
    """A user's pictures."""

    def __init__(self, library: Library, objects: Objects) -> None:
        """Rows from `library`, bytes from the object store."""
        self._library = library
        self._objects = objects

    async def find(self, user_id: UserId, image_id: ImageId) -> Picture:
        """One picture.

        Raises:
            NotFound: no such picture, or someone else's.
        """
        return await self._library.find(user_id, image_id)

    async def content_url(self, user_id: UserId, image_id: ImageId) -> str:
        """A short-lived link to the picture's bytes.

        Raises:
            NotFound: no such picture, or someone else's.
        """
        picture = await self._library.find(user_id, image_id)
        return await self._objects.signed_url(picture.image.object_key, expires_s=_LINK_TTL_S)

    async def thumbnail_url(self, user_id: UserId, image_id: ImageId) -> str:
        """A short-lived link to its small copy.

        Raises:
            NotFound: no such picture, someone else's, or it has no small copy.
        """
        picture = await self._library.find(user_id, image_id)
        if not picture.image.thumbnail_object_key:
            raise NotFound("thumbnail of", image_id)
        return await self._objects.signed_url(
            picture.image.thumbnail_object_key, expires_s=_LINK_TTL_S
        )

    async def page(
        self, user_id: UserId, *, kind: PictureKind | None, before: ImageId | None, limit: int
    ) -> PicturePage:
        """The user's pictures, newest first; `limit` 1 to 100."""
        return await self._library.page(user_id, kind=kind, before=before, limit=limit)

    async def delete(self, user_id: UserId, image_id: ImageId) -> None:
        """Removes a picture, its bytes first, so that a try that was cut can be made again.

        A job that has not yet read it fails.

        Raises:
            NotFound: no such picture, or someone else's.
        """
        image = (await self._library.find(user_id, image_id)).image
        await self._objects.delete(image.object_key)
        if image.thumbnail_object_key:
            await self._objects.delete(image.thumbnail_object_key)
        await self._library.remove(user_id, image_id)
