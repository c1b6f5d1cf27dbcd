"""Orders and pictures on the wire and in the domain."""

from __future__ import annotations

from easel.common.v1 import generation_pb2 as pb
from easel_kit.ids import ImageId, ModelKey
from gateway.domain.generation import (
    USUAL_OUTPUT,
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
    Source,
    is_plain,
    total_steps,
)
from gateway.domain.job import Image

_FORMATS = {
    ImageFormat.PNG: pb.IMAGE_FORMAT_PNG,
    ImageFormat.WEBP: pb.IMAGE_FORMAT_WEBP,
    ImageFormat.JPEG: pb.IMAGE_FORMAT_JPEG,
}
_FROM_WIRE = {wire: one for one, wire in _FORMATS.items()}


def generation_to_wire(order: Generation) -> pb.Generation:
    """An order; what is as always is not said."""
    return pb.Generation(
        model_key=order.model_key,
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        width_px=order.width_px,
        height_px=order.height_px,
        steps=order.steps,
        guidance=order.guidance,
        seed=order.seed,
        sampler=order.sampler,
        image_count=order.image_count,
        total_steps=0 if is_plain(order) else total_steps(order),
        loras=[pb.Lora(model_key=one.model_key, weight=one.weight) for one in order.loras],
        init_image=None if order.init_image is None else _init_image_to_wire(order.init_image),
        controls=[_control_to_wire(one) for one in order.controls],
        hires=None if order.hires is None else _hires_to_wire(order.hires),
        output=None if order.output == USUAL_OUTPUT else _output_to_wire(order.output),
        clip_skip=order.clip_skip,
    )


def generation(wire: pb.Generation) -> Generation:
    """An order as the scheduler kept it."""
    return Generation(
        model_key=ModelKey(wire.model_key),
        prompt=wire.prompt,
        negative_prompt=wire.negative_prompt,
        width_px=wire.width_px,
        height_px=wire.height_px,
        steps=wire.steps,
        guidance=wire.guidance,
        seed=wire.seed,
        sampler=wire.sampler,
        image_count=wire.image_count,
        loras=tuple(Lora(ModelKey(one.model_key), one.weight) for one in wire.loras),
        init_image=_init_image(wire.init_image) if wire.HasField("init_image") else None,
        controls=tuple(_control(one) for one in wire.controls),
        hires=_hires(wire.hires) if wire.HasField("hires") else None,
        output=_output(wire.output) if wire.HasField("output") else USUAL_OUTPUT,
        clip_skip=wire.clip_skip,
    )


def image(wire: pb.Image) -> Image:
    """A finished picture."""
    return Image(
        id=ImageId(wire.id),
        object_key=wire.object_key,
        width_px=wire.width_px,
        height_px=wire.height_px,
        media_type=wire.media_type,
        size_bytes=wire.size_bytes,
        sha256=wire.sha256,
        seed=wire.seed,
        thumbnail_object_key=wire.thumbnail_object_key,
    )


def _init_image_to_wire(init: InitImage) -> pb.InitImage:
    return pb.InitImage(
        object_key=init.picture.object_key,
        image_id=init.picture.image_id,
        strength=init.strength,
        mask_object_key=init.mask.object_key if init.mask else "",
        mask_image_id=init.mask.image_id if init.mask else "",
    )


def _init_image(wire: pb.InitImage) -> InitImage:
    mask = None
    if wire.mask_object_key:
        mask = Source(ImageId(wire.mask_image_id), wire.mask_object_key)
    return InitImage(Source(ImageId(wire.image_id), wire.object_key), wire.strength, mask)


def _control_to_wire(control: Control) -> pb.Control:
    return pb.Control(
        model_key=control.model_key,
        object_key=control.picture.object_key,
        image_id=control.picture.image_id,
        weight=control.weight,
        begin=control.begin,
        end=control.end,
    )


def _control(wire: pb.Control) -> Control:
    picture = Source(ImageId(wire.image_id), wire.object_key)
    return Control(ModelKey(wire.model_key), picture, wire.weight, wire.begin, wire.end)


def _hires_to_wire(hires: Hires) -> pb.Hires:
    return pb.Hires(scale=hires.scale, steps=hires.steps, strength=hires.strength)


def _hires(wire: pb.Hires) -> Hires:
    return Hires(wire.scale, wire.steps, wire.strength)


def _output_to_wire(output: Output) -> pb.Output:
    return pb.Output(
        format=_FORMATS[output.format],
        quality=output.quality or 0,
        without_settings=not output.with_settings,
    )


def _output(wire: pb.Output) -> Output:
    return Output(
        format=_FROM_WIRE.get(wire.format, ImageFormat.PNG),
        quality=wire.quality or None,
        with_settings=not wire.without_settings,
    )
