"""Pictures of the library as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from gateway.domain.library import Picture, PicturePage
from gateway.service.privacy import LinkedPicture
from gateway.web.schemas.base import IMAGE_EXAMPLE, JOB_EXAMPLE, TIME_EXAMPLE, Out
from gateway.web.schemas.generation import content_path, thumbnail_path

Kind = Literal["generated", "uploaded"]


class ImageOut(Out):
    """A picture of the library."""

    id: str = Field(examples=[IMAGE_EXAMPLE])
    kind: Kind
    job_id: str | None = Field(
        examples=[JOB_EXAMPLE], description="Which job has drawn it; null for an uploaded one."
    )
    url: str = Field(description="Redirects to the bytes.")
    thumbnail_url: str | None = Field(
        description="Redirects to a WebP of at most 256 pixels a side; null where there is none."
    )
    width: int = Field(examples=[64])
    height: int = Field(examples=[64])
    media_type: str = Field(examples=["image/png"])
    size_bytes: int = Field(examples=[5120])
    sha256: str = Field(description="Of the bytes, hexadecimal.")
    seed: int | None = Field(examples=[7], description="Null for an uploaded one.")
    created_at: datetime = Field(examples=[TIME_EXAMPLE])

    @classmethod
    def of(cls, picture: Picture) -> ImageOut:
        """From the domain."""
        image = picture.image
        return cls(
            id=image.id,
            kind=picture.kind.value,
            job_id=picture.job_id,
            url=content_path(image),
            thumbnail_url=thumbnail_path(image),
            width=image.width_px,
            height=image.height_px,
            media_type=image.media_type,
            size_bytes=image.size_bytes,
            sha256=image.sha256,
            seed=image.seed,
            created_at=picture.created_at,
        )


class LinkedImageOut(ImageOut):
    """A picture with a link for whoever has it."""

    link: str = Field(description="Gives the bytes without a token, for a day.")

    @classmethod
    def linked(cls, one: LinkedPicture) -> LinkedImageOut:
        """From the service."""
        return cls(**ImageOut.of(one.picture).model_dump(), link=one.link)


class ImagePage(Out):
    """Pictures, newest first."""

    items: tuple[ImageOut, ...]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")

    @classmethod
    def of(cls, page: PicturePage) -> ImagePage:
        """From the domain."""
        return cls(
            items=tuple(ImageOut.of(picture) for picture in page.pictures),
            next_cursor=page.next_before,
        )
