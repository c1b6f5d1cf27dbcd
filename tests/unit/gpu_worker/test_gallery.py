"""Pictures to and from the store: tried again, given up, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from easel_kit.errors import DependencyDown, InvalidInput, NotFound
from gpu_worker.clients.decoding import InputBounds
from gpu_worker.clients.encoding import encode_preview
from gpu_worker.clients.gallery import ObjectGallery, Patience
from gpu_worker.domain.drawing import EncodedPicture
from tests.fakes.gpu_worker import raster

QUICK = Patience(tries=3, first_wait_s=0.001, max_wait_s=0.002, one_try_s=0.05)
BOUNDS = InputBounds(max_bytes=10_000, max_pixels=64 * 64)
PICTURE = EncodedPicture(b"png", "image/png", "00")


class ShakyStore:
    """Refuses some calls first, or hangs."""

    def __init__(self, refusals: int = 0, *, hangs: bool = False) -> None:
        self.refusals = refusals
        self.hangs = hangs
        self.objects: dict[str, tuple[bytes, str]] = {}

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        if self.hangs:
            await asyncio.sleep(60)
        if self.refusals:
            self.refusals -= 1
            raise DependencyDown("not now")
        self.objects[key] = (data, media_type)

    async def get(self, key: str) -> bytes:
        if self.hangs:
            await asyncio.sleep(60)
        if self.refusals:
            self.refusals -= 1
            raise DependencyDown("not now")
        if key not in self.objects:
            raise NotFound("object", key)
        return self.objects[key][0]

    async def delete(self, key: str) -> None:
        del self.objects[key]

    async def list(self, folder: str) -> Sequence[str]:
        return sorted(key for key in self.objects if key.startswith(f"{folder}/"))

    async def delete_all(self, folder: str) -> int:
        raise NotImplementedError(folder)

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        raise NotImplementedError(key, expires_s)


def gallery(store: ShakyStore) -> ObjectGallery:
    return ObjectGallery(store, QUICK, BOUNDS)


async def test_an_upload_is_tried_again() -> None:
    store = ShakyStore(refusals=2)
    await gallery(store).store("users/a/0.png", PICTURE)
    assert store.objects == {"users/a/0.png": (b"png", "image/png")}


async def test_an_upload_is_given_up_in_the_end() -> None:
    store = ShakyStore(refusals=3)
    with pytest.raises(DependencyDown, match="not now"):
        await gallery(store).store("users/a/0.png", PICTURE)
    assert not store.objects


async def test_a_store_that_hangs_counts_as_down() -> None:
    with pytest.raises(DependencyDown, match="does not answer"):
        await gallery(ShakyStore(hangs=True)).store("users/a/0.png", PICTURE)


async def test_a_picture_is_fetched_at_another_try() -> None:
    store = ShakyStore(refusals=2)
    store.objects["users/a/in.png"] = (encode_preview(raster(7)).data, "image/png")
    assert await gallery(store).fetch("users/a/in.png") == raster(7)


async def test_fetching_says_what_is_wrong() -> None:
    store = ShakyStore()
    store.objects["users/a/text"] = (b"no picture", "image/png")
    with pytest.raises(NotFound):
        await gallery(store).fetch("users/a/none")
    with pytest.raises(InvalidInput, match="must be a whole PNG, JPEG or WebP"):
        await gallery(store).fetch("users/a/text")
    with pytest.raises(DependencyDown, match="not now"):
        await gallery(ShakyStore(refusals=3)).fetch("users/a/in.png")
    with pytest.raises(DependencyDown, match="does not answer"):
        await gallery(ShakyStore(hangs=True)).fetch("users/a/in.png")


async def test_only_some_pictures_are_fetched_at_a_time() -> None:
    most = now = 0

    class Counting(ShakyStore):
        async def get(self, key: str) -> bytes:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return self.objects[key][0]

    store = Counting()
    store.objects["users/a/in.png"] = (encode_preview(raster(7)).data, "image/png")
    fetching = gallery(store)
    await asyncio.gather(*(fetching.fetch("users/a/in.png") for _ in range(12)))
    assert most == 4
