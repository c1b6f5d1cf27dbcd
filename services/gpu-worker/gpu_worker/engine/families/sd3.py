"""Stable Diffusion 3 and 3.5: two CLIP encoders, a T5 that may be absent, and a transformer.

Does what diffusers' `StableDiffusion3Pipeline` does between prompt and picture, with the same
tensor operations in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from gpu_worker.engine.catalogue import Entry, LatentMap
from gpu_worker.engine.families.flow_matching import FlowMatching
from gpu_worker.engine.families.parts import (
    has_part,
    load_network,
    load_text_encoder,
    load_tokenizer,
    read_index,
    read_scheduler_config,
)
from gpu_worker.engine.families.texts import cut_warning, padded_ids
from gpu_worker.engine.model import Encoded, Rows, Tensors

_TEXT = "encoder_hidden_states"
_POOLED = "pooled_projections"
_T5_TOKENS = 256
_CLIP_MARKS, _T5_MARKS = 2, 1

Reader = tuple[Any, Any]
"""A tokenizer and its encoder."""


class StableDiffusion3(FlowMatching):
    """One loaded model. Used by the engine's thread only."""

    _max_shift = 1.16
    _even_sigmas = False

    def __init__(
        self,
        *,
        clips: tuple[Reader, Reader],
        t5: Reader | None,
        transformer: Any,  # noqa: ANN401 (transformers and diffusers are untyped)
        vae: Any,  # noqa: ANN401
        scheduler_config: Mapping[str, object],
        latent_map: LatentMap | None,
    ) -> None:
        """Takes the parts on the CPU; use `load`."""
        readers = clips if t5 is None else (*clips, t5)
        super().__init__(
            transformer=transformer,
            vae=vae,
            text_encoders=[encoder for _, encoder in readers],
            scheduler_config=scheduler_config,
            latent_map=latent_map,
        )
        self._clips = clips
        self._t5 = t5

    @classmethod
    def load(cls, entry: Entry, dtype: torch.dtype) -> StableDiffusion3:
        """Reads a model directory, from safetensors only and without any network.

        Raises:
            CannotLoad: a part is missing.
            OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
        """
        path = entry.path
        index = read_index(path)

        def clip(suffix: str) -> Reader:
            encoder = load_text_encoder(
                CLIPTextModelWithProjection, path, f"text_encoder{suffix}", dtype
            )
            return load_tokenizer(CLIPTokenizer, path, f"tokenizer{suffix}"), encoder

        t5: Reader | None = None
        if has_part(index, "text_encoder_3"):
            t5 = (
                load_tokenizer(T5TokenizerFast, path, "tokenizer_3"),
                load_text_encoder(T5EncoderModel, path, "text_encoder_3", dtype),
            )
        return cls(
            clips=(clip(""), clip("_2")),
            t5=t5,
            transformer=load_network(SD3Transformer2DModel, path, "transformer", dtype),
            vae=load_network(AutoencoderKL, path, "vae", dtype),
            scheduler_config=read_scheduler_config(path),
            latent_map=entry.latent_map,
        )

    def is_guided(self, guidance: float) -> bool:
        """See the protocol, as for all that follows."""
        return guidance > 1

    def encode(self, text: str, *, negative: bool, clip_skip: int) -> Encoded:
        """As `encode_prompt`: both CLIPs side by side, the T5 behind them."""
        layer = -2 if negative else -(clip_skip + 2)
        found = [self._read_clip(reader, text, layer) for reader in self._clips]
        clip = torch.cat([states for states, _ in found], dim=-1)
        t5 = self._read_t5(text)
        clip = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        tensors = {
            _TEXT: torch.cat([clip, t5], dim=-2),
            _POOLED: torch.cat([pooled for _, pooled in found], dim=-1),
        }
        return Encoded(tensors, self._cut(text, negative=negative))

    def _read_clip(
        self, reader: Reader, text: str, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokenizer, encoder = reader
        ids = padded_ids(tokenizer, text, self._clip_tokens)
        found = encoder(ids.to(self.device), output_hidden_states=True)
        return found.hidden_states[layer].to(dtype=self.dtype), found[0]

    def _read_t5(self, text: str) -> torch.Tensor:
        if self._t5 is None:
            width: int = self._transformer.config.joint_attention_dim
            return torch.zeros((1, _T5_TOKENS, width), device=self.device, dtype=self.dtype)
        tokenizer, encoder = self._t5
        ids = padded_ids(tokenizer, text, _T5_TOKENS)
        found: torch.Tensor = encoder(ids.to(self.device))[0]
        return found.to(dtype=encoder.dtype)

    @property
    def _clip_tokens(self) -> int:
        found: int = self._clips[0][0].model_max_length
        return found

    def _cut(self, text: str, *, negative: bool) -> tuple[str, ...]:
        if self._t5 is not None:  # it reads on where the CLIPs stop
            return cut_warning(self._t5[0], text, _T5_TOKENS, negative=negative, marks=_T5_MARKS)
        return cut_warning(
            self._clips[0][0], text, self._clip_tokens, negative=negative, marks=_CLIP_MARKS
        )

    def place(self, width_px: int, height_px: int, guidance: float) -> Tensors:
        """Nothing: the transformer sees the size."""
        del guidance
        self._grid(width_px, height_px)
        return {}

    def denoise(self, rows: Rows) -> torch.Tensor:
        """One transformer forward."""
        prediction: torch.Tensor = self._transformer(
            hidden_states=rows.samples,
            timestep=rows.timesteps,
            return_dict=False,
            **rows.conditioning,
        )[0]
        return prediction
