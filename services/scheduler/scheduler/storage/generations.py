"""What to draw, as the jobs table keeps it: what goes beyond a prompt only where it is asked for.

So the row of a plain request looks as it always did, and rows from before there was more are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from easel_kit.ids import ModelKey
from scheduler.domain.generation import (
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
)

_PLAIN = (
    "model_key",
    "prompt",
    "negative_prompt",
    "width_px",
    "height_px",
    "steps",
    "guidance",
    "seed",
    "sampler",
    "image_count",
)


def generation_to_json(asked: Generation) -> dict[str, Any]:
    """For the jobs table. The function `total_steps` of the database reads `total_steps`."""
    found = {name: getattr(asked, name) for name in _PLAIN}
    more = {
        "total_steps": asked.reckoned_steps,
        "loras": [asdict(one) for one in asked.loras],
        "init_image": asked.init_image and asdict(asked.init_image),
        "controls": [asdict(one) for one in asked.controls],
        "hires": asked.hires and asdict(asked.hires),
        "output": asked.output and asdict(asked.output),
        "clip_skip": asked.clip_skip,
    }
    return found | {name: value for name, value in more.items() if value}


def generation_from_json(found: Mapping[str, Any]) -> Generation:
    """From the jobs table."""
    init, hires, output = (found.get(name) for name in ("init_image", "hires", "output"))
    return Generation(
        **{name: found[name] for name in _PLAIN} | {"model_key": ModelKey(found["model_key"])},
        reckoned_steps=found.get("total_steps", 0),
        loras=tuple(Lora(**one) for one in found.get("loras", ())),
        init_image=None if init is None else InitImage(**init),
        controls=tuple(Control(**one) for one in found.get("controls", ())),
        hires=None if hires is None else Hires(**hires),
        output=None if output is None else _output(output),
        clip_skip=found.get("clip_skip", 0),
    )


def _output(found: Mapping[str, Any]) -> Output:
    kind = found["format"]
    return Output(**{**found, "format": None if kind is None else ImageFormat(kind)})
