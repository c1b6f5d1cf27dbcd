"""The finished model on disk: a diffusion pipeline directory with its preset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline

from training.scenes import SIDE_PX
from training.tokenizer import MAX_TOKENS
from training.unet import build_scheduler
from training.words import known_words

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

PRESET_FILE = "easel.json"

PRESET: dict[str, Any] = {
    "key": "shapes-64",
    "name": "Shapes 64",
    "base": "sd-1",
    "type": "main",
    "description": (
        "Draws coloured shapes on plain backgrounds, such as "
        '"a large red star on the left on a white background". '
        "Tiny, trained from nothing by this project, quick on any processor."
    ),
    "licence": "MIT",
    "defaults": {
        "steps": 10,
        "guidance": 2.5,
        "width_px": SIDE_PX,
        "height_px": SIDE_PX,
        "sampler": "ddim",
    },
    "sizes": [[SIDE_PX, SIDE_PX]],
    "max_steps": 100,
    "price_factor": 1.0,
    "max_prompt_tokens": MAX_TOKENS - 2,
    "known_words": known_words(),
}
"""What the product offers of the model. The pipeline's own defaults, 50 steps at guidance 7.5, are
wrong for it. `sizes` are (width, height) pairs; `max_prompt_tokens` leaves out start and end;
`known_words` are what training taught, any other word of a prompt is noise to the model."""

_READABLE = 0o644


def export_model(
    directory: Path,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
) -> None:
    """Writes a `StableDiffusionPipeline` directory, float16 safetensors, and the preset.

    Everybody may read the files. The modules passed in are float16 afterwards.
    """
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(directory, safe_serialization=True)
    for config in directory.glob("*/config.json"):
        _forget_origin(config)
    _write_json(directory / PRESET_FILE, PRESET)
    for path in directory.rglob("*"):
        if path.is_file():
            path.chmod(_READABLE)


def _forget_origin(config: Path) -> None:
    """Takes out the path that the module was loaded from: it says nothing to anybody else."""
    values: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    _write_json(config, values)


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
