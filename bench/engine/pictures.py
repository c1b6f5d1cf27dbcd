"""Pictures as systems hand them over: one way to make files of them, one judgement of all."""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image, UnidentifiedImageError

from bench.engine.trace import Request

_COMPRESS_LEVEL = 6


def answer(image: Image.Image) -> dict[str, str]:
    """The body of an HTTP answer, the same for every server."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_COMPRESS_LEVEL)
    return {"png": base64.b64encode(file.getvalue()).decode("ascii")}


def read_answer(body: object) -> Image.Image:
    """The picture of an answer.

    Raises:
        ValueError: there is none in it.
    """
    try:
        png = base64.b64decode(body["png"], validate=True)  # type: ignore[index] # judged here
        image = Image.open(io.BytesIO(png))
        image.load()
    except (TypeError, KeyError, binascii.Error, UnidentifiedImageError, OSError) as error:
        raise ValueError("no picture in the answer") from error
    return image


def fault_of(image: Image.Image, asked: Request) -> str:
    """What is wrong with a picture; empty for nothing."""
    if image.size != (asked.size_px, asked.size_px):
        return f"{image.width}x{image.height} instead of {asked.size_px}x{asked.size_px}"
    if image.mode != "RGB":
        return f"{image.mode} instead of RGB"
    if all(band.getextrema()[0] == band.getextrema()[1] for band in image.split()):
        return "blank"
    return ""
