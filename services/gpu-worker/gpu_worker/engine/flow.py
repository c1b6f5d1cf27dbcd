"""Samplers of flow-matching models: schedulers over sigmas from 1 (noise) to 0 (picture).

As `samplers`, for models that predict a velocity (Lipman et al., 2023; Esser et al., 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from gpu_worker.engine.model import CannotDraw, Scheduler
from gpu_worker.engine.samplers import Sampler, begin_at, build

_OVER_FLOW: dict[str, object] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}

FLOW_SAMPLERS: Mapping[str, Sampler] = {
    "flow_euler": Sampler(FlowMatchEulerDiscreteScheduler),
    "flow_dpmpp_2m": Sampler(
        DPMSolverMultistepScheduler,
        {**_OVER_FLOW, "algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "flow_unipc": Sampler(UniPCMultistepScheduler, _OVER_FLOW),
}


def schedule_flow(
    name: str, config: Mapping[str, Any], steps: int, tokens: int, *, even: bool, max_shift: float
) -> Scheduler:
    """A fresh scheduler with its timesteps set, begin index 0.

    Args:
        name: a key of `FLOW_SAMPLERS`.
        config: the model's `scheduler_config.json`.
        steps: to take.
        tokens: of one picture, by which sigmas shift where the configuration says so.
        even: whether sigmas are 1, (n - 1) / n, ... before they are shifted, where the scheduler
            takes any; else the scheduler's own.
        max_shift: where the configuration has none.

    Raises:
        CannotDraw: the sampler cannot do that number of steps.
    """
    scheduler = build(FLOW_SAMPLERS[name], _renamed(config))
    takes_sigmas = not getattr(scheduler.config, "use_flow_sigmas", False)
    options: dict[str, object] = {}
    if even and takes_sigmas:
        options["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    if config.get("use_dynamic_shifting"):
        options["mu"] = shift_of(tokens, config, max_shift)
    try:
        scheduler.set_timesteps(steps, **options)
    except (ValueError, AssertionError) as error:  # how schedulers refuse
        raise CannotDraw(f"sampler: {error}") from error
    begin_at(scheduler, 0)
    return scheduler


def shift_of(tokens: int, config: Mapping[str, Any], max_shift: float) -> float:
    """How far sigmas shift towards noise: linear in the number of image tokens."""
    least: int = config.get("base_image_seq_len", 256)
    most: int = config.get("max_image_seq_len", 4096)
    base: float = config.get("base_shift", 0.5)
    highest: float = config.get("max_shift", max_shift)
    slope = (highest - base) / (most - least)
    # in two steps, as stock: another order would round otherwise
    offset = base - slope * least
    return tokens * slope + offset


def estimate_flow(
    scheduler: Scheduler, latents: torch.Tensor, velocity: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """The clean latents that a velocity implies: x0 = x - sigma v."""
    levels: int = scheduler.config.num_train_timesteps
    return latents - timestep.to(latents) / levels * velocity


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    # multistep schedulers know the fixed shift by another name
    return {**config, "flow_shift": config.get("shift", 1.0)}
