"""Pictures as files: PNG, WebP and JPEG, with their settings inside. All of it blocks.

The same picture and settings give the same bytes (with the same codec libraries).
"""

from __future__ import annotations

import hashlib
import io

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from gpu_worker.clients.imprint import SOFTWARE, as_json, as_parameters, as_texts, settings_of
from gpu_worker.domain.drawing import DrawnPicture, EncodedPicture, Raster
from gpu_worker.domain.generation import Generation, ImageFormat, Output

_THUMBNAIL_PX = 256
_THUMBNAIL_QUALITY = 80

_QUALITY = {ImageFormat.WEBP: 90, ImageFormat.JPEG: 92}
"""Our choice: hardly to be told from the PNG, at a tenth to a fifth of its bytes."""

_FULL_COLOUR_QUALITY = 90
"""From here on JPEG keeps colour in full resolution: red on blue shows the difference."""

_UNICODE = b"UNICODE\0"  # Exif 2.32, table 9: the character code of a UserComment


def encode_picture(picture: DrawnPicture, generation: Generation) -> EncodedPicture:
    """The picture as the file asked for."""
    image = _image(picture.raster)
    match generation.output.format:
        case ImageFormat.PNG:
            return _png(image, _chunks(picture, generation), compress_level=6)
        case ImageFormat.WEBP:
            return _webp(image, _quality(generation.output), _exif(picture, generation))
        case ImageFormat.JPEG:
            return _jpeg(image, _quality(generation.output), _exif(picture, generation))


def encode_preview(raster: Raster) -> EncodedPicture:
    """A PNG without settings, packed for speed."""
    return _png(_image(raster), None, compress_level=1)


def encode_thumbnail(raster: Raster) -> EncodedPicture:
    """A WebP of at most 256 pixels a side, never larger than the picture, without settings."""
    image = _image(raster)
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return _webp(image, _THUMBNAIL_QUALITY, b"")


def _image(raster: Raster) -> Image.Image:
    return Image.frombytes("RGB", (raster.width_px, raster.height_px), raster.rgb)


def _quality(output: Output) -> int:
    return output.quality or _QUALITY[output.format]


def _chunks(picture: DrawnPicture, generation: Generation) -> PngInfo | None:
    """Settings as iTXt chunks: UTF-8, one a setting, and `parameters` for other programs."""
    if not generation.output.with_settings:
        return None
    chunks = PngInfo()
    texts = {"Software": SOFTWARE} | as_texts(settings_of(picture, generation))
    texts["parameters"] = as_parameters(picture, generation)
    for name, text in texts.items():
        chunks.add_itxt(name, text)
    return chunks


def _exif(picture: DrawnPicture, generation: Generation) -> bytes:
    """Settings where JPEG and WebP have room for them: Exif, which both carry alike.

    `UserComment` has the parameters text, since that is where programs for diffusion pictures look;
    `ImageDescription` has all settings as JSON in UTF-8, for whoever wants them exactly. XMP would
    say it a third time, to nobody who reads it.
    """
    if not generation.output.with_settings:
        return b""
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE
    exif[ExifTags.Base.ImageDescription] = as_json(settings_of(picture, generation)).encode()
    comment = as_parameters(picture, generation).encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _UNICODE + comment
    return exif.tobytes()


def _png(image: Image.Image, chunks: PngInfo | None, *, compress_level: int) -> EncodedPicture:
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=chunks, compress_level=compress_level)
    return _encoded(file, "image/png")


def _webp(image: Image.Image, quality: int, exif: bytes) -> EncodedPicture:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=4, exif=exif)
    return _encoded(file, "image/webp")


def _jpeg(image: Image.Image, quality: int, exif: bytes) -> EncodedPicture:
    file = io.BytesIO()
    subsampling = "4:4:4" if quality >= _FULL_COLOUR_QUALITY else "4:2:0"
    image.save(file, "JPEG", quality=quality, subsampling=subsampling, optimize=True, exif=exif)
    return _encoded(file, "image/jpeg")


def _encoded(file: io.BytesIO, media_type: str) -> EncodedPicture:
    data = file.getvalue()
    return EncodedPicture(data, media_type, hashlib.sha256(data).hexdigest())
