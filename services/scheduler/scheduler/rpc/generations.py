"""What to draw, on the wire and in the domain; bounds are those of the contract."""

from __future__ import annotations

from collections.abc import Sequence

from easel.common.v1 import generation_pb2 as pb
from easel_kit.errors import InvalidInput
from scheduler.domain.generation import (
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
)
from scheduler.rpc.checks import between, model_key, object_key, text, within

_MAX_PROMPT = 2_000
_SIDE_STEP_PX = 8
_MAX_SIDE_PX = 8_192
_MAX_STEPS = 1_000
_MAX_IMAGES = 100
_PASSES = 2
_MAX_GUIDANCE = 100.0
_MAX_NAME = 64
_MAX_LORAS = 8
_MAX_LORA_WEIGHT = 4.0
_MAX_CONTROLS = 4
_MAX_CONTROL_WEIGHT = 2.0
_MAX_SCALE = 4.0
_MAX_QUALITY = 100
# More layers than any text encoder of today has.
_MAX_CLIP_SKIP = 64

_FORMATS = {
    None: pb.IMAGE_FORMAT_UNSPECIFIED,
    ImageFormat.PNG: pb.IMAGE_FORMAT_PNG,
    ImageFormat.WEBP: pb.IMAGE_FORMAT_WEBP,
    ImageFormat.JPEG: pb.IMAGE_FORMAT_JPEG,
}
_FROM_WIRE = {wire: one for one, wire in _FORMATS.items()}


def generation(wire: pb.Generation, field: str) -> Generation:
    """What to draw, checked.

    Raises:
        InvalidInput: names the first field that is wrong, below `field`.
    """
    return Generation(
        model_key=model_key(wire.model_key, f"{field}.model_key"),
        prompt=text(wire.prompt, 1, _MAX_PROMPT, f"{field}.prompt"),
        negative_prompt=text(wire.negative_prompt, 0, _MAX_PROMPT, f"{field}.negative_prompt"),
        width_px=_side(wire.width_px, f"{field}.width_px"),
        height_px=_side(wire.height_px, f"{field}.height_px"),
        steps=within(wire.steps, 1, _MAX_STEPS, f"{field}.steps"),
        guidance=between(wire.guidance, 0, _MAX_GUIDANCE, f"{field}.guidance"),
        seed=wire.seed,
        sampler=text(wire.sampler, 0, _MAX_NAME, f"{field}.sampler"),
        image_count=within(wire.image_count, 1, _MAX_IMAGES, f"{field}.image_count"),
        reckoned_steps=within(
            wire.total_steps, 0, _MAX_STEPS * _MAX_IMAGES * _PASSES, f"{field}.total_steps"
        ),
        loras=_loras(wire.loras, f"{field}.loras"),
        init_image=_init_image(wire, f"{field}.init_image"),
        controls=_controls(wire.controls, f"{field}.controls"),
        hires=_hires(wire, f"{field}.hires"),
        output=_output(wire, f"{field}.output"),
        clip_skip=within(wire.clip_skip, 0, _MAX_CLIP_SKIP, f"{field}.clip_skip"),
    )


def generation_to_wire(asked: Generation) -> pb.Generation:
    """What to draw, as it was submitted."""
    return pb.Generation(
        model_key=asked.model_key,
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        width_px=asked.width_px,
        height_px=asked.height_px,
        steps=asked.steps,
        guidance=asked.guidance,
        seed=asked.seed,
        sampler=asked.sampler,
        image_count=asked.image_count,
        total_steps=asked.reckoned_steps,
        loras=[pb.Lora(model_key=one.model_key, weight=one.weight) for one in asked.loras],
        init_image=_init_image_to_wire(asked.init_image),
        controls=[_control_to_wire(one) for one in asked.controls],
        hires=_hires_to_wire(asked.hires),
        output=_output_to_wire(asked.output),
        clip_skip=asked.clip_skip,
    )


def _side(value: int, field: str) -> int:
    if value % _SIDE_STEP_PX:
        raise InvalidInput(field, f"must be a multiple of {_SIDE_STEP_PX}")
    return within(value, _SIDE_STEP_PX, _MAX_SIDE_PX, field)


def _strength(value: float, field: str) -> float:
    return between(value, 0, 1, f"{field}.strength", above=True)


