"""The library: which picture is whose, and how its bytes are handed out."""

from __future__ import annotations

from easel_kit.ids import ImageId, UserId
from gateway.domain.library import Picture
from gateway.ports import Library, Links

# Long enough for a slow client to start a download, short enough for a link that leaks.
_LINK_TTL_S = 300


class Pictures:
    """A user's pictures."""

    def __init__(self, library: Library, links: Links) -> None:
        """Rows from `library`, links from the object store."""
        self._library = library
        self._links = links

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
        return await self._links.signed_url(picture.image.object_key, expires_s=_LINK_TTL_S)
