"""Stock diffusers as the judge: what its pipelines draw for one job alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from gpu_worker.domain.drawing import Raster
from gpu_worker.domain.generation import Generation
from gpu_worker.engine.face import AsyncEngine
from tests.fakes.gpu_worker_models import Recorder, Stock, drawn

# Stock diffusers' way to each sampler of our table, written down again on purpose.
SCHEDULERS: dict[str, tuple[Any, dict[str, object]]] = {
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
ALL = sorted(SCHEDULERS)

Result = tuple[torch.Tensor, bytes]
"""Finished latents and pixels of one picture."""


def scene(seed: int = 0, width_px: int = 64, height_px: int = 64) -> Raster:
    """A picture that has something to see everywhere."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC)
    return Raster(width_px, height_px, image.tobytes())


def half_mask(width_px: int = 64, height_px: int = 64) -> Raster:
    """White, to be painted anew, on the right; its edge is no whole latent."""
    array = np.zeros((height_px, width_px, 3), dtype=np.uint8)
    array[:, width_px // 2 - 3 :] = 255
    return Raster(width_px, height_px, array.tobytes())


def image(raster: Raster) -> Image.Image:
    """As Pillow has it."""
    return Image.frombytes("RGB", (raster.width_px, raster.height_px), raster.rgb)


def pixels(rgb: bytes) -> np.ndarray:
    """Levels 0 to 255 that can be subtracted."""
    return np.frombuffer(rgb, np.uint8).astype(int)


def generator(asked: Generation) -> torch.Generator:
    """The job's own."""
    return torch.Generator("cpu").manual_seed(asked.seed)


def drawn_by_stock(stock: Stock, asked: Generation, **more: object) -> Result:
    """What a stock pipeline draws with the settings of the job and `more` of its own."""
    with _scheduler(stock, asked.sampler):
        found: list[torch.Tensor] = []

        def note(_pipe: object, _step: int, _t: object, inside: dict[str, Any]) -> dict[str, Any]:
            found.append(inside["latents"].clone())
            return inside

        options: dict[str, object] = {
            "prompt": asked.prompt,
            "negative_prompt": asked.negative_prompt,
            "num_inference_steps": asked.steps,
            "guidance_scale": asked.guidance,
            "generator": generator(asked),
            "clip_skip": asked.clip_skip or None,
            "callback_on_step_end": note,
        }
        picture = stock(**(options | more)).images[0]
    return found[-1], picture.tobytes()


def drawn_alone(stock: Stock, asked: Generation, inputs: Mapping[str, Raster]) -> Result:
    """What stock diffusers draws for a job of one picture: from noise, a picture, or a mask."""
    init = asked.init_image
    size = {"width": asked.width_px, "height": asked.height_px}
    if init is None:
        return drawn_by_stock(stock, asked, **size)
    given: dict[str, object] = {"image": image(inputs[init.object_key]), "strength": init.strength}
    if init.mask_object_key:
        pipeline = diffusers.StableDiffusionInpaintPipeline(**stock.components)
        given |= {"mask_image": image(inputs[init.mask_object_key]), **size}
    else:
        pipeline = diffusers.StableDiffusionImg2ImgPipeline(**stock.components)
    pipeline.set_progress_bar_config(disable=True)
    return drawn_by_stock(pipeline, asked, **given)


@contextmanager
def _scheduler(stock: Stock, sampler: str) -> Iterator[None]:
    kind, options = SCHEDULERS[sampler]
    kept = stock.scheduler
    try:
        stock.scheduler = kind.from_config(kept.config, **options)
        yield
    finally:
        stock.scheduler = kept


async def drawn_by_us(
    engine: AsyncEngine,
    recorder: Recorder,
    asked: Generation,
    inputs: dict[str, Raster] | None = None,
) -> Result:
    """What the engine draws for a job of one picture."""
    outcome = await drawn(engine, asked, inputs)
    (picture,) = outcome.pictures
    return recorder.made[-1].latents.pop(asked.seed), picture.raster.rgb


def same(one: Result, two: Result) -> bool:
    """Bit for bit."""
    return torch.equal(one[0], two[0]) and one[1] == two[1]


def close(one: Result, two: Result) -> bool:
    """Within one 8-bit level, as other kernels at another batch size may round."""
    return int(np.abs(pixels(one[1]) - pixels(two[1])).max()) <= 1
