"""Pillow: uploaded files become upright PNGs without metadata, and small copies of them."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from PIL import Image, ImageOps

from easel_kit.errors import InvalidInput
from gateway.domain.upload import Developed

_FORMATS = ("PNG", "JPEG", "WEBP")
_THUMBNAIL_PX = 256
_THUMBNAIL_QUALITY = 80
# Between zlib's fastest and its usual 6: two thirds of the time, a few per cent more bytes.
_PNG_COMPRESSION = 4
# What Pillow's readers raise on bytes that lie.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class PillowDarkroom:
    """`ports.Darkroom` in threads of an executor, which bounds how many files are open at once.

    A file of n pixels takes up to about 12 n bytes while it is worked on.
    """

    def __init__(self, executor: Executor, *, max_pixels: int, max_png_bytes: int) -> None:
        """Files of more than `max_pixels` are refused before they are decoded.

        A PNG of more than `max_png_bytes` is refused too: workers would not read it.
        """
        self._executor = executor
        self._max_pixels = max_pixels
        self._max_png_bytes = max_png_bytes

    async def develop(self, data: bytes) -> Developed:
        """See `gateway.ports.Darkroom`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._develop, data)

    def _develop(self, data: bytes) -> Developed:
        with _opened(data, self._max_pixels) as file:
            picture = _clean(_upright(file))
        png = _encoded(picture, "PNG", compress_level=_PNG_COMPRESSION)
        if len(png) > self._max_png_bytes:
            most = f"at most {self._max_png_bytes} bytes as a PNG"
            raise InvalidInput("body", f"must take up {most}; it takes {len(png)}")
        return Developed(
            png=png,
            thumbnail=_thumbnail(picture),
            width_px=picture.width,
            height_px=picture.height,
        )


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The file's first picture, decoded; its size is known before.

    Raises:
        InvalidInput: no PNG, JPEG or WebP, damaged, or too large.
    """
    large = f"must be of at most {max_pixels} pixels"
    try:
        file = Image.open(io.BytesIO(data), formats=_FORMATS)
    except _TOO_LARGE as error:
        raise InvalidInput("body", large) from error
    except _DAMAGE as error:
        raise InvalidInput("body", "must be the bytes of a PNG, JPEG or WebP file") from error
    with file:
        if file.width * file.height > max_pixels:
            raise InvalidInput("body", f"{large}; it is {file.width} x {file.height}")
        try:
            file.load()
        except _DAMAGE as error:
            raise InvalidInput("body", "is damaged: it cannot be decoded to its end") from error
        yield file


def _upright(file: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(file)
    except _DAMAGE:
        return file.copy()  # its pixels are good, its notes are not


def _clean(picture: Image.Image) -> Image.Image:
    """Grey, RGB or RGBA with 8 bits each, and nothing besides pixels."""
    if picture.mode.startswith("I"):  # 16 bits of grey
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode not in {"L", "RGB"}:
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    picture.info.clear()
    return picture


def _thumbnail(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return _encoded(small, "WEBP", quality=_THUMBNAIL_QUALITY)


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
