"""Flux.1: packed latents with positions, a pooled CLIP text, a T5 text and distilled guidance.

Does what diffusers' `FluxPipeline` does between prompt and picture, with the same tensor
operations in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from gpu_worker.engine.catalogue import Entry, LatentMap
from gpu_worker.engine.families.flow_matching import FlowMatching, pack, unpack
from gpu_worker.engine.families.parts import (
    load_network,
    load_text_encoder,
    load_tokenizer,
    read_scheduler_config,
)
from gpu_worker.engine.families.texts import cut_warning, padded_ids
from gpu_worker.engine.model import Encoded, Rows, Tensors

_TEXT = "encoder_hidden_states"
_POOLED = "pooled_projections"
_GUIDANCE = "guidance"
_POSITIONS = "img_ids"
_T5_MARKS = 1


class Flux(FlowMatching):
    """One loaded model. Used by the engine's thread only."""

    def __init__(
        self,
        *,
        tokenizer: Any,  # noqa: ANN401 (transformers and diffusers are untyped)
        text_encoder: Any,  # noqa: ANN401
        tokenizer_2: Any,  # noqa: ANN401
        text_encoder_2: Any,  # noqa: ANN401
        transformer: Any,  # noqa: ANN401
        vae: Any,  # noqa: ANN401
        scheduler_config: Mapping[str, object],
        latent_map: LatentMap | None,
    ) -> None:
        """Takes the parts on the CPU; use `load`."""
        super().__init__(
            transformer=transformer,
            vae=vae,
            text_encoders=[text_encoder, text_encoder_2],
            scheduler_config=scheduler_config,
            latent_map=latent_map,
        )
        self._tokenizer, self._text_encoder = tokenizer, text_encoder
        self._tokenizer_2, self._text_encoder_2 = tokenizer_2, text_encoder_2
        self._reads_guidance: bool = transformer.config.guidance_embeds
        # the model without guidance was distilled with the shorter text
        self._t5_tokens = 512 if self._reads_guidance else 256

    @classmethod
    def load(cls, entry: Entry, dtype: torch.dtype) -> Flux:
        """Reads a model directory, from safetensors only and without any network.

        Raises:
            CannotLoad: a part is missing.
            OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
        """
        path = entry.path
        return cls(
            tokenizer=load_tokenizer(CLIPTokenizer, path, "tokenizer"),
            text_encoder=load_text_encoder(CLIPTextModel, path, "text_encoder", dtype),
            tokenizer_2=load_tokenizer(T5TokenizerFast, path, "tokenizer_2"),
            text_encoder_2=load_text_encoder(T5EncoderModel, path, "text_encoder_2", dtype),
            transformer=load_network(FluxTransformer2DModel, path, "transformer", dtype),
            vae=load_network(AutoencoderKL, path, "vae", dtype),
            scheduler_config=read_scheduler_config(path),
            latent_map=entry.latent_map,
        )

    def is_guided(self, guidance: float) -> bool:
        """Never by a second row: the transformer is told the scale, or was distilled without."""
        del guidance
        return False

    def encode(self, text: str, *, negative: bool, clip_skip: int) -> Encoded:
        """As `encode_prompt`: the CLIP's pooled text and all of the T5's."""
        del clip_skip  # the last layer's pooled output is all that is read
        ids = padded_ids(self._tokenizer, text, self._tokenizer.model_max_length)
        pooled = self._text_encoder(ids.to(self.device), output_hidden_states=False).pooler_output
        ids = padded_ids(self._tokenizer_2, text, self._t5_tokens)
        states = self._text_encoder_2(ids.to(self.device), output_hidden_states=False)[0]
        tensors = {
            _TEXT: states.to(dtype=self._text_encoder_2.dtype),
            _POOLED: pooled.to(dtype=self._text_encoder.dtype),
        }
        warnings = cut_warning(
            self._tokenizer_2, text, self._t5_tokens, negative=negative, marks=_T5_MARKS
        )
        return Encoded(tensors, warnings)

    def place(self, width_px: int, height_px: int, guidance: float) -> Tensors:
        """Where each token lies, and the guidance where the transformer is told it."""
        height, width = self._grid(width_px, height_px)
        positions = torch.zeros(height // 2, width // 2, 3)
        positions[..., 1] = torch.arange(height // 2)[:, None]
        positions[..., 2] = torch.arange(width // 2)[None, :]
        tensors = {_POSITIONS: positions.reshape(1, -1, 3).to(device=self.device, dtype=self.dtype)}
        if self._reads_guidance:
            tensors[_GUIDANCE] = torch.full([1], guidance, device=self.device, dtype=torch.float32)
        return tensors

    def _packed(self, latents: torch.Tensor) -> torch.Tensor:
        return pack(latents)

    def _unpacked(self, latents: torch.Tensor, width_px: int, height_px: int) -> torch.Tensor:
        return unpack(latents, *self._grid(width_px, height_px))

    def denoise(self, rows: Rows) -> torch.Tensor:
        """One transformer forward; positions are the same in all rows."""
        text = rows.conditioning[_TEXT]
        prediction: torch.Tensor = self._transformer(
            hidden_states=rows.samples,
            timestep=rows.timesteps.to(rows.samples.dtype) / 1000,
            guidance=rows.conditioning.get(_GUIDANCE),
            pooled_projections=rows.conditioning[_POOLED],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3).to(device=text.device, dtype=self.dtype),
            img_ids=rows.conditioning[_POSITIONS][0],
            return_dict=False,
        )[0]
        return prediction
