"""The library's pictures and the place in the event feed: the ports `Library`, `LibraryFeed`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import asyncpg

from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.erasure import hash_of
from easel_kit.errors import NotFound
from easel_kit.ids import ImageId, JobId, UserId
from gateway.domain.job import Image
from gateway.domain.library import Cursor, Picture, PictureKind, PicturePage

_COLUMNS = """id, user_id, job_id, object_key, width_px, height_px, media_type, size_bytes, sha256,
    seed, created_at, thumbnail_key, kind"""
# an erased user gets no picture any more, whatever the feed still brings
_RECORD = f"""
INSERT INTO images ({_COLUMNS})
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
WHERE NOT EXISTS (SELECT FROM erasures WHERE user_hash = $14)
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 (constants)
_OWN = f"SELECT {_COLUMNS} FROM images WHERE user_id = $1 AND deleted_at IS NULL"  # noqa: S608 (constants)
_FIND = f"{_OWN} AND id = $2"
# ids begin with the time, and the index images_of_user has this order; img_g is above all of them
_PAGE = f"""
{_OWN} AND id < coalesce($2, 'img_g') AND ($3::text IS NULL OR kind = $3)
ORDER BY id DESC LIMIT $4
"""
_KEYS = """
SELECT id, object_key FROM images
WHERE user_id = $1 AND id = ANY ($2::text[]) AND deleted_at IS NULL
"""
# the row stays: a job that is looked at again, or a feed read again, records its pictures again
_REMOVE = """
UPDATE images SET deleted_at = now() WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL
RETURNING true
"""
_CURSOR = "SELECT generation, transaction_id, sequence FROM feed_cursor WHERE consumer = $1"
_ADVANCE = """
INSERT INTO feed_cursor (consumer, generation, transaction_id, sequence, moved_at)
VALUES ($1, $2, $3, $4, now())
ON CONFLICT (consumer) DO UPDATE
SET generation = excluded.generation, transaction_id = excluded.transaction_id,
    sequence = excluded.sequence, moved_at = excluded.moved_at
WHERE (feed_cursor.generation, feed_cursor.transaction_id, feed_cursor.sequence)
    < (excluded.generation, excluded.transaction_id, excluded.sequence)
"""
_CONSUMER = "library"


class PostgresLibrary:
    """Rows of `images` and `feed_cursor`."""

    def __init__(self, pool: Pool) -> None:
        """The pool's connections see the schema `gateway` first."""
        self._pool = pool

    async def record(self, pictures: Sequence[Picture]) -> None:
        """See `gateway.ports.Library`."""
        async with transaction(self._pool) as lent:
            await _record(lent, pictures)

    async def find(self, user_id: UserId, image_id: ImageId) -> Picture:
        """See `gateway.ports.Library`."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(_FIND, user_id, image_id)
        if row is None:
            raise NotFound("image", image_id)
        return _picture(row)

    async def page(
        self, user_id: UserId, *, kind: PictureKind | None, before: ImageId | None, limit: int
    ) -> PicturePage:
        """See `gateway.ports.Library`."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_PAGE, user_id, before, kind, limit + 1)
        shown = tuple(_picture(row) for row in rows[:limit])
        return PicturePage(shown, shown[-1].image.id if len(rows) > limit else None)

    async def object_keys(
        self, user_id: UserId, image_ids: Collection[ImageId]
    ) -> dict[ImageId, str]:
        """See `gateway.ports.Library`."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_KEYS, user_id, list(image_ids))
        return {ImageId(row["id"]): row["object_key"] for row in rows}

    async def remove(self, user_id: UserId, image_id: ImageId) -> None:
        """See `gateway.ports.Library`."""
        async with connection(self._pool) as lent:
            if not await lent.fetchval(_REMOVE, image_id, user_id):
                raise NotFound("image", image_id)

    async def cursor(self) -> Cursor:
        """See `gateway.ports.LibraryFeed`."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(_CURSOR, _CONSUMER)
        return Cursor() if row is None else Cursor(*row.values())

    async def apply(self, pictures: Sequence[Picture], cursor: Cursor) -> None:
        """See `gateway.ports.LibraryFeed`."""
        async with transaction(self._pool) as lent:
            await _record(lent, pictures)
            await lent.execute(
                _ADVANCE, _CONSUMER, cursor.generation, cursor.transaction_id, cursor.sequence
            )


def _picture(row: asyncpg.Record) -> Picture:
    is_drawn = row["kind"] == PictureKind.GENERATED
    return Picture(
        image=Image(
            id=ImageId(row["id"]),
            object_key=row["object_key"],
            width_px=row["width_px"],
            height_px=row["height_px"],
            media_type=row["media_type"],
            size_bytes=row["size_bytes"],
            sha256=row["sha256"],
            seed=row["seed"] if is_drawn else None,
            thumbnail_object_key=row["thumbnail_key"],
        ),
        user_id=UserId(row["user_id"]),
        job_id=JobId(row["job_id"]) if is_drawn else None,
        created_at=row["created_at"],
    )


async def _record(lent: Connection, pictures: Sequence[Picture]) -> None:
    # one order for all writers, so that two of them never wait for each other
    rows = [
        (
            picture.image.id,
            picture.user_id,
            picture.job_id or "",
            picture.image.object_key,
            picture.image.width_px,
            picture.image.height_px,
            picture.image.media_type,
            picture.image.size_bytes,
            picture.image.sha256,
            picture.image.seed or 0,
            picture.created_at,
            picture.image.thumbnail_object_key,
            picture.kind,
            hash_of(picture.user_id),
        )
        for picture in sorted(pictures, key=lambda picture: picture.image.id)
    ]
    if rows:
        await lent.executemany(_RECORD, rows)
