"""Which family reads a model's files."""

from __future__ import annotations

import torch

from gpu_worker.engine.adapters import Adapter
from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.control import ControlNet
from gpu_worker.engine.families.stable_diffusion import StableDiffusion
from gpu_worker.engine.model import Part


def load_part(entry: Entry, dtype: torch.dtype) -> Part:
    """Reads a catalogue entry's files into memory, on the CPU; without any network.

    Raises:
        OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
    """
    match entry.card.type:
        case "lora":
            return Adapter.load(entry)
        case "controlnet":
            return ControlNet.load(entry, dtype)
    return StableDiffusion.load(entry, dtype)
