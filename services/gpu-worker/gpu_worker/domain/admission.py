"""Whether this worker can draw what is asked: looked at before any memory is touched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from easel_kit.errors import InvalidInput
from easel_kit.ids import ModelKey
from gpu_worker.domain.generation import (
    MAX_GUIDANCE,
    SIZE_UNIT_PX,
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Limits,
    Lora,
)
from gpu_worker.domain.model import ModelCard, PictureSize

MAX_LORA_WEIGHT = 4.0
MAX_CONTROL_WEIGHT = 2.0
MAX_HIRES_SCALE = 4.0
MAX_QUALITY = 100
MAX_CLIP_SKIP = 12
"""All layers of the text encoder of SD 1; a smaller one is the engine's to refuse."""

_MAX_SIDE_PX = {
    ImageFormat.WEBP: 16_383,  # RFC 9649, section 2.6: 14 bits a side
    ImageFormat.JPEG: 65_500,  # libjpeg's JPEG_MAX_DIMENSION
    ImageFormat.PNG: 2**31 - 1,  # PNG specification, section 11.2.1
}


def final_size(asked: Generation) -> PictureSize:
    """Of the files: the second pass enlarges each side, to the nearest multiple of 8."""
    if asked.hires is None:
        return PictureSize(asked.width_px, asked.height_px)

    scale = asked.hires.scale
    return PictureSize(_enlarged_px(asked.width_px, scale), _enlarged_px(asked.height_px, scale))


def _enlarged_px(side_px: int, scale: float) -> int:
    return round(side_px * scale / SIZE_UNIT_PX) * SIZE_UNIT_PX


def find_missing_model(asked: Generation, catalogue: Iterable[ModelCard]) -> str:
    """Why a model that it names is not here now, though another worker may have it; else empty."""
    cards = {card.key: card for card in catalogue}
    for key in (asked.model_key, *(key for _, key in _parts(asked))):
        card = cards.get(key)
        if card is None:
            return f"model {key}: is not in the catalogue"
        if not card.usable:
            return f"model {key}: {card.unavailable_reason}"
    return ""


def check_generation(asked: Generation, catalogue: Sequence[ModelCard], limits: Limits) -> None:
    """Refuses what cannot be drawn.

    Args:
        asked: by the user.
        catalogue: all models of this worker, adapters and control networks too.
        limits: of this worker.

    Raises:
        InvalidInput: names the field and says what would be right.
    """
    cards = {card.key: card for card in catalogue}
    card = _card("model_key", asked.model_key, cards, "main")
    _check_text(asked, limits)
    if not 1 <= asked.steps <= card.max_steps:
        raise InvalidInput("steps", f"must be 1 to {card.max_steps}")
    if asked.sampler not in card.samplers:
        raise InvalidInput("sampler", f"must be one of {', '.join(card.samplers)}")
    if not 1 <= asked.image_count <= limits.max_images:
        raise InvalidInput("image_count", f"must be 1 to {limits.max_images}")
    check_numbers(asked)
    _check_features(asked, card)
    _check_parts(asked, card, cards, limits)
    _check_size(asked, card, limits)
    _check_final_size(asked, card, limits)


def check_numbers(asked: Generation) -> None:
    """What no model and no worker could draw: numbers outside the contract, things named twice.

    Raises:
        InvalidInput: names the field and says what would be right.
    """
    _within("guidance", asked.guidance, 0, MAX_GUIDANCE)
    if not 0 <= asked.seed < 2**32:
        raise InvalidInput("seed", f"must be 0 to {2**32 - 1}")
    if not 0 <= asked.clip_skip <= MAX_CLIP_SKIP:
        raise InvalidInput("clip_skip", f"must be 0 to {MAX_CLIP_SKIP}")
    if not 0 <= asked.output.quality <= MAX_QUALITY:
        raise InvalidInput("output.quality", f"must be 0 to {MAX_QUALITY}")
    _check_loras(asked.loras)
    if asked.init_image is not None:
        _check_init_image(asked.init_image)
    _check_controls(asked.controls)
    if asked.hires is not None:
        _check_hires(asked.hires)


def _check_text(asked: Generation, limits: Limits) -> None:
    most = limits.max_prompt_chars
    if not 1 <= len(asked.prompt) <= most:
        raise InvalidInput("prompt", f"must have 1 to {most} characters")
    if len(asked.negative_prompt) > most:
        raise InvalidInput("negative_prompt", f"must have at most {most} characters")


def _check_loras(loras: Sequence[Lora]) -> None:
    known: set[ModelKey] = set()
    for index, lora in enumerate(loras):
        if lora.model_key in known:
            raise InvalidInput(f"loras.{index}.model_key", f"{lora.model_key} is named twice")
        known.add(lora.model_key)
        _within(f"loras.{index}.weight", lora.weight, -MAX_LORA_WEIGHT, MAX_LORA_WEIGHT)


def _check_init_image(init_image: InitImage) -> None:
    if not init_image.object_key:
        raise InvalidInput("init_image.object_key", "must not be empty")
    _check_strength("init_image.strength", init_image.strength)


