"""The settings that repeat a picture, in the forms that files carry them in.

Nothing here differs between two equal requests, and no object key is named: keys are private.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from gpu_worker.domain.drawing import DrawnPicture
from gpu_worker.domain.generation import Generation

SOFTWARE = f"Easel {version('easel-gpu-worker')}"


def settings_of(picture: DrawnPicture, generation: Generation) -> Mapping[str, object]:
    """What repeats this very picture, as plain data; what was not asked for is not there."""
    settings: dict[str, object] = {
        "prompt": generation.prompt,
        "negative_prompt": generation.negative_prompt,
        "model": generation.model_key,
        "seed": picture.seed,
        "steps": generation.steps,
        "guidance": generation.guidance,
        "sampler": generation.sampler,
        "size": f"{generation.width_px}x{generation.height_px}",
    }
    if generation.clip_skip:
        settings["clip_skip"] = generation.clip_skip
    if generation.loras:
        settings["loras"] = [
            {"model": lora.model_key, "weight": lora.weight} for lora in generation.loras
        ]
    if (begun := generation.init_image) is not None:
        settings["init_image"] = {"strength": begun.strength, "mask": bool(begun.mask_object_key)}
    if generation.controls:
        settings["controls"] = [
            {
                "model": control.model_key,
                "weight": control.weight,
                "begin": control.begin,
                "end": control.end,
            }
            for control in generation.controls
        ]
    if (second := generation.hires) is not None:
        settings["hires"] = {
            "scale": second.scale,
            "steps": second.steps,
            "strength": second.strength,
        }
    return settings


def as_texts(settings: Mapping[str, object]) -> dict[str, str]:
    """One text a setting: numbers as people write them, what has parts as JSON."""
    return {name: _text(value) for name, value in settings.items()}


def as_json(settings: Mapping[str, object]) -> str:
    """All of them in one JSON object."""
    return json.dumps({"software": SOFTWARE, **settings}, ensure_ascii=False)


def as_parameters(picture: DrawnPicture, generation: Generation) -> str:
    """The three lines that programs for diffusion pictures write and read.

    The prompt with its adapters, the negative prompt, then "Name: value" pairs, as the web UI of
    AUTOMATIC1111 began it; its "Clip skip" counts from 1, where 1 passes over none.
    """
    adapters = "".join(
        f" <lora:{lora.model_key}:{_number(lora.weight)}>" for lora in generation.loras
    )
    lines = [generation.prompt + adapters]
    if generation.negative_prompt:
        lines.append(f"Negative prompt: {generation.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in _pairs(picture, generation)))
    return "\n".join(lines)


def _pairs(picture: DrawnPicture, generation: Generation) -> Iterator[tuple[str, str]]:
    yield "Steps", str(generation.steps)
    yield "Sampler", generation.sampler
    yield "CFG scale", _number(generation.guidance)
    yield "Seed", str(picture.seed)
    yield "Size", f"{generation.width_px}x{generation.height_px}"
    yield "Model", generation.model_key
    if generation.clip_skip:
        yield "Clip skip", str(generation.clip_skip + 1)
    begun, second = generation.init_image, generation.hires
    if begun is not None:
        yield "Denoising strength", _number(begun.strength)
    if second is not None:
        yield "Hires denoising" if begun else "Denoising strength", _number(second.strength)
        yield "Hires upscale", _number(second.scale)
        yield "Hires steps", str(second.steps)
    for index, control in enumerate(generation.controls):
        told = (
            f"Model: {control.model_key}, Weight: {_number(control.weight)}, "
            f"Guidance Start: {_number(control.begin)}, Guidance End: {_number(control.end)}"
        )
        yield f"ControlNet {index}", f'"{told}"'
    yield "Version", SOFTWARE


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Short where that says it all, else exact."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
