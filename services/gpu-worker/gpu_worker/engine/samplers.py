"""Samplers by name: which diffusers scheduler each one is, built anew for every picture.

Schedulers keep state between steps, so none is ever shared. They stay on the CPU.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import (
    EulerAncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

Scheduler = Any  # diffusers schedulers share habits, not a type


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler class and what it sets beyond the model's own scheduler configuration."""

    scheduler: Any
    options: Mapping[str, object] = field(default_factory=dict)


_DPMPP_2M: dict[str, object] = {"algorithm_type": "dpmsolver++", "solver_order": 2}

SAMPLERS: Mapping[str, Sampler] = {
    "ddim": Sampler(DDIMScheduler),
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
    """A fresh scheduler of the named sampler.

    Args:
        name: a key of `SAMPLERS`.
        config: the model's `scheduler_config.json`; fields that the class lacks are dropped, as
            `from_config` does with a warning.
    """
    sampler = SAMPLERS[name]
    known = _parameters(sampler.scheduler)
    return sampler.scheduler.from_config(
        {field: value for field, value in config.items() if field in known}, **sampler.options
    )


def step_options(scheduler: Scheduler, generator: object) -> dict[str, object]:
    """What `scheduler.step` takes beside the usual, decided as the stock pipeline decides it."""
    known = _step_parameters(scheduler.__class__)
    options: dict[str, object] = {}
    if "eta" in known:
        options["eta"] = 0.0
    if "generator" in known:
        options["generator"] = generator
    return options


@functools.cache
def _parameters(scheduler: Any) -> frozenset[str]:  # noqa: ANN401 (see Scheduler)
    return frozenset(inspect.signature(scheduler).parameters)


@functools.cache
def _step_parameters(scheduler: Any) -> frozenset[str]:  # noqa: ANN401 (see Scheduler)
    return frozenset(inspect.signature(scheduler.step).parameters)
