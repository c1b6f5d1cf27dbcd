"""Stock diffusers, drawing one job by itself: what the engine's pictures are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from PIL import Image

from gpu_worker.domain.drawing import Raster
from gpu_worker.domain.generation import Generation

Stock = Any  # a diffusers pipeline; diffusers is untyped

# Stock diffusers' way to each sampler of our table, written down again on purpose.
STOCK: dict[str, tuple[Any, dict[str, object]]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_karras": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    ),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
}


def drawn_by_stock(
    stock: Stock, asked: Generation, inputs: Mapping[str, Raster] | None = None
) -> tuple[torch.Tensor, bytes]:
    """Finished latents and pixels of a job of one picture: from noise, a picture, or a mask."""
    kind, options = STOCK[asked.sampler]
    scheduler = kind.from_config(stock.scheduler.config, **options)
    parts = {**stock.components, "scheduler": scheduler}
    given: dict[str, Any] = {}
    if asked.init_image is None:
        pipeline = diffusers.StableDiffusionPipeline(**parts)
    else:
        pictures = inputs or {}
        given["strength"] = asked.init_image.strength
        given["image"] = as_image(pictures[asked.init_image.object_key])
        if asked.init_image.mask_object_key:
            pipeline = diffusers.StableDiffusionInpaintPipeline(**parts)
            given["mask_image"] = as_image(pictures[asked.init_image.mask_object_key])
        else:
            pipeline = diffusers.StableDiffusionImg2ImgPipeline(**parts)
    if not isinstance(pipeline, diffusers.StableDiffusionImg2ImgPipeline):
        given |= {"width": asked.width_px, "height": asked.height_px}
    found: list[torch.Tensor] = []

    def note(_pipe: object, _step: int, _t: object, inside: dict[str, Any]) -> dict[str, Any]:
        found.append(inside["latents"].clone())
        return inside

    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        asked.prompt,
        negative_prompt=asked.negative_prompt,
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance,
        generator=torch.Generator("cpu").manual_seed(asked.seed),
        callback_on_step_end=note,
        **given,
    ).images[0]
    return found[-1], image.tobytes()


def as_image(raster: Raster) -> Image.Image:
    """As Pillow has it."""
    return Image.frombytes("RGB", (raster.width_px, raster.height_px), raster.rgb)
