"""What the gateway needs for pictures: its own library, the object store, a darkroom."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from easel_kit.ids import ImageId, UserId
from gateway.domain.library import Cursor, Picture, PictureKind, PicturePage
from gateway.domain.upload import Developed


class Library(Protocol):
    """The users' pictures."""

    async def record(self, pictures: Sequence[Picture]) -> None:
        """Adds pictures; those that are there already stay as they are.

        Pictures of users who are being erased, or were, are passed over.
        """
        ...

    async def find(self, user_id: UserId, image_id: ImageId) -> Picture:
        """One picture of the user.

        Raises:
            NotFound: no such picture, or someone else's.
        """
        ...

    async def page(
        self, user_id: UserId, *, kind: PictureKind | None, before: ImageId | None, limit: int
    ) -> PicturePage:
        """The user's pictures, newest first, of that kind or any, older than `before`."""
        ...

    async def object_keys(
        self, user_id: UserId, image_ids: Collection[ImageId]
    ) -> dict[ImageId, str]:
        """Where the bytes of those pictures are that are the user's; others are left out."""
        ...

    async def remove(self, user_id: UserId, image_id: ImageId) -> None:
        """Takes a picture out for good: recording it again does not bring it back.

        Raises:
            NotFound: no such picture, or someone else's.
        """
        ...


class LibraryFeed(Protocol):
    """The library as the event feed fills it."""

    async def cursor(self) -> Cursor:
        """The place up to which the feed has been applied."""
        ...

    async def apply(self, pictures: Sequence[Picture], cursor: Cursor) -> None:
        """Adds pictures and moves the cursor, both or neither; the cursor never goes back."""
        ...


class Objects(Protocol):
    """The object store, for pictures and their small copies."""

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        """Stores the bytes whole or not at all."""
        ...

    async def delete(self, key: str) -> None:
        """Removes the object; no error when it is gone already."""
        ...

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        """A URL that gives the object to whoever holds it, for `expires_s` seconds."""
        ...


class Darkroom(Protocol):
    """Where uploaded files become pictures."""

    async def develop(self, data: bytes) -> Developed:
        """Upright, as PNG without metadata; its size is checked before it is decoded.

        Raises:
            InvalidInput: no PNG, JPEG or WebP, damaged, or too large; names the field `body`.
        """
        ...


class LocalObjects(Protocol):
    """The folder store, whose signed URLs lead back to this gateway."""

    def verify(self, key: str, expires: int, signature: str) -> None:
        """Checks a signed URL's parts.

        Raises:
            Forbidden: wrong signature, or too late.
            InvalidInput: the key is malformed.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: no such object.
        """
        ...
