"""Which pipeline classes are served, and what requests may ask of each beyond a prompt."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import diffusers.pipelines

_STABLE_DIFFUSION = (
    "image_to_image",
    "inpaint",
    "hires",
    "loras",
    "controls",
    "prompt_weights",
    "clip_skip",
)
_FLOW = ("image_to_image", "hires", "loras")

FEATURES: Mapping[str, tuple[str, ...]] = {
    "StableDiffusionPipeline": _STABLE_DIFFUSION,
    "StableDiffusionXLPipeline": _STABLE_DIFFUSION,
    "StableDiffusion3Pipeline": _FLOW,
    "FluxPipeline": _FLOW,
    "QwenImagePipeline": _FLOW,
}
"""By pipeline class; a class that is not here runs through its stock pipeline, with none."""

PIPELINES: Mapping[str, str] = {
    "sd-1": "StableDiffusionPipeline",
    "sd-2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd-3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "qwen-image": "QwenImagePipeline",
}
"""By base: what a remote model is taken for until its files are here."""


def features_of(pipeline: str) -> tuple[str, ...]:
    """What requests may ask of a model whose pipeline is of this class; () where unknown."""
    return FEATURES.get(pipeline, ())


@functools.cache
def served_pipelines() -> frozenset[str]:
    """Names of all pipeline classes that the installed diffusers has, with what they depend on."""
    # the names alone: loading all modules takes a minute
    return frozenset(name for name in diffusers.pipelines.__all__ if name.endswith("Pipeline"))
