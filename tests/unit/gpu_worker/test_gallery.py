"""Pictures as files: readable, with their settings inside, the same bytes for the same request."""

from __future__ import annotations

import asyncio
import hashlib
import io

import pytest
from PIL import Image

from easel_kit.errors import DependencyDown
from gpu_worker.clients.gallery import ObjectGallery, Patience
from gpu_worker.domain.drawing import DrawnPicture, EncodedPicture, Raster
from tests.fakes.gpu_worker import generation, raster

QUICK = Patience(tries=3, first_wait_s=0.001, max_wait_s=0.002, one_try_s=0.05)
PICTURE = EncodedPicture(b"png", "image/png", "00")


class ShakyStore:
    """Refuses some puts first, or hangs."""

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
        return self.objects[key][0]

    async def delete(self, key: str) -> None:
        del self.objects[key]

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        raise NotImplementedError(key, expires_s)


def gallery(store: ShakyStore) -> ObjectGallery:
    return ObjectGallery(store, QUICK)


async def test_a_picture_is_a_png_of_exactly_its_pixels() -> None:
    pixels = bytes(range(2 * 3 * 3))
    encoded = await gallery(ShakyStore()).encode(
        DrawnPicture(9, Raster(2, 3, pixels)), generation()
    )
    image = Image.open(io.BytesIO(encoded.data))
    assert (image.format, image.size, image.tobytes()) == ("PNG", (2, 3), pixels)
    assert encoded.media_type == "image/png"
    assert encoded.sha256 == hashlib.sha256(encoded.data).hexdigest()


async def test_its_settings_stand_in_it() -> None:
    asked = generation(prompt="ein rötliches Haus — 家", negative_prompt="n", guidance=2.5)
    encoded = await gallery(ShakyStore()).encode(DrawnPicture(9, raster()), asked)
    image = Image.open(io.BytesIO(encoded.data))
    image.load()
    text = dict(image.info)
    software = text.pop("Software")
    assert isinstance(software, str)
    assert software.startswith("Easel ")
    assert text == {
        "prompt": "ein rötliches Haus — 家",
        "negative_prompt": "n",
        "model": "shapes-64",
        "seed": "9",
        "steps": "10",
        "guidance": "2.5",
        "sampler": "ddim",
        "size": "64x64",
    }


async def test_the_same_request_gives_the_same_bytes() -> None:
    one = await gallery(ShakyStore()).encode(DrawnPicture(9, raster()), generation())
    two = await gallery(ShakyStore()).encode(DrawnPicture(9, raster()), generation())
    other = await gallery(ShakyStore()).encode(DrawnPicture(10, raster()), generation())
    assert one == two != other


async def test_a_look_is_a_png_without_settings() -> None:
    look = await gallery(ShakyStore()).preview(raster(5, 16, 16))
    image = Image.open(io.BytesIO(look.data))
    assert (image.format, image.size, image.info) == ("PNG", (16, 16), {})


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
