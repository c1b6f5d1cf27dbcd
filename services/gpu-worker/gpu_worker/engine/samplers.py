"""Samplers by name: which diffusers scheduler each one is, built anew for every picture.

Schedulers keep state between steps, so none is ever shared. They stay on the CPU.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import (
    EulerAncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from gpu_worker.engine.model import CannotDraw, Scheduler


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler class and what it sets beyond the model's own scheduler configuration."""

    scheduler: Any
    options: Mapping[str, object] = field(default_factory=dict)


_DPMPP_2M: dict[str, object] = {"algorithm_type": "dpmsolver++", "solver_order": 2}

SAMPLERS: Mapping[str, Sampler] = {
    # a configuration of another scheduler may not say so, and its default clips latents to 1
    "ddim": Sampler(DDIMScheduler, {"clip_sample": False}),
    "euler": Sampler(EulerDiscreteScheduler),
    "euler_a": Sampler(EulerAncestralDiscreteScheduler),
    "dpmpp_2m": Sampler(DPMSolverMultistepScheduler, _DPMPP_2M),
    "dpmpp_2m_karras": Sampler(
        DPMSolverMultistepScheduler, {**_DPMPP_2M, "use_karras_sigmas": True}
    ),
    "unipc": Sampler(UniPCMultistepScheduler),
    "lcm": Sampler(LCMScheduler),
}


def build_scheduler(name: str, config: Mapping[str, object]) -> Scheduler:
    """A fresh scheduler of the named sampler, without timesteps.

    Args:
        name: a key of `SAMPLERS`.
        config: the model's `scheduler_config.json`; fields that the class lacks are dropped, as
            `from_config` does with a warning.
    """
    return build(SAMPLERS[name], config)


def build(sampler: Sampler, config: Mapping[str, object]) -> Scheduler:
    """As `build_scheduler`, of a sampler of any table."""
    known = _parameters(sampler.scheduler)
    given = {field: value for field, value in config.items() if field in known}
    options = json.dumps(dict(sampler.options), sort_keys=True)
    fresh = copy.copy(_pristine(sampler.scheduler, json.dumps(given, sort_keys=True), options))
    # tensors are replaced, never written to; lists are written to
    lists = {field: [*value] for field, value in vars(fresh).items() if isinstance(value, list)}
    vars(fresh).update(lists)
    return fresh


@functools.lru_cache(maxsize=64)
def _pristine(scheduler: Any, config: str, options: str) -> Scheduler:  # noqa: ANN401 (see Scheduler)
    """Never used itself: making one takes a thousand betas, copying one takes none."""
    return scheduler.from_config(json.loads(config), **json.loads(options))


def schedule(name: str, config: Mapping[str, object], steps: int) -> Scheduler:
    """A fresh scheduler with its timesteps set, begin index 0.

    Raises:
        CannotDraw: the sampler cannot do that number of steps.
    """
    scheduler = build_scheduler(name, config)
    try:
        scheduler.set_timesteps(steps)
    except ValueError as error:  # how schedulers refuse a number of steps
        raise CannotDraw(f"sampler: {error}") from error
    begin_at(scheduler, 0)
    return scheduler


def begin_at(scheduler: Scheduler, index: int) -> None:
    """Says which timestep is the first one, to schedulers that would otherwise look it up.

    Karras sigmas can round two steps to one timestep, of which they would take the later.
    """
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)


def estimate_clean(
    scheduler: Scheduler, scaled: torch.Tensor, prediction: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """The clean latents that a prediction of a diffusion model implies.

    The scaled sample is variance preserving for every sampler of the table, so the model's own
    noise schedule turns it and the prediction into x0 (Salimans and Ho, 2022, section 4).
    """
    alphas: torch.Tensor = scheduler.alphas_cumprod
    kept = alphas[min(round(float(timestep)), len(alphas) - 1)].to(scaled)
    signal, noise = kept.sqrt(), (1 - kept).sqrt()
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return signal * scaled - noise * prediction
    if kind == "sample":
        return prediction
    return (scaled - noise * prediction) / signal.clamp(min=1e-4)


@functools.cache
def _parameters(scheduler: Any) -> frozenset[str]:  # noqa: ANN401 (see Scheduler)
    return frozenset(inspect.signature(scheduler).parameters)
