"""Which family reads a model's files."""

from __future__ import annotations

import torch

from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.families.stable_diffusion import StableDiffusion
from gpu_worker.engine.model import Model
from gpu_worker.engine.whole import WholeModel


def load_part(entry: Entry, dtype: torch.dtype) -> Model | WholeModel:
    """Reads a catalogue entry's files into memory, on the CPU; without any network.

    Raises:
        OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
    """
    return StableDiffusion.load(entry, dtype)
