"""Pictures of users: upright, in RGB, bounded; whatever else comes is refused."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from easel_kit.errors import InvalidInput
from gpu_worker.clients.decoding import InputBounds, decode_picture
from gpu_worker.domain.drawing import Raster

BOUNDS = InputBounds(max_bytes=20_000, max_pixels=64 * 64)

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)


def file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def colours(raster: Raster) -> list[tuple[int, ...]]:
    return [tuple(raster.rgb[at : at + 3]) for at in range(0, len(raster.rgb), 3)]


def noise(side_px: int) -> Image.Image:
    return Image.frombytes("RGB", (side_px, side_px), Random(1).randbytes(3 * side_px * side_px))


def two_by_one(mode: str = "RGB") -> Image.Image:
    """Red, then blue."""
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    return image.convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_each_kind_is_read(kind: str) -> None:
    raster = decode_picture(file(Image.new("RGB", (24, 16), (200, 100, 50)), kind), BOUNDS)
    assert (raster.width_px, raster.height_px, len(raster.rgb)) == (24, 16, 24 * 16 * 3)
    assert all(
        abs(one - two) <= 4 for one, two in zip(raster.rgb, (200, 100, 50) * 384, strict=True)
    )


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "I;16"])
def test_each_mode_becomes_rgb(mode: str) -> None:
    grey = Image.new("L", (3, 2), 255)
    image = Image.new("I;16", (3, 2), 65_535) if mode == "I;16" else grey.convert(mode)
    assert colours(decode_picture(file(image), BOUNDS)) == [WHITE] * 6


def test_a_deep_picture_keeps_its_middle() -> None:
    middle = decode_picture(file(Image.new("I;16", (1, 1), 32_896)), BOUNDS)
    assert colours(middle) == [(128, 128, 128)]


def test_a_printers_jpeg_becomes_rgb() -> None:
    raster = decode_picture(file(Image.new("CMYK", (8, 8)), "JPEG"), BOUNDS)
    assert set(colours(raster)) == {WHITE}


def test_what_is_see_through_becomes_black() -> None:
    image = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert colours(decode_picture(file(image), BOUNDS)) == [BLACK, RED]
    with_palette = Image.new("P", (1, 1), 0)
    with_palette.putpalette([255, 255, 255])
    assert colours(decode_picture(file(with_palette, transparency=0), BOUNDS)) == [BLACK]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[RED, BLUE]]),
        (2, [[BLUE, RED]]),
        (3, [[BLUE, RED]]),
        (4, [[RED, BLUE]]),
        (5, [[RED], [BLUE]]),
        (6, [[RED], [BLUE]]),
        (7, [[BLUE], [RED]]),
        (8, [[BLUE], [RED]]),
        (9, [[RED, BLUE]]),
    ],
)
def test_a_camera_held_sideways_makes_no_difference(
    orientation: int, expected: list[list[tuple[int, int, int]]]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for kind in ("PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        raster = decode_picture(file(two_by_one(), kind, exif=exif, **options), BOUNDS)
        assert (raster.width_px, raster.height_px) == (len(expected[0]), len(expected))
        assert colours(raster) == [colour for row in expected for colour in row]


def test_a_damaged_note_does_not_spoil_the_picture() -> None:
    image = two_by_one()
    for note in (b"Exif\0\0MM\0*\0\0\0", b"Exif\0\0nonsense", b""):
        assert colours(decode_picture(file(image, exif=note), BOUNDS)) == [RED, BLUE]


def test_of_a_moving_picture_the_first_one_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    for kind in ("PNG", "WEBP"):
        data = file(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert set(colours(decode_picture(data, BOUNDS))) == {RED}


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(InvalidInput, match="must be a whole PNG, JPEG or WebP"):
        decode_picture(file(two_by_one(), kind), BOUNDS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_was_cut_off_is_refused(kind: str) -> None:
    data = file(noise(48), kind)
    with pytest.raises(InvalidInput, match="must be a whole"):
        decode_picture(data[: len(data) // 2], BOUNDS)


def test_bytes_are_counted_before_anything_is_read() -> None:
    data = file(two_by_one())
    assert decode_picture(data, InputBounds(len(data), 2)).width_px == 2
    with pytest.raises(InvalidInput, match=f"at most {len(data) - 1} bytes"):
        decode_picture(data, InputBounds(len(data) - 1, 2))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pixels_are_counted_before_they_are_decoded(kind: str) -> None:
    with pytest.raises(InvalidInput, match="at most 4096 pixels"):
        decode_picture(file(Image.new("RGB", (65, 64)), kind), BOUNDS)


def _bomb(width: int, height: int) -> bytes:
    """A PNG that says it has this size, and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side_px", [10_000, 20_000, 2**31 - 1])
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_bomb_is_refused_unopened(side_px: int, action: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="at most 4096 pixels"):
            decode_picture(_bomb(side_px, side_px), BOUNDS)


@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_whatever_is_damaged_is_a_picture_or_refused(data: st.DataObject, kind: str) -> None:
    whole = bytearray(file(noise(9), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        raster = decode_picture(bytes(whole), BOUNDS)
    except InvalidInput:
        return
    assert len(raster.rgb) == 3 * raster.width_px * raster.height_px
    assert raster.width_px * raster.height_px <= BOUNDS.max_pixels
