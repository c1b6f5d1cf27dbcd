"""Uploads over ports in memory: kept whole or not at all, and never too many at once."""

import hashlib
from dataclasses import dataclass, field

import pytest

from easel_kit.errors import DependencyDown, InvalidInput, Overloaded
from gateway.domain.library import PictureKind
from gateway.domain.upload import Developed
from gateway.service.uploads import Uploads
from tests.fakes.gateway_ports import ALICE, NOON, FakeLibrary, FakeObjects, MovedClock


@dataclass
class FakeDarkroom:
    """Knows one file."""

    async def develop(self, data: bytes) -> Developed:
        if data != b"file":
            raise InvalidInput("body", "must be the file")
        return Developed(b"png", b"small", 8, 4)


@dataclass
class Bench:
    library: FakeLibrary = field(default_factory=FakeLibrary)
    objects: FakeObjects = field(default_factory=FakeObjects)

    def __post_init__(self) -> None:
        self.service = Uploads(FakeDarkroom(), self.library, self.objects, MovedClock(), at_once=2)


async def test_a_file_becomes_a_picture_of_the_library() -> None:
    bench = Bench()
    picture = await bench.service.add(ALICE, b"file")
    image = picture.image
    assert bench.objects.kept == {
        f"users/alice/uploads/{image.id}.png": b"png",
        f"users/alice/uploads/{image.id}.t.webp": b"small",
    }
    assert await bench.library.find(ALICE, image.id) == picture
    assert (picture.kind, picture.job_id, image.seed) == (PictureKind.UPLOADED, None, None)
    assert (image.width_px, image.height_px, image.media_type) == (8, 4, "image/png")
    assert (image.size_bytes, image.sha256) == (3, hashlib.sha256(b"png").hexdigest())
    assert picture.created_at == NOON


async def test_what_is_no_picture_leaves_nothing() -> None:
    bench = Bench()
    with pytest.raises(InvalidInput):
        await bench.service.add(ALICE, b"other")
    assert (bench.objects.kept, bench.library.pictures) == ({}, {})


async def test_without_the_store_nothing_is_recorded() -> None:
    bench = Bench()
    bench.objects.fault = DependencyDown("away")
    with pytest.raises(DependencyDown):
        await bench.service.add(ALICE, b"file")
    assert bench.library.pictures == {}


def test_places_are_bounded_and_given_back() -> None:
    service = Bench().service
    with service.admitted(), service.admitted(), pytest.raises(Overloaded), service.admitted():
        pass
    with pytest.raises(InvalidInput), service.admitted():
        raise InvalidInput("body", "x")
    with service.admitted(), service.admitted():
        pass
