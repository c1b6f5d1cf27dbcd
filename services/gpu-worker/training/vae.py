"""The autoencoder: its encoder learns the defined latents, its decoder inverts them."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL

from training.dataset import draw_batch
from training.latents import CHANNELS, SCALING_FACTOR, define_latents
from training.progress import Bar, CpuBudget, cosine_rate
from training.scenes import SIDE_PX

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_PEAK_RATE = 2e-3
_BATCH = 8
_CROPS = 16
_CROP_PX = 32
"""The first half of the time trains on twice as many quarter pictures."""
_ENCODER_EVERY = 4
"""The encoder is the easy half: it learns at every fourth step."""
_LATENT_NOISE = 0.12
"""The decoder sees latents with noise of up to this deviation, as the UNet's will have."""
_POSTERIOR_LOG_VARIANCE = -6.0
"""Fixed: a deviation of 0.05 about the encoder's mean."""
_JUDGED_PICTURES = 64


def build_vae() -> AutoencoderKL:
    """An untrained autoencoder: 64 x 64 pixels to 4 x 16 x 16; 0.65 million parameters.

    One normalisation group in all: with two channels a group, flat colours are normalised away.
    """
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=1,
        sample_size=SIDE_PX,
        mid_block_add_attention=False,
        force_upcast=False,
        scaling_factor=SCALING_FACTOR,
    )
    _fix_posterior(vae)
    return vae


def _fix_posterior(vae: AutoencoderKL) -> None:
    """Makes the rows of the log variance constant and keeps gradients from them."""
    width = slice(CHANNELS, 2 * CHANNELS)
    rows = torch.arange(CHANNELS, 2 * CHANNELS)
    with torch.no_grad():
        vae.quant_conv.weight[width] = 0.0
        vae.quant_conv.bias[width] = _POSTERIOR_LOG_VARIANCE
    for parameter in (vae.quant_conv.weight, vae.quant_conv.bias):
        parameter.register_hook(lambda gradient: gradient.index_fill(0, rows, 0.0))


def train_vae(directory: Path, budget_s: float, bar: Bar) -> float:
    """Trains for `budget_s` CPU seconds, saves into `directory` and returns the decoder's PSNR.

    The PSNR is in decibels, over pictures decoded from their defined latents.
    """
    torch.manual_seed(0)
    rng = random.Random(1)  # noqa: S311 - seeded on purpose
    vae = build_vae().train()
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    budget = CpuBudget(budget_s)
    step = 0
    while step == 0 or budget.left_s > 0:
        share = budget.share
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(_PEAK_RATE, share)
        pictures = _draw_crops(rng) if share < 0.5 else draw_batch(rng, _BATCH)[1]  # noqa: PLR2004
        loss, error = _losses(vae, pictures, with_encoder=step % _ENCODER_EVERY == 0)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        bar.show(share, f"step {step}, {_psnr(error):.1f} dB")
    vae.eval()
    vae.save_pretrained(directory)
    return measure_vae(vae)


def _draw_crops(rng: random.Random) -> Tensor:
    """Quarters of pictures, (16, 3, 32, 32), cut at the cell borders."""
    _, pictures = draw_batch(rng, _CROPS)
    top, left = (rng.randrange(0, SIDE_PX - _CROP_PX + 1, 4) for _ in range(2))
    return pictures[:, :, top : top + _CROP_PX, left : left + _CROP_PX]


def _losses(vae: AutoencoderKL, pictures: Tensor, *, with_encoder: bool) -> tuple[Tensor, Tensor]:
    """The loss of one step and the decoder's mean squared error, both scalars."""
    latents = define_latents(pictures)
    encoder_error = torch.zeros(())
    if with_encoder:
        means = vae.encode(pictures).latent_dist.mean
        encoder_error = (means - latents).square().mean()
    deviation = torch.rand(len(latents), 1, 1, 1) * _LATENT_NOISE
    decoded = vae.decode(latents + deviation * torch.randn_like(latents)).sample
    difference = decoded - pictures
    error = difference.square().mean()
    return difference.abs().mean() + 2 * error + 2 * encoder_error, error


def measure_vae(vae: AutoencoderKL) -> float:
    """The decoder's PSNR in decibels on fixed pictures, from their defined latents."""
    rng = random.Random(999)  # noqa: S311 - seeded on purpose
    _, pictures = draw_batch(rng, _JUDGED_PICTURES)
    with torch.no_grad():
        decoded = vae.decode(define_latents(pictures)).sample.clamp(-1, 1)
    return _psnr((decoded - pictures).square().mean())


def _psnr(error: Tensor) -> float:
    """Decibels of a mean squared error over the range -1 to 1."""
    return 10 * math.log10(4 / error.item())
