"""Stable Diffusion XL: a second text encoder, a pooled text and the picture's size as conditioning.

Does what diffusers' `StableDiffusionXLPipeline` does between prompt and picture, with the same
tensor operations in the same order. What is not here is `StableDiffusion`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.adapters import Adapters
from gpu_worker.engine.catalogue import Entry, LatentMap
from gpu_worker.engine.control import residuals
from gpu_worker.engine.families.parts import (
    load_network,
    load_text_encoder,
    load_tokenizer,
    read_index,
    read_scheduler_config,
)
from gpu_worker.engine.families.stable_diffusion import StableDiffusion, decode_kl
from gpu_worker.engine.memory import size_bytes
from gpu_worker.engine.model import CannotDraw, CannotLoad, Encoded, Rows, Tensors
from gpu_worker.engine.weighting import Weighted, apply_weights, parse

_TEXT = "encoder_hidden_states"
_POOLED = "text_embeds"
_SIZES = "time_ids"
_ADDED = (_POOLED, _SIZES)


class StableDiffusionXL(StableDiffusion):
    """One loaded model. Used by the engine's thread only."""

    def __init__(
        self,
        *,
        tokenizer: Any,  # noqa: ANN401 (transformers and diffusers are untyped)
        text_encoder: Any,  # noqa: ANN401
        tokenizer_2: Any,  # noqa: ANN401
        text_encoder_2: Any,  # noqa: ANN401
        unet: Any,  # noqa: ANN401
        vae: Any,  # noqa: ANN401
        scheduler_config: Mapping[str, object],
        latent_map: LatentMap | None,
        zeros_for_empty: bool,
    ) -> None:
        """Takes the parts on the CPU; use `load`.

        Raises:
            CannotLoad: the UNet takes something else than size and pooled text.
        """
        super().__init__(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            vae=vae,
            scheduler_config=scheduler_config,
            latent_map=latent_map,
        )
        self._tokenizer_2 = tokenizer_2
        self._text_encoder_2 = text_encoder_2
        self._zeros_for_empty = zeros_for_empty
        self._adapters = Adapters(
            StableDiffusionXLLoraLoaderMixin,
            unet=unet,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
        )
        self.size_bytes = size_bytes(text_encoder, text_encoder_2, unet, vae)
        six_sizes = 6 * unet.config.addition_time_embed_dim
        taken: int = unet.add_embedding.linear_1.in_features
        if taken != six_sizes + text_encoder_2.config.projection_dim:
            raise CannotLoad("its UNet takes other sizes than a base model's (a refiner?)")

    @classmethod
    def load(cls, entry: Entry, dtype: torch.dtype) -> StableDiffusionXL:
        """Reads a model directory, from safetensors only and without any network.

        Raises:
            CannotLoad: a part is missing, or it is no base model.
            OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
        """
        path = entry.path
        index = read_index(path)
        vae = load_network(AutoencoderKL, path, "vae", dtype)
        if vae.config.force_upcast and dtype is torch.float16:
            # its numbers overflow in half precision; stock casts to and fro at every picture
            vae = load_network(AutoencoderKL, path, "vae", torch.float32)
        return cls(
            tokenizer=load_tokenizer(CLIPTokenizer, path, "tokenizer"),
            text_encoder=load_text_encoder(CLIPTextModel, path, "text_encoder", dtype),
            tokenizer_2=load_tokenizer(CLIPTokenizer, path, "tokenizer_2"),
            text_encoder_2=load_text_encoder(
                CLIPTextModelWithProjection, path, "text_encoder_2", dtype
            ),
            unet=load_network(UNet2DConditionModel, path, "unet", dtype),
            vae=vae,
            scheduler_config=read_scheduler_config(path),
            latent_map=entry.latent_map,
            zeros_for_empty=bool(index.get("force_zeros_for_empty_prompt", True)),
        )

    def move_to(self, device: torch.device) -> None:
        """See the protocol, as for all that follows."""
        super().move_to(device)
        self._text_encoder_2.to(device)

    # --- conditioning -----------------------------------------------------------------------

    def encode(self, text: str, *, negative: bool, clip_skip: int) -> Encoded:
        """As `encode_prompt`: both encoders' layer before the last, the second's pooled text.

        An empty negative prompt is nothing at all (zeros) where the model was trained so.
        """
        weighted = parse(text)
        layer = -2 if negative else -(clip_skip + 2)
        first, _ = self._hidden(self._tokenizer, self._text_encoder, weighted, layer)
        second, pooled = self._hidden(self._tokenizer_2, self._text_encoder_2, weighted, layer)
        together = torch.concat([first, second], dim=-1).to(dtype=self.dtype)
        if negative and not text and self._zeros_for_empty:
            together, pooled = torch.zeros_like(together), torch.zeros_like(pooled)
        limit: int = self._tokenizer.model_max_length
        cut = self._cut_warning(weighted.text, limit, negative=negative)
        return Encoded({_TEXT: together, _POOLED: pooled}, weighted.warnings + cut)

    def _hidden(
        self,
        tokenizer: Any,  # noqa: ANN401 (untyped, as above)
        encoder: Any,  # noqa: ANN401
        weighted: Weighted,
        layer: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer of the text, with its weights, and the pooled text, which has none."""

        def read(text: str) -> tuple[Any, Any]:
            tokens = tokenizer(
                text,
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_offsets_mapping=True,
                return_tensors="pt",
            )
            return tokens, encoder(tokens.input_ids.to(self.device), output_hidden_states=True)

        tokens, found = read(weighted.text)
        if -layer > len(found.hidden_states):
            layers = len(found.hidden_states)
            raise CannotDraw(f"clip_skip must be below {layers - 1} for this model")
        encoded = found.hidden_states[layer]
        if weighted.weights:
            empty = read("")[1].hidden_states[layer]
            weights = weighted.of_tokens(tokens.offset_mapping[0].tolist())
            encoded = apply_weights(encoded, empty, weights)
        return encoded, found[0]

    def place(self, width_px: int, height_px: int, guidance: float) -> Tensors:
        """Original size, no crop, wanted size: the whole picture, as large as it is."""
        sizes = [height_px, width_px, 0, 0, height_px, width_px]
        tensor = torch.tensor([sizes], dtype=self.dtype).to(self.device)
        return {**super().place(width_px, height_px, guidance), _SIZES: tensor}

    def denoise(self, rows: Rows) -> torch.Tensor:
        """One UNet forward, and one of each control network that acts."""
        given: dict[str, Any] = dict(rows.conditioning)
        given["added_cond_kwargs"] = {name: given.pop(name) for name in _ADDED}
        read = {name: given[name] for name in (_TEXT, "added_cond_kwargs")}
        prediction: torch.Tensor = self._unet(
            rows.samples, rows.timesteps, return_dict=False, **given, **residuals(rows, read)
        )[0]
        return prediction

    # --- pictures ---------------------------------------------------------------------------

    def encode_image(
        self, pixels: torch.Tensor, width_px: int, height_px: int, generator: torch.Generator
    ) -> torch.Tensor:
        """See the protocol."""
        del width_px, height_px
        config = self._vae.config
        # through the latents' format first, as stock does
        given = pixels.to(device=self.device, dtype=self.dtype).to(self._vae.dtype)
        latents = self._vae.encode(given).latent_dist.sample(generator).to(self.dtype)
        if self._is_normalised:
            mean, deviation = self._statistics(latents)
            scaled: torch.Tensor = (latents - mean) * config.scaling_factor / deviation
        else:
            scaled = config.scaling_factor * latents
        return scaled

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
        latents = latents.to(self._vae.dtype)
        config = self._vae.config
        if self._is_normalised:
            mean, deviation = self._statistics(latents)
            latents = latents * deviation / config.scaling_factor + mean
        else:
            latents = latents / config.scaling_factor
        return decode_kl(self._vae, latents, tiled=tiled)

    @property
    def _is_normalised(self) -> bool:
        config = self._vae.config
        return config.latents_mean is not None and config.latents_std is not None

    def _statistics(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        config = self._vae.config
        shape = (1, self._channels, 1, 1)
        return (
            torch.tensor(config.latents_mean).view(shape).to(latents),
            torch.tensor(config.latents_std).view(shape).to(latents),
        )
