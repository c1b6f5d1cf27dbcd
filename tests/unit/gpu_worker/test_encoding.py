"""Pictures as files: readable, with their settings inside, the same bytes for the same request."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest
from PIL import ExifTags, Image, JpegImagePlugin

from easel_kit.ids import ModelKey
from gpu_worker.clients.encoding import encode_picture, encode_preview, encode_thumbnail
from gpu_worker.domain.drawing import DrawnPicture, EncodedPicture, Raster
from gpu_worker.domain.generation import (
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
)
from tests.fakes.gpu_worker import generation, raster

LOSSY = [ImageFormat.WEBP, ImageFormat.JPEG]
EVERYTHING = generation(
    prompt="ein rötliches Haus — 家",
    negative_prompt="n",
    guidance=7.123456789,
    loras=(Lora(ModelKey("ink"), 0.8), Lora(ModelKey("wax"), -1.0)),
    init_image=InitImage("users/alice/secret.png", 0.6, "users/alice/hidden.png"),
    controls=(Control(ModelKey("edges"), "users/alice/private.png", 0.9, 0.0, 0.75),),
    hires=Hires(1.5, 12, 0.4),
    clip_skip=1,
)


def encode(asked: Generation, seed: int = 9, pixels: Raster | None = None) -> EncodedPicture:
    return encode_picture(DrawnPicture(seed, pixels or raster()), asked)


def opened(encoded: EncodedPicture) -> Image.Image:
    image = Image.open(io.BytesIO(encoded.data))
    image.load()
    return image


def described(image: Image.Image) -> tuple[dict[str, Any], str]:
    """The JSON and the parameters in a file's Exif."""
    exif = image.getexif()
    # Pillow reads text as Latin-1, whatever it is
    told = str(exif[ExifTags.Base.ImageDescription]).encode("latin-1").decode()
    comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment.startswith(b"UNICODE\0")
    return json.loads(told), comment[8:].decode("utf-16-be")


def in_format(file_format: ImageFormat, quality: int = 0) -> Generation:
    return generation(output=Output(file_format, quality))


def gradient() -> Raster:
    pixels = bytes(value for y in range(64) for x in range(64) for value in (4 * x, 4 * y, 128))
    return Raster(64, 64, pixels)


def test_a_png_has_exactly_the_pixels() -> None:
    pixels = bytes(range(2 * 3 * 3))
    encoded = encode(generation(), pixels=Raster(2, 3, pixels))
    image = opened(encoded)
    assert (image.format, image.size, image.tobytes()) == ("PNG", (2, 3), pixels)
    assert encoded.media_type == "image/png"
    assert encoded.sha256 == hashlib.sha256(encoded.data).hexdigest()


@pytest.mark.parametrize(
    ("file_format", "name", "media_type"),
    [(ImageFormat.WEBP, "WEBP", "image/webp"), (ImageFormat.JPEG, "JPEG", "image/jpeg")],
)
def test_other_files_are_nearly_the_same_pixels(
    file_format: ImageFormat, name: str, media_type: str
) -> None:
    encoded = encode(in_format(file_format), pixels=gradient())
    image = opened(encoded)
    assert (image.format, image.size, encoded.media_type) == (name, (64, 64), media_type)
    pairs = zip(image.convert("RGB").tobytes(), gradient().rgb, strict=True)
    assert sum(abs(one - other) for one, other in pairs) / len(gradient().rgb) < 4


@pytest.mark.parametrize("file_format", LOSSY)
def test_less_quality_makes_smaller_files(file_format: ImageFormat) -> None:
    sizes = [
        len(encode(in_format(file_format, quality), pixels=gradient()).data)
        for quality in (1, 50, 0, 100)
    ]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)


def test_a_good_jpeg_keeps_colour_in_full() -> None:
    def sampling(quality: int) -> int:
        image = opened(encode(in_format(ImageFormat.JPEG, quality)))
        return JpegImagePlugin.get_sampling(image)

    assert (sampling(0), sampling(89)) == (0, 2)  # 4:4:4 and 4:2:0


def test_a_png_has_its_settings_as_texts() -> None:
    text = dict(opened(encode(generation(negative_prompt="n", guidance=2.5))).info)
    parameters = text.pop("parameters")
    assert isinstance(parameters, str)
    assert parameters.splitlines()[1] == "Negative prompt: n"
    software = text.pop("Software")
    assert isinstance(software, str)
    assert software.startswith("Easel ")
    assert text == {
        "prompt": "a red circle on a white background",
        "negative_prompt": "n",
        "model": "shapes-64",
        "seed": "9",
        "steps": "10",
        "guidance": "2.5",
        "sampler": "ddim",
        "size": "64x64",
    }


