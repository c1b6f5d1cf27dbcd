"""What the parts of a picture cost on this machine: milliseconds of CPU time, medians."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from bench.engine.pictures import answer
from bench.engine.stock import Stock
from bench.engine.trace import SAMPLERS, SIZE_PX

ROWS = (1, 2, 4, 8, 16, 32)
"""Of one forward of the UNet."""
_WARM_UP = 2
_STEPS = 25
_PROMPT = "a red circle on a white background"

Costs = dict[str, float]


@torch.no_grad()
def costs(stock: Stock, key: str, repeats: int) -> Costs:
    """By what it is, in milliseconds: `forward N` for N rows, `step SAMPLER`, and others."""
    pipeline = stock.pipeline(key)
    channels: int = pipeline.unet.config.in_channels
    side = SIZE_PX // pipeline.vae_scale_factor
    latent = torch.randn(1, channels, side, side)
    prompt = pipeline.encode_prompt(_PROMPT, torch.device("cpu"), 1, False)[0]  # noqa: FBT003
    found: Costs = {}
    for rows in ROWS:
        samples = latent.repeat(rows, 1, 1, 1)
        timesteps = torch.full((rows,), 500)
        texts = prompt.repeat(rows, 1, 1)
        forward = functools.partial(pipeline.unet, samples, timesteps, texts, return_dict=False)
        found[f"forward {rows}"] = _median_ms(forward, repeats)
    for sampler in SAMPLERS:
        found |= _sampler_ms(stock.scheduler(key, sampler), sampler, latent, repeats)
    found["encode prompt"] = _median_ms(
        lambda: pipeline.encode_prompt(_PROMPT, torch.device("cpu"), 1, False),  # noqa: FBT003
        repeats,
    )
    found["decode picture"] = _median_ms(
        lambda: pipeline.vae.decode(latent, return_dict=False), repeats
    )
    picture = Image.effect_noise((SIZE_PX, SIZE_PX), 60).convert("RGB")
    found["encode PNG"] = _median_ms(lambda: answer(picture), repeats)
    return found


def _sampler_ms(
    scheduler: Any,  # noqa: ANN401 (schedulers of diffusers share habits, not a type)
    sampler: str,
    latent: torch.Tensor,
    repeats: int,
) -> Costs:
    """Of setting the timesteps once, and of one step, as the mean over a whole trajectory."""
    prediction = torch.randn_like(latent)

    def trajectory() -> None:
        scheduler.set_timesteps(_STEPS)
        sample = latent
        for timestep in scheduler.timesteps:
            scheduler.scale_model_input(sample, timestep)
            sample = scheduler.step(prediction, timestep, sample, return_dict=False)[0]

    set_ms = _median_ms(lambda: scheduler.set_timesteps(_STEPS), repeats)
    both_ms = _median_ms(trajectory, repeats)
    return {f"timesteps {sampler}": set_ms, f"step {sampler}": (both_ms - set_ms) / _STEPS}


def _median_ms(work: Callable[[], object], repeats: int) -> float:
    times_ms = []
    for _ in range(_WARM_UP + repeats):
        began_s = time.process_time()
        work()
        times_ms.append((time.process_time() - began_s) * 1_000)
    return statistics.median(times_ms[_WARM_UP:])
