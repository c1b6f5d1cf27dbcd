"""Single-file checkpoints (Stable Diffusion's first layout) as the parts of a diffusers pipeline.

Without any network: how the parts are built, and the tokenizers, come from a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging

from gpu_worker.engine.entry import Entry


def load_parts(entry: Entry, dtype: torch.dtype) -> Mapping[str, Any]:
    """Reads a checkpoint whose `entry.config` is set.

    Args:
        entry: as `Catalogue.at_hand` gives it.
        dtype: of all weights.

    Returns:
        The pipeline's parts by their names (`unet`, `vae`, `tokenizer`, …), on the CPU, in
        evaluation mode and without gradients; None for a part that it does without.

    Raises:
        OSError, ValueError, RuntimeError, KeyError: the file or the config is not what it should
            be, or a part is in neither.
    """
    if entry.config is None:
        raise ValueError("a single-file checkpoint is read with a config only")
    diffusers_logging.disable_progress_bar()  # standard error is for nobody's eyes here
    pipeline = getattr(diffusers, entry.pipeline)
    if not hasattr(pipeline, "from_single_file"):
        raise ValueError(f"a {entry.pipeline} is not read from a single file")
    # given a folder as config, diffusers asks no hub: without one it would
    loaded = pipeline.from_single_file(
        str(entry.path), config=str(entry.config), dtype=dtype, local_files_only=True
    )
    parts: Mapping[str, Any] = loaded.components
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
            part.requires_grad_(requires_grad=False)
            # transformers leaves buffers and some weights in their own format
            part.to(dtype=dtype)
    return parts
