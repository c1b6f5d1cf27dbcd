"""What requests may ask of each class of pipeline, and with which samplers. No torch here.

A class that is not in the table runs through its own stock pipeline, with the sampler it was saved
with.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import diffusers.pipelines

OWN_SAMPLER = "default"
"""The scheduler that a stock pipeline was saved with."""

_DIFFUSION_SAMPLERS = ("ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm")
_FLOW_SAMPLERS = ("flow_euler", "flow_dpmpp_2m", "flow_unipc")

_STABLE_DIFFUSION = (
    "image_to_image",
    "inpaint",
    "hires",
    "loras",
    "controls",
    "prompt_weights",
    "clip_skip",
)


@dataclass(frozen=True, slots=True)
class Served:
    """What a class of pipelines offers.

    Attributes:
        features: names of the contract (`Model.features`).
        samplers: names of `samplers.SAMPLERS` or `flow.FLOW_SAMPLERS`.
        size_unit_px: pictures are whole multiples of it in both directions.
    """

    features: tuple[str, ...]
    samplers: tuple[str, ...]
    size_unit_px: int = 8


SERVED: Mapping[str, Served] = {
    "StableDiffusionPipeline": Served(_STABLE_DIFFUSION, _DIFFUSION_SAMPLERS),
    "StableDiffusionXLPipeline": Served(_STABLE_DIFFUSION, _DIFFUSION_SAMPLERS),
    "StableDiffusion3Pipeline": Served(
        ("image_to_image", "hires", "clip_skip"), _FLOW_SAMPLERS, size_unit_px=16
    ),
    "FluxPipeline": Served(("image_to_image", "hires"), _FLOW_SAMPLERS, size_unit_px=16),
    # its sigmas are its own, and multistep schedulers do not take them
    "QwenImagePipeline": Served(("image_to_image", "hires"), ("flow_euler",), size_unit_px=16),
}

_STOCK = Served((), (OWN_SAMPLER,))


SAMPLER_NAMES = (*_DIFFUSION_SAMPLERS, *_FLOW_SAMPLERS, OWN_SAMPLER)
"""Of all classes."""


PIPELINES: Mapping[str, str] = {
    "sd-1": "StableDiffusionPipeline",
    "sd-2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd-3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "qwen-image": "QwenImagePipeline",
}
"""By base: what a remote model is taken for until its files are here."""


def served_as(class_name: str) -> Served:
    """What a pipeline of that class offers."""
    return SERVED.get(class_name, _STOCK)


@functools.cache
def served_pipelines() -> frozenset[str]:
    """Names of all pipeline classes that the installed diffusers has, with what they depend on."""
    # the names alone: loading all modules takes a minute
    return frozenset(name for name in diffusers.pipelines.__all__ if name.endswith("Pipeline"))
