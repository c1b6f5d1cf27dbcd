"""Stable Diffusion 1.x: text encoder, UNet and VAE as diffusers builds them, driven by us.

Each function does what one stretch of diffusers' `StableDiffusionPipeline.__call__` does, with the
same tensor operations in the same order, so that a job alone comes out bitwise equal to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.catalogue import Entry, LatentMap
from gpu_worker.engine.job import Conditioning, Rows


class StableDiffusion:
    """One loaded model. Used by the engine's thread only."""

    def __init__(
        self,
        *,
        tokenizer: Any,  # noqa: ANN401 (transformers and diffusers are untyped)
        text_encoder: Any,  # noqa: ANN401
        unet: Any,  # noqa: ANN401
        vae: Any,  # noqa: ANN401
        scheduler_config: Mapping[str, object],
        latent_map: LatentMap | None,
    ) -> None:
        """Takes the parts, all in one number format and on the CPU; use `load`."""
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._unet = unet
        self._vae = vae
        self.scheduler_config = scheduler_config
        self._scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self._look = _LatentLook(latent_map, vae.config)
        modules = (text_encoder, unet, vae)
        self.size_bytes = sum(
            tensor.untyped_storage().nbytes()
            for tensor in {
                tensor.untyped_storage().data_ptr(): tensor
                for module in modules
                for tensor in (*module.parameters(), *module.buffers())
            }.values()
        )

    @classmethod
    def load(cls, entry: Entry, dtype: torch.dtype) -> StableDiffusion:
        """Reads a model directory, from safetensors only and without any network.

        Raises:
            OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
        """
        transformers_logging.disable_progress_bar()  # standard error is for nobody's eyes here
        path = entry.path
        options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
        unet = UNet2DConditionModel.from_pretrained(
            path / "unet", dtype=dtype, low_cpu_mem_usage=False, **options
        )
        vae = AutoencoderKL.from_pretrained(
            path / "vae", dtype=dtype, low_cpu_mem_usage=False, **options
        )
        text_encoder = CLIPTextModel.from_pretrained(path / "text_encoder", dtype=dtype, **options)
        tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
        if unet.config.time_cond_proj_dim is not None:
            raise ValueError("a UNet with a guidance embedding is not served")
        for module in (unet, vae, text_encoder):
            module.eval()
            module.requires_grad_(requires_grad=False)
        config: dict[str, object] = json.loads(
            Path(path / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")
        )
        return cls(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            vae=vae,
            scheduler_config=config,
            latent_map=entry.latent_map,
        )

    @property
    def dtype(self) -> torch.dtype:
        """Number format of weights and latents."""
        found: torch.dtype = self._unet.dtype
        return found

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        found: torch.device = self._unet.device
        return found

    def move_to(self, device: torch.device) -> None:
        """Brings all weights to the device."""
        for module in (self._text_encoder, self._unet, self._vae):
            module.to(device)

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """(1, channels, height / scale, width / scale) of one picture's latents."""
        channels: int = self._unet.config.in_channels
        return (1, channels, height_px // self._scale, width_px // self._scale)

    def encode(self, prompt: str, negative_prompt: str, *, guided: bool) -> Conditioning:
        """Encodes the prompts of one job; the negative one only where guidance uses it."""
        text, warnings = self._encode_text(prompt, "prompt")
        if not guided:
            return Conditioning(text, None, warnings)
        empty, more = self._encode_text(negative_prompt, "negative prompt")
        return Conditioning(text, empty, warnings + more)

    def denoise(self, rows: Rows) -> torch.Tensor:
        """One UNet forward: the model's prediction for every row, shaped as `rows.samples`."""
        prediction: torch.Tensor = self._unet(
            rows.samples,
            rows.timesteps,
            encoder_hidden_states=rows.conditioning,
            return_dict=False,
        )[0]
        return prediction

    def decode(self, latents: torch.Tensor, generator: torch.Generator) -> Raster:
        """The picture of finished latents (1, channels, height / scale, width / scale).

        Raises:
            FloatingPointError: some pixel is no number.
        """
        pixels = self._vae.decode(
            latents / self._vae.config.scaling_factor, return_dict=False, generator=generator
        )[0]
        if not torch.isfinite(pixels).all():
            raise FloatingPointError("decoded pixels are not finite")
        return _to_raster((pixels * 0.5 + 0.5).clamp(0, 1))

    def look(self, estimate: torch.Tensor) -> Raster:
        """A quick small look at latents that estimate the finished ones; one pixel a latent."""
        return _to_raster(self._look(estimate))

    def _encode_text(self, text: str, what: str) -> tuple[torch.Tensor, tuple[str, ...]]:
        limit: int = self._tokenizer.model_max_length
        tokens = self._tokenizer(
            text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        )
        uses_mask = getattr(self._text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if uses_mask else None
        encoded: torch.Tensor = self._text_encoder(
            tokens.input_ids.to(self.device), attention_mask=mask
        )[0]
        warnings: tuple[str, ...] = ()
        if len(self._tokenizer(text, verbose=False).input_ids) > limit:
            # two tokens mark the beginning and the end
            warnings = (f"{what} cut after {limit - 2} tokens",)
        return encoded.to(dtype=self.dtype), warnings


class _LatentLook:
    """The linear latent-to-colour map of a model, or its first three channels."""

    def __init__(self, given: LatentMap | None, vae_config: Any) -> None:  # noqa: ANN401
        channels: int = vae_config.latent_channels
        if given is None:
            scale = 0.5 / vae_config.scaling_factor
            rows = min(3, channels)
            weights = torch.zeros(3, channels)
            for colour in range(3):
                weights[colour, min(colour, rows - 1)] = scale
            bias = torch.full((3,), 0.5)
        else:
            weights = torch.tensor(given.weights)
            bias = torch.tensor(given.bias)
        self._weights = weights
        self._bias = bias

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """(1, channels, h, w) to (1, 3, h, w), clamped to 0 to 1."""
        flat = latents.float().cpu()
        colours = torch.einsum("kc,bchw->bkhw", self._weights, flat)
        return (colours + self._bias[None, :, None, None]).nan_to_num(0.5).clamp(0, 1)


def _to_raster(pixels: torch.Tensor) -> Raster:
    """(1, 3, height, width) in 0 to 1 to bytes, rounded half to even as diffusers rounds."""
    _, _, height_px, width_px = pixels.shape
    bytes_ = (pixels[0].permute(1, 2, 0).float().cpu() * 255).round().to(torch.uint8)
    return Raster(width_px, height_px, bytes_.contiguous().numpy().tobytes())