def _check_controls(controls: Sequence[Control]) -> None:
    known: set[tuple[ModelKey, str]] = set()
    for index, control in enumerate(controls):
        field = f"controls.{index}"
        if not control.object_key:
            raise InvalidInput(f"{field}.object_key", "must not be empty")
        pair = (control.model_key, control.object_key)
        if pair in known:
            raise InvalidInput(
                f"{field}.model_key", f"{control.model_key} reads the same picture twice"
            )
        known.add(pair)
        _within(f"{field}.weight", control.weight, 0, MAX_CONTROL_WEIGHT)
        _within(f"{field}.begin", control.begin, 0, 1)
        _within(f"{field}.end", control.end, 0, 1)
        if control.begin >= control.end:
            raise InvalidInput(f"{field}.begin", "must be less than end")


def _check_hires(hires: Hires) -> None:
    if not (math.isfinite(hires.scale) and 1 < hires.scale <= MAX_HIRES_SCALE):
        raise InvalidInput("hires.scale", f"must be above 1, at most {MAX_HIRES_SCALE:g}")
    if hires.steps < 1:
        raise InvalidInput("hires.steps", "must be at least 1")
    _check_strength("hires.strength", hires.strength)


def _check_strength(field: str, strength: float) -> None:
    if not (math.isfinite(strength) and 0 < strength <= 1):
        raise InvalidInput(field, "must be above 0, at most 1")


def _within(field: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidInput(field, f"must be {low:g} to {high:g}")


def _check_features(asked: Generation, card: ModelCard) -> None:
    for field, feature in _features(asked):
        if feature not in card.features:
            raise InvalidInput(field, f"model {card.key} does not offer this")


def _features(asked: Generation) -> Iterator[tuple[str, str]]:
    """What it asks for beyond a prompt: field and feature."""
    if asked.loras:
        yield "loras", "loras"
    if asked.init_image is not None:
        if asked.init_image.mask_object_key:
            yield "init_image.mask_object_key", "inpaint"
        else:
            yield "init_image", "image_to_image"
    if asked.controls:
        yield "controls", "controls"
    if asked.hires is not None:
        yield "hires", "hires"
    if asked.clip_skip:
        yield "clip_skip", "clip_skip"


def _check_parts(
    asked: Generation, card: ModelCard, cards: dict[ModelKey, ModelCard], limits: Limits
) -> None:
    if len(asked.loras) > limits.max_loras:
        raise InvalidInput("loras", f"must be at most {limits.max_loras}")
    if len(asked.controls) > limits.max_controls:
        raise InvalidInput("controls", f"must be at most {limits.max_controls}")
    for field, key in _parts(asked):
        kind = "lora" if field.startswith("loras") else "controlnet"
        part = _card(field, key, cards, kind)
        if part.base and card.base and part.base != card.base:
            raise InvalidInput(field, f"{key} is made for {part.base}, not for {card.base}")


def _parts(asked: Generation) -> list[tuple[str, ModelKey]]:
    """Fields and keys of all adapters and control networks."""
    loras = [(f"loras.{index}.model_key", lora.model_key) for index, lora in enumerate(asked.loras)]
    controls = [
        (f"controls.{index}.model_key", control.model_key)
        for index, control in enumerate(asked.controls)
    ]
    return loras + controls


def _card(field: str, key: ModelKey, cards: dict[ModelKey, ModelCard], kind: str) -> ModelCard:
    card = cards.get(key)
    if card is None:
        raise InvalidInput(field, f"{key} is not in the catalogue")
    if card.type != kind:
        raise InvalidInput(field, f"{key} is of type {card.type}, not {kind}")
    if not card.usable:
        raise InvalidInput(field, f"{key} is unavailable: {card.unavailable_reason}")
    return card


def _check_size(asked: Generation, card: ModelCard, limits: Limits) -> None:
    for field, value in (("width_px", asked.width_px), ("height_px", asked.height_px)):
        if value < SIZE_UNIT_PX or value % SIZE_UNIT_PX:
            raise InvalidInput(field, f"must be a multiple of {SIZE_UNIT_PX}")
    if asked.width_px * asked.height_px > limits.max_pixels:
        raise InvalidInput(
            "width_px", f"times height_px must be at most {limits.max_pixels} on this worker"
        )
    if card.sizes and PictureSize(asked.width_px, asked.height_px) not in card.sizes:
        known = ", ".join(f"{size.width_px}x{size.height_px}" for size in card.sizes)
        raise InvalidInput("width_px", f"and height_px must be one of {known} for this model")


def _check_final_size(asked: Generation, card: ModelCard, limits: Limits) -> None:
    size = final_size(asked)
    if asked.hires is not None:
        if asked.hires.steps > card.max_steps:
            raise InvalidInput("hires.steps", f"must be 1 to {card.max_steps}")
        if size.width_px * size.height_px > limits.max_pixels:
            raise InvalidInput(
                "hires.scale",
                f"makes {size.width_px}x{size.height_px}, "
                f"more than the {limits.max_pixels} pixels of this worker",
            )
    most_px = _MAX_SIDE_PX[asked.output.format]
    if max(size.width_px, size.height_px) > most_px:
        raise InvalidInput(
            "output.format", f"{asked.output.format} has at most {most_px} pixels a side"
        )