def _loras(wire: Sequence[pb.Lora], field: str) -> tuple[Lora, ...]:
    within(len(wire), 0, _MAX_LORAS, field)
    found = tuple(
        Lora(
            model_key(one.model_key, f"{field}.{n}.model_key"),
            between(one.weight, -_MAX_LORA_WEIGHT, _MAX_LORA_WEIGHT, f"{field}.{n}.weight"),
        )
        for n, one in enumerate(wire)
    )
    if len({one.model_key for one in found}) < len(found):
        raise InvalidInput(field, "must name each adapter once")
    return found


def _init_image(wire: pb.Generation, field: str) -> InitImage | None:
    if not wire.HasField("init_image"):
        return None
    init = wire.init_image
    mask = init.mask_object_key
    return InitImage(
        object_key=object_key(init.object_key, f"{field}.object_key"),
        strength=_strength(init.strength, field),
        mask_object_key=object_key(mask, f"{field}.mask_object_key") if mask else "",
        image_id=text(init.image_id, 0, _MAX_NAME, f"{field}.image_id"),
        mask_image_id=text(init.mask_image_id, 0, _MAX_NAME, f"{field}.mask_image_id"),
    )


def _init_image_to_wire(init: InitImage | None) -> pb.InitImage | None:
    if init is None:
        return None
    return pb.InitImage(
        object_key=init.object_key,
        strength=init.strength,
        mask_object_key=init.mask_object_key,
        image_id=init.image_id,
        mask_image_id=init.mask_image_id,
    )


def _controls(wire: Sequence[pb.Control], field: str) -> tuple[Control, ...]:
    within(len(wire), 0, _MAX_CONTROLS, field)
    return tuple(_control(one, f"{field}.{n}") for n, one in enumerate(wire))


def _control(wire: pb.Control, field: str) -> Control:
    begin = between(wire.begin, 0, 1, f"{field}.begin")
    end = between(wire.end, 0, 1, f"{field}.end")
    if begin >= end:
        raise InvalidInput(f"{field}.end", "must be after begin")
    return Control(
        model_key=model_key(wire.model_key, f"{field}.model_key"),
        object_key=object_key(wire.object_key, f"{field}.object_key"),
        weight=between(wire.weight, 0, _MAX_CONTROL_WEIGHT, f"{field}.weight"),
        begin=begin,
        end=end,
        image_id=text(wire.image_id, 0, _MAX_NAME, f"{field}.image_id"),
    )


def _control_to_wire(control: Control) -> pb.Control:
    return pb.Control(
        model_key=control.model_key,
        object_key=control.object_key,
        weight=control.weight,
        begin=control.begin,
        end=control.end,
        image_id=control.image_id,
    )


def _hires(wire: pb.Generation, field: str) -> Hires | None:
    if not wire.HasField("hires"):
        return None
    hires = wire.hires
    scale = between(hires.scale, 1, _MAX_SCALE, f"{field}.scale", above=True)
    if max(wire.width_px, wire.height_px) * scale > _MAX_SIDE_PX:
        raise InvalidInput(f"{field}.scale", f"makes a side longer than {_MAX_SIDE_PX} pixels")
    return Hires(
        scale=scale,
        steps=within(hires.steps, 1, _MAX_STEPS, f"{field}.steps"),
        strength=_strength(hires.strength, field),
    )


def _hires_to_wire(hires: Hires | None) -> pb.Hires | None:
    if hires is None:
        return None
    return pb.Hires(scale=hires.scale, steps=hires.steps, strength=hires.strength)


def _output(wire: pb.Generation, field: str) -> Output | None:
    if not wire.HasField("output"):
        return None
    output = wire.output
    if output.format not in _FROM_WIRE:
        raise InvalidInput(f"{field}.format", "must be a known format")
    return Output(
        format=_FROM_WIRE[output.format],
        quality=within(output.quality, 0, _MAX_QUALITY, f"{field}.quality"),
        without_settings=output.without_settings,
    )


def _output_to_wire(output: Output | None) -> pb.Output | None:
    if output is None:
        return None
    return pb.Output(
        format=_FORMATS[output.format],
        quality=output.quality,
        without_settings=output.without_settings,
    )
