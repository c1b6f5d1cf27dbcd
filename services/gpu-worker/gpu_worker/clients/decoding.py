"""Pictures that jobs read: a user's bytes in, pixels of a bounded size out. All of it blocks."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import ExifTags, Image

from easel_kit.errors import InvalidInput
from gpu_worker.domain.drawing import Raster

_FORMATS = ("PNG", "JPEG", "WEBP")
_FIELD = "picture"

_UPRIGHT = {  # Exif 2.32, section 4.6.4: how the stored picture is turned
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class InputBounds:
    """What a picture may have at most: bytes as a file, pixels once decoded."""

    max_bytes: int
    max_pixels: int


def decode_picture(data: bytes, bounds: InputBounds) -> Raster:
    """The pixels, upright, in RGB; of a moving picture the first ones.

    What is see-through becomes black: in masks and control pictures that means nothing.

    Raises:
        InvalidInput: no PNG, JPEG or WebP, damaged, or larger than the bounds.
    """
    if len(data) > bounds.max_bytes:
        raise InvalidInput(_FIELD, f"must be at most {bounds.max_bytes} bytes")
    try:
        # the header alone is read here; pixels come with the first look at them
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height <= bounds.max_pixels:
                return _raster(_rgb(_upright(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pass
    except Exception as error:  # decoders raise all kinds of things at bytes that are none
        raise InvalidInput(_FIELD, "must be a whole PNG, JPEG or WebP") from error
    raise InvalidInput(_FIELD, f"must have at most {bounds.max_pixels} pixels")


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # a PNG may tell its orientation after its pixels
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 (notes that are damaged do not spoil the pixels)
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, as depth maps have: Pillow would clip them
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "black"), shown).convert("RGB")
    return image.convert("RGB")


def _raster(image: Image.Image) -> Raster:
    return Raster(image.width, image.height, image.tobytes())
