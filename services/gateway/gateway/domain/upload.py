"""A picture that its owner brings along."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from easel_kit.ids import ImageId, UserId
from gateway.domain.job import Image
from gateway.domain.library import Picture
from gateway.domain.privacy import folder_of

MEDIA_TYPE = "image/png"
THUMBNAIL_MEDIA_TYPE = "image/webp"


@dataclass(frozen=True, slots=True)
class Developed:
    """An uploaded picture as it is kept, and a small copy (WebP)."""

    png: bytes = field(repr=False)
    thumbnail: bytes = field(repr=False)
    width_px: int
    height_px: int


def uploaded(user_id: UserId, image_id: ImageId, developed: Developed, now: datetime) -> Picture:
    """The picture for the library."""
    folder = f"{folder_of(user_id)}/uploads"
    return Picture(
        image=Image(
            id=image_id,
            object_key=f"{folder}/{image_id}.png",
            width_px=developed.width_px,
            height_px=developed.height_px,
            media_type=MEDIA_TYPE,
            size_bytes=len(developed.png),
            sha256=hashlib.sha256(developed.png).hexdigest(),
            seed=None,
            thumbnail_object_key=f"{folder}/{image_id}.t.webp",
        ),
        user_id=user_id,
        job_id=None,
        created_at=now,
    )
