"""The latent space, which is defined and not learned.

Channels 0 to 2 are the means of red, green and blue over cells of 4 x 4 pixels, channel 3 tells how
much a cell varies, so where edges run. The VAE learns this map and its inverse, while the UNet
trains on the definition itself: the two need not wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

CELL_PX = 4
CHANNELS = 4
SCALING_FACTOR = 1.5
"""Brings the defined latents to about unit deviation; the VAE's `scaling_factor`."""

_EDGE_GAIN = 3.0
_EDGE_OFFSET = 0.4


def define_latents(pictures: Tensor) -> Tensor:
    """The latents of pictures, before scaling.

    Args:
        pictures: (batch, 3, height, width), float32, -1 to 1; sides divisible by 4.

    Returns:
        (batch, 4, height // 4, width // 4), float32, about -1 to 1.
    """
    mean = functional.avg_pool2d(pictures, CELL_PX)
    variance = functional.avg_pool2d(pictures * pictures, CELL_PX) - mean * mean
    deviation = variance.clamp(min=0).sqrt().mean(dim=1, keepdim=True)
    return torch.cat([mean, _EDGE_GAIN * deviation - _EDGE_OFFSET], dim=1)
