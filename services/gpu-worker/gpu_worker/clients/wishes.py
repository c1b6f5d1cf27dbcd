"""What a user asks for, off the wire; whatever no worker could draw is refused here."""

from __future__ import annotations

from easel.common.v1 import generation_pb2
from easel_kit.errors import InvalidInput
from easel_kit.ids import ModelKey
from easel_kit.objects import check_key
from gpu_worker.domain.admission import check_numbers
from gpu_worker.domain.generation import (
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
)

_FORMATS = {
    generation_pb2.IMAGE_FORMAT_UNSPECIFIED: ImageFormat.PNG,
    generation_pb2.IMAGE_FORMAT_PNG: ImageFormat.PNG,
    generation_pb2.IMAGE_FORMAT_WEBP: ImageFormat.WEBP,
    generation_pb2.IMAGE_FORMAT_JPEG: ImageFormat.JPEG,
}


def generation_from_wire(asked: generation_pb2.Generation) -> Generation:
    """The same in the domain's words.

    Raises:
        InvalidInput: names the field that is outside the contract.
    """
    generation = Generation(
        model_key=ModelKey(asked.model_key),
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        width_px=asked.width_px,
        height_px=asked.height_px,
        steps=asked.steps,
        guidance=asked.guidance,
        seed=asked.seed,
        sampler=asked.sampler,
        image_count=asked.image_count,
        loras=tuple(Lora(ModelKey(lora.model_key), lora.weight) for lora in asked.loras),
        init_image=_init_image(asked.init_image) if asked.HasField("init_image") else None,
        controls=tuple(
            _control(f"controls.{index}", control) for index, control in enumerate(asked.controls)
        ),
        hires=_hires(asked.hires) if asked.HasField("hires") else None,
        output=_output(asked.output),
        clip_skip=asked.clip_skip,
    )
    check_numbers(generation)
    return generation


def _init_image(asked: generation_pb2.InitImage) -> InitImage:
    mask = asked.mask_object_key
    return InitImage(
        object_key=_key("init_image.object_key", asked.object_key),
        strength=asked.strength,
        mask_object_key=_key("init_image.mask_object_key", mask) if mask else "",
    )


def _control(field: str, asked: generation_pb2.Control) -> Control:
    return Control(
        model_key=ModelKey(asked.model_key),
        object_key=_key(f"{field}.object_key", asked.object_key),
        weight=asked.weight,
        begin=asked.begin,
        end=asked.end,
    )


def _hires(asked: generation_pb2.Hires) -> Hires:
    return Hires(scale=asked.scale, steps=asked.steps, strength=asked.strength)


def _output(asked: generation_pb2.Output) -> Output:
    if asked.format not in _FORMATS:
        raise InvalidInput("output.format", "must be PNG, WebP or JPEG")
    return Output(_FORMATS[asked.format], asked.quality, not asked.without_settings)


def _key(field: str, key: str) -> str:
    try:
        return check_key(key)
    except InvalidInput as error:
        raise InvalidInput(field, error.reason) from error
