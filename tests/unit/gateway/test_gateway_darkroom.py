"""Uploaded files: what is taken, what becomes of it, and what is refused before it costs much."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from easel_kit.errors import InvalidInput
from gateway.clients.darkroom import PillowDarkroom
from gateway.domain.upload import Developed

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
_ORIENTATION = 0x0112
_threads = ThreadPoolExecutor(1)


def develop(data: bytes, *, max_pixels: int = 4096) -> Developed:
    darkroom = PillowDarkroom(_threads, max_pixels=max_pixels, max_png_bytes=20_000)
    return asyncio.run(darkroom.develop(data))


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def file(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    made = io.BytesIO()
    picture.save(made, kind, **options)
    return made.getvalue()


def corners() -> Image.Image:
    """8 x 4: red on the left, blue on the right."""
    picture = Image.new("RGB", (8, 4), RED)
    picture.paste(BLUE, (4, 0, 8, 4))
    return picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_three_kinds_of_files_become_png_and_a_small_webp(kind: str) -> None:
    developed = develop(file(Image.new("RGB", (64, 32), GREEN), kind))
    kept, small = opened(developed.png), opened(developed.thumbnail)
    assert (kept.format, kept.mode, kept.size) == ("PNG", "RGB", (64, 32))
    assert (developed.width_px, developed.height_px) == (64, 32)
    assert (small.format, small.size) == ("WEBP", (64, 32))
    red, green, blue = kept.getpixel((1, 1))  # type: ignore[misc]
    assert (red < 5, green > 250, blue < 5) == (True, True, True)


def test_a_small_copy_is_at_most_256_a_side() -> None:
    developed = develop(file(Image.new("L", (1024, 512))), max_pixels=10**6)
    assert opened(developed.thumbnail).size == (256, 128)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_it_is_turned_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION] = 6  # the camera was turned: the top is on the right
    developed = develop(file(corners(), kind, exif=exif))
    kept = opened(developed.png)
    assert (kept.size, developed.width_px, developed.height_px) == ((4, 8), 4, 8)
    red, _, blue = kept.getpixel((1, 0))  # type: ignore[misc]
    assert red > blue
    assert opened(developed.thumbnail).size == (4, 8)


def test_nothing_but_pixels_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010F] = "camera of alice"
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "written by alice")
    for data in (
        file(
            corners(), "PNG", exif=exif, pnginfo=note, icc_profile=b"profile of alice", dpi=(9, 9)
        ),
        file(corners(), "JPEG", exif=exif, comment=b"written by alice"),
        file(corners(), "WEBP", exif=exif, xmp=b"<x>alice</x>"),
    ):
        assert b"alice" in data or b"iCCP" in data
        developed = develop(data)
        for kept in (developed.png, developed.thumbnail):
            assert b"alice" not in kept
            assert not any(name in kept for name in (b"iCCP", b"eXIf", b"EXIF", b"tEXt", b"pHYs"))


@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("1", "L"),
        ("L", "L"),
        ("LA", "RGBA"),
        ("P", "RGB"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("I;16", "L"),
    ],
)
def test_odd_modes_become_usual_ones(mode: str, kept: str) -> None:
    assert opened(develop(file(Image.new(mode, (8, 8)))).png).mode == kept


def test_sixteen_bits_of_grey_are_scaled() -> None:
    grey = Image.new("I;16", (8, 8), 0x8000)
    assert opened(develop(file(grey)).png).getpixel((0, 0)) == 0x80


def test_cmyk_and_palettes_with_a_hole_are_read() -> None:
    assert opened(develop(file(Image.new("CMYK", (8, 8)), "JPEG")).png).mode == "RGB"
    holed = Image.new("P", (8, 8))
    assert opened(develop(file(holed, transparency=0)).png).mode == "RGBA"


def _png(width: int, height: int) -> bytes:
    """The head of a PNG that claims a size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(65, 64), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_by_the_head_alone(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="at most 4096 pixels") as refused:
        develop(_png(*size))
    assert refused.value.field == "body"


def test_what_grows_too_large_as_png_is_refused() -> None:
    noise = Image.effect_noise((100, 100), 99)
    three = Image.merge("RGB", [noise, noise.rotate(90), noise.rotate(180)])
    with pytest.raises(InvalidInput, match="at most 20000 bytes as a PNG") as refused:
        develop(file(three, "JPEG"), max_pixels=10**4)
    assert refused.value.field == "body"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n",
        file(Image.new("RGB", (8, 8)), "GIF"),
        file(Image.new("RGB", (8, 8)), "BMP"),
        file(Image.new("RGB", (8, 8)), "TIFF"),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="PNG, JPEG or WebP") as refused:
        develop(data)
    assert refused.value.field == "body"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_ends_too_early_is_refused(kind: str) -> None:
    noise = Image.effect_noise((64, 64), 99)
    data = file(noise.convert("RGB"), kind)
    with pytest.raises(InvalidInput):
        develop(data[: len(data) // 2])


# Pillow warns of what it leaves out; a process goes on
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_notes_that_cannot_be_read_do_not_cost_the_picture() -> None:
    for notes in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        assert opened(develop(file(corners(), "PNG", exif=notes)).png).size == (8, 4)


WHOLE = {
    kind: file(Image.effect_noise((16, 16), 99).convert("RGB"), kind)
    for kind in ("PNG", "JPEG", "WEBP")
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_lying_bytes_are_refused_or_read_and_never_break(kind: str, data: st.DataObject) -> None:
    changed = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        developed = develop(bytes(changed))
    except InvalidInput as refused:
        assert refused.field == "body"  # noqa: PT017 (either is right)
    else:
        assert opened(developed.png).size == (developed.width_px, developed.height_px)
