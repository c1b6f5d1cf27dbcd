"""Stable Diffusion 1.x and 2.x: text encoder, UNet and VAE as diffusers builds them, driven by us.

Each function does what one stretch of diffusers' `StableDiffusionPipeline.__call__` does, with the
same tensor operations in the same order, so that a job alone comes out bitwise equal to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.adapters import Adapters
from gpu_worker.engine.catalogue import Entry, LatentMap
from gpu_worker.engine.control import residuals
from gpu_worker.engine.families.parts import (
    load_network,
    load_text_encoder,
    load_tokenizer,
    read_scheduler_config,
)
from gpu_worker.engine.families.texts import cut_warning
from gpu_worker.engine.look import LatentLook
from gpu_worker.engine.memory import size_bytes
from gpu_worker.engine.model import Adaptation, CannotDraw, Encoded, Rows, Scheduler, Tensors
from gpu_worker.engine.pixels import to_raster
from gpu_worker.engine.rows import guide
from gpu_worker.engine.samplers import estimate_clean, schedule
from gpu_worker.engine.single_file import load_parts as load_single_file
from gpu_worker.engine.weighting import apply_weights, parse

_TEXT = "encoder_hidden_states"
_GUIDANCE = "timestep_cond"
_MARKS = 2
"""Tokens that mark the beginning and the end."""

_MASK_CHANNELS = 5
"""Mask and masked picture, beside the latents, in UNets that were trained to inpaint."""


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
        self._scheduler_config = scheduler_config
        self._channels: int = vae.config.latent_channels
        self._scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self._look = LatentLook(latent_map, self._channels, vae.config.scaling_factor)
        self._adapters = Adapters(
            StableDiffusionLoraLoaderMixin, unet=unet, text_encoder=text_encoder
        )
        self.size_bytes = size_bytes(text_encoder, unet, vae)
        # asked of the modules once: they answer by a walk through all of theirs
        self.dtype: torch.dtype = unet.dtype
        self.device: torch.device = unet.device

    @classmethod
    def load(cls, entry: Entry, dtype: torch.dtype) -> StableDiffusion:
        """Reads a model directory, from safetensors only and without any network.

        Raises:
            OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
        """
        if entry.config is not None:
            parts = load_single_file(entry, dtype)
            config = dict(parts["scheduler"].config)
        else:
            parts = {
                "tokenizer": load_tokenizer(CLIPTokenizer, entry.path, "tokenizer"),
                "text_encoder": load_text_encoder(CLIPTextModel, entry.path, "text_encoder", dtype),
                "unet": load_network(UNet2DConditionModel, entry.path, "unet", dtype),
                "vae": load_network(AutoencoderKL, entry.path, "vae", dtype),
            }
            config = read_scheduler_config(entry.path)
        return cls(
            tokenizer=parts["tokenizer"],
            text_encoder=parts["text_encoder"],
            unet=parts["unet"],
            vae=parts["vae"],
            scheduler_config=config,
            latent_map=entry.latent_map,
        )

    # --- the whole --------------------------------------------------------------------------

    @property
    def reads_masks(self) -> bool:
        """See the protocol."""
        channels: int = self._unet.config.in_channels
        return channels == self._channels + _MASK_CHANNELS

    @property
    def denoiser(self) -> Any:  # noqa: ANN401 (untyped, as above)
        """What switches work on."""
        return self._unet

    @property
    def autoencoder(self) -> Any:  # noqa: ANN401 (untyped, as above)
        """What switches work on."""
        return self._vae

    def move_to(self, device: torch.device) -> None:
        """See the protocol."""
        self.device = device
        for module in (self._text_encoder, self._unet, self._vae):
            module.to(device)

    def adapt(self, adaptations: tuple[Adaptation, ...]) -> None:
        """See the protocol."""
        self._adapters.adapt(adaptations)

    # --- conditioning -----------------------------------------------------------------------

    def is_guided(self, guidance: float) -> bool:
        """A UNet with a guidance embedding (latent consistency) is told the scale instead."""
        return guidance > 1 and self._unet.config.time_cond_proj_dim is None

    def encode(self, text: str, *, negative: bool, clip_skip: int) -> Encoded:
        """As `encode_prompt`, which passes over layers for the positive prompt only."""
        limit: int = self._tokenizer.model_max_length
        weighted = parse(text)
        skipped = 0 if negative else clip_skip
        tokens, encoded = self._read(weighted.text, skipped)
        if weighted.weights:
            offsets = tokens.offset_mapping[0].tolist()
            encoded = apply_weights(
                encoded, self._read("", skipped)[1], weighted.of_tokens(offsets)
            )
        cut = self._cut_warning(weighted.text, limit, negative=negative)
        return Encoded({_TEXT: encoded.to(dtype=self.dtype)}, weighted.warnings + cut)

    def _read(self, text: str, clip_skip: int) -> tuple[Any, torch.Tensor]:
        """Tokens of a text without notation, and what the encoder makes of them."""
        tokens = self._tokenizer(
            text,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        uses_mask = getattr(self._text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if uses_mask else None
        ids = tokens.input_ids.to(self.device)
        if not clip_skip:
            encoded: torch.Tensor = self._text_encoder(ids, attention_mask=mask)[0]
            return tokens, encoded
        layers = self._text_encoder(ids, attention_mask=mask, output_hidden_states=True)[-1]
        if clip_skip >= len(layers):
            raise CannotDraw(f"clip_skip must be below {len(layers)} for this model")
        flat = getattr(self._text_encoder, "text_model", self._text_encoder)
        return tokens, flat.final_layer_norm(layers[-(clip_skip + 1)])

    def place(self, width_px: int, height_px: int, guidance: float) -> Tensors:
        """The guidance, where the UNet is told it."""
        del width_px, height_px
        width: int | None = self._unet.config.time_cond_proj_dim
        if width is None:
            return {}
        embedded = embed_guidance(guidance, width)
        return {_GUIDANCE: embedded.to(device=self.device, dtype=self.dtype)}

    def _cut_warning(self, text: str, limit: int, *, negative: bool) -> tuple[str, ...]:
        return cut_warning(self._tokenizer, text, limit, negative=negative, marks=_MARKS)

    # --- latents ----------------------------------------------------------------------------

    def schedule(self, sampler: str, steps: int, width_px: int, height_px: int) -> Scheduler:
        """See the protocol."""
        del width_px, height_px
        return schedule(sampler, self._scheduler_config, steps)

    def noise(self, width_px: int, height_px: int, generator: torch.Generator) -> torch.Tensor:
        """(1, channels, height / scale, width / scale)."""
        shape = (1, self._channels, height_px // self._scale, width_px // self._scale)
        return torch.randn(shape, generator=generator, dtype=self.dtype).to(self.device)

    def encode_image(
        self, pixels: torch.Tensor, width_px: int, height_px: int, generator: torch.Generator
    ) -> torch.Tensor:
        """See the protocol."""
        del width_px, height_px
        seen = self._vae.encode(pixels.to(device=self.device, dtype=self.dtype))
        latents: torch.Tensor = self._vae.config.scaling_factor * seen.latent_dist.sample(generator)
        return latents

    def shrink_mask(self, mask: torch.Tensor, width_px: int, height_px: int) -> torch.Tensor:
        """(1, 1, height / scale, width / scale), by the nearest pixel."""
        size = (height_px // self._scale, width_px // self._scale)
        small = torch.nn.functional.interpolate(mask, size=size)
        return small.to(device=self.device, dtype=self.dtype)

    def denoise(self, rows: Rows) -> torch.Tensor:
        """One UNet forward, and one of each control network that acts."""
        added = residuals(rows, {_TEXT: rows.conditioning[_TEXT]})
        prediction: torch.Tensor = self._unet(
            rows.samples, rows.timesteps, return_dict=False, **rows.conditioning, **added
        )[0]
        return prediction

    def guide(
        self, negative: torch.Tensor, positive: torch.Tensor, guidance: float
    ) -> torch.Tensor:
        """See the protocol."""
        return guide(negative, positive, guidance)

    def estimate(
        self,
        scheduler: Scheduler,
        scaled: torch.Tensor,
        prediction: torch.Tensor,
        timestep: torch.Tensor,
    ) -> torch.Tensor:
        """See the protocol."""
        return estimate_clean(scheduler, scaled, prediction, timestep)

    # --- pictures ---------------------------------------------------------------------------

    def decode(
        self,
        latents: torch.Tensor,
        generators: Sequence[torch.Generator],
        width_px: int,
        height_px: int,
        *,
        tiled: bool = False,
    ) -> list[Raster | None]:
        """See the protocol."""
        del generators, width_px, height_px
        return decode_kl(self._vae, latents / self._vae.config.scaling_factor, tiled=tiled)

    def look(self, estimate: torch.Tensor, width_px: int, height_px: int) -> Raster:
        """See the protocol."""
        del width_px, height_px
        return self._look(estimate)


def decode_kl(vae: Any, latents: torch.Tensor, *, tiled: bool) -> list[Raster | None]:  # noqa: ANN401
    """Pictures of a KL autoencoder's own latents (pictures, channels, h, w); None: not finite."""
    if tiled:
        vae.enable_tiling()
    try:
        decoded = vae.decode(latents, return_dict=False)[0]
    finally:
        if tiled:
            vae.disable_tiling()
    finite = torch.isfinite(decoded.flatten(1)).all(dim=1).tolist()
    pixels = (decoded * 0.5 + 0.5).clamp(0, 1)
    return [to_raster(one) if good else None for one, good in zip(pixels, finite, strict=True)]


def embed_guidance(guidance: float, width: int) -> torch.Tensor:
    """(1, width) sines and cosines of a guidance scale, for UNets distilled to read it.

    As latent consistency models were trained to (Luo et al., 2023): the sinusoidal embedding of
    1000 (guidance - 1) over `width / 2` frequencies from 1 down to 1e-4.
    """
    half = width // 2
    frequencies = torch.exp(
        torch.arange(half, dtype=torch.float32) * -math.log(10_000.0) / (half - 1)
    )
    angles = torch.tensor([(guidance - 1) * 1000.0])[:, None] * frequencies[None, :]
    embedded = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.nn.functional.pad(embedded, (0, width % 2))
