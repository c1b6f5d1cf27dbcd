"""Pictures as tensors and back, with diffusers' arithmetic."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from gpu_worker.domain.drawing import Raster


def to_raster(pixels: torch.Tensor) -> Raster:
    """(3, height, width) in 0 to 1 to bytes, rounded half to even as diffusers rounds."""
    _, height_px, width_px = pixels.shape
    bytes_ = (pixels.permute(1, 2, 0).float().cpu() * 255).round().to(torch.uint8)
    return Raster(width_px, height_px, bytes_.contiguous().numpy().tobytes())


def to_image(raster: Raster) -> Image.Image:
    """As Pillow has it."""
    return Image.frombytes("RGB", (raster.width_px, raster.height_px), raster.rgb)


def to_pixels(raster: Raster, width_px: int, height_px: int) -> torch.Tensor:
    """(1, 3, height_px, width_px) in 0 to 1, resized (Lanczos) where the size is another."""
    array = np.asarray(resized(raster, width_px, height_px), dtype=np.float32) / 255.0
    # in the memory layout that diffusers gives a picture: convolutions round by it
    return torch.from_numpy(array[None]).permute(0, 3, 1, 2)


def to_mask(raster: Raster, width_px: int, height_px: int) -> torch.Tensor:
    """(1, 1, height_px, width_px) of 0 (keep) and 1 (paint anew), cut at half brightness."""
    image = resized(raster, width_px, height_px).convert("L")
    array = np.asarray(image, dtype=np.float32) / 255.0
    return (torch.from_numpy(array)[None, None] >= 0.5).float()  # noqa: PLR2004 (half)


def enlarged(raster: Raster, width_px: int, height_px: int) -> Raster:
    """The picture at another size."""
    return Raster(width_px, height_px, resized(raster, width_px, height_px).tobytes())


def resized(raster: Raster, width_px: int, height_px: int) -> Image.Image:
    """The picture at another size (Lanczos), or as it is."""
    image = to_image(raster)
    if image.size == (width_px, height_px):
        return image
    return image.resize((width_px, height_px), Image.Resampling.LANCZOS)


def pasted(kept: Raster, drawn: Raster, mask: Raster) -> Raster:
    """`drawn` where the mask is white, `kept` elsewhere: bytes outside the mask do not change."""
    size = (drawn.width_px, drawn.height_px)
    stencil = resized(mask, *size).convert("L").point([0] * 128 + [255] * 128)
    whole = Image.composite(to_image(drawn), resized(kept, *size), stencil)
    return Raster(*size, whole.tobytes())