def test_everything_that_repeats_the_picture_stands_in_a_png() -> None:
    text = opened(encode(EVERYTHING)).info
    assert text["prompt"] == "ein rötliches Haus — 家"
    assert text["guidance"] == "7.123456789"
    assert text["clip_skip"] == "1"
    parts = ("loras", "init_image", "controls", "hires")
    assert {name: json.loads(text[name]) for name in parts} == {
        "loras": [{"model": "ink", "weight": 0.8}, {"model": "wax", "weight": -1.0}],
        "init_image": {"strength": 0.6, "mask": True},
        "controls": [{"model": "edges", "weight": 0.9, "begin": 0.0, "end": 0.75}],
        "hires": {"scale": 1.5, "steps": 12, "strength": 0.4},
    }


@pytest.mark.parametrize("file_format", LOSSY)
def test_other_files_have_the_same_settings_in_their_exif(file_format: ImageFormat) -> None:
    asked = generation(prompt="ein Haus — 家 🏠", output=Output(file_format))
    image = opened(encode(asked))
    settings, parameters = described(image)
    software = settings.pop("software")
    assert image.getexif()[ExifTags.Base.Software] == software
    assert settings == {
        "prompt": "ein Haus — 家 🏠",
        "negative_prompt": "",
        "model": "shapes-64",
        "seed": 9,
        "steps": 10,
        "guidance": 2.5,
        "sampler": "ddim",
        "size": "64x64",
    }
    assert parameters == (
        "ein Haus — 家 🏠\n"
        "Steps: 10, Sampler: ddim, CFG scale: 2.5, Seed: 9, Size: 64x64, Model: shapes-64, "
        f"Version: {software}"
    )


def test_parameters_name_what_other_programs_know() -> None:
    _, parameters = described(opened(encode(_as(EVERYTHING, ImageFormat.JPEG))))
    prompt, negative, pairs = parameters.splitlines()
    assert prompt == "ein rötliches Haus — 家 <lora:ink:0.8> <lora:wax:-1>"
    assert negative == "Negative prompt: n"
    assert pairs.startswith(
        "Steps: 10, Sampler: ddim, CFG scale: 7.123456789, Seed: 9, Size: 64x64, "
        "Model: shapes-64, Clip skip: 2, Denoising strength: 0.6, Hires denoising: 0.4, "
        "Hires upscale: 1.5, Hires steps: 12, "
        'ControlNet 0: "Model: edges, Weight: 0.9, Guidance Start: 0, Guidance End: 0.75", '
    )


@pytest.mark.parametrize("file_format", list(ImageFormat))
def test_no_file_names_an_object(file_format: ImageFormat) -> None:
    data = encode(_as(EVERYTHING, file_format)).data
    for word in ("secret", "hidden", "private", "alice"):
        assert word.encode() not in data
        assert word.encode("utf-16-be") not in data


@pytest.mark.parametrize("file_format", list(ImageFormat))
def test_settings_can_be_left_out(file_format: ImageFormat) -> None:
    asked = generation(prompt="secret", output=Output(file_format, with_settings=False))
    encoded = encode(asked)
    image = opened(encoded)
    assert not image.getexif()
    assert not {"exif", "prompt", "parameters", "Software", "comment"} & set(image.info)
    assert encoded == encode(generation(prompt="other", output=asked.output), seed=10)


@pytest.mark.parametrize("file_format", list(ImageFormat))
def test_the_same_request_gives_the_same_bytes(file_format: ImageFormat) -> None:
    asked = _as(EVERYTHING, file_format)
    assert encode(asked) == encode(asked) != encode(asked, seed=10)


@pytest.mark.parametrize("file_format", LOSSY)
@pytest.mark.parametrize("letter", ["🏠", "\x01", "a"])
def test_the_longest_prompts_fit(file_format: ImageFormat, letter: str) -> None:
    asked = generation(
        prompt=letter * 2000,
        negative_prompt=letter * 2000,
        loras=tuple(Lora(ModelKey(f"{index:064}"), 0.123456789) for index in range(16)),
        controls=tuple(
            Control(ModelKey(f"{index:064}"), "k", 0.123456789, 0.123456789, 0.987654321)
            for index in range(8)
        ),
        output=Output(file_format),
    )
    settings, parameters = described(opened(encode(asked)))
    assert settings["negative_prompt"] == asked.negative_prompt
    assert asked.prompt in parameters


def test_a_look_is_a_png_without_settings() -> None:
    image = opened(encode_preview(raster(5, 16, 16)))
    assert (image.format, image.size, image.info) == ("PNG", (16, 16), {})


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((512, 256), (256, 128)),
        ((256, 512), (128, 256)),
        ((64, 32), (64, 32)),
        ((4096, 8), (256, 1)),
    ],
)
def test_a_thumbnail_is_small_and_as_wide_as_high(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    encoded = encode_thumbnail(raster(90, *size))
    image = opened(encoded)
    assert (image.format, image.size, encoded.media_type) == ("WEBP", small, "image/webp")
    assert not image.getexif()
    assert max(abs(value - 90) for value in image.convert("RGB").tobytes()) <= 2


def _as(asked: Generation, file_format: ImageFormat) -> Generation:
    changes = {name: getattr(asked, name) for name in asked.__slots__}
    return generation(**changes | {"output": Output(file_format)})
