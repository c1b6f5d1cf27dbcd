"""A quick look at latents: a linear map to colours, one pixel a latent."""

from __future__ import annotations

import torch

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.catalogue import LatentMap
from gpu_worker.engine.pixels import to_raster


class LatentLook:
    """The linear latent-to-colour map of a model, or its first three channels."""

    def __init__(self, given: LatentMap | None, channels: int, scaling_factor: float) -> None:
        """Without a map the first channels stand for red, green and blue, which is rarely true."""
        if given is None:
            scale = 0.5 / scaling_factor
            weights = torch.zeros(3, channels)
            for colour in range(3):
                weights[colour, min(colour, channels - 1)] = scale
            bias = torch.full((3,), 0.5)
        else:
            weights = torch.tensor(given.weights)
            bias = torch.tensor(given.bias)
        self._weights = weights
        self._bias = bias

    def __call__(self, latents: torch.Tensor) -> Raster:
        """The look at (1, channels, h, w), each colour clamped to 0 to 1."""
        flat = latents[0].float().cpu()
        colours = torch.einsum("kc,chw->khw", self._weights, flat) + self._bias[:, None, None]
        return to_raster(colours.nan_to_num(0.5).clamp(0, 1))
