"""Which family reads a model's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from gpu_worker.engine.adapters import Adapter
from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.control import ControlNet
from gpu_worker.engine.families.flux import Flux
from gpu_worker.engine.families.qwen_image import QwenImage
from gpu_worker.engine.families.sd3 import StableDiffusion3
from gpu_worker.engine.families.sdxl import StableDiffusionXL
from gpu_worker.engine.families.stable_diffusion import StableDiffusion
from gpu_worker.engine.families.stock import StockModel
from gpu_worker.engine.model import Model, Part

FAMILIES: Mapping[str, Callable[[Entry, torch.dtype], Model]] = {
    "StableDiffusionPipeline": StableDiffusion.load,
    "StableDiffusionXLPipeline": StableDiffusionXL.load,
    "StableDiffusion3Pipeline": StableDiffusion3.load,
    "FluxPipeline": Flux.load,
    "QwenImagePipeline": QwenImage.load,
}
"""By pipeline class; all others run whole."""


def load_part(entry: Entry, dtype: torch.dtype) -> Part:
    """Reads a catalogue entry's files into memory, on the CPU; without any network.

    Raises:
        CannotLoad: a part is missing, or the files want what is not served; says which.
        OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
    """
    match entry.card.type:
        case "lora":
            return Adapter.load(entry)
        case "controlnet":
            return ControlNet.load(entry, dtype)
    family = FAMILIES.get(entry.pipeline)
    return StockModel.load(entry, dtype) if family is None else family(entry, dtype)
