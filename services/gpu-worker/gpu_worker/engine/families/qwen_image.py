"""Qwen-Image: a language model reads the prompt; texts of any length share a forward by masks.

Does what diffusers' `QwenImagePipeline` does between prompt and picture, with the same tensor
operations in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.catalogue import Entry, LatentMap
from gpu_worker.engine.families.flow_matching import FlowMatching, pack, unpack
from gpu_worker.engine.families.parts import (
    load_network,
    load_text_encoder,
    load_tokenizer,
    read_scheduler_config,
)
from gpu_worker.engine.families.stable_diffusion import decode_kl
from gpu_worker.engine.model import CannotLoad, Encoded, Rows, Tensors
from gpu_worker.engine.rows import guide

_TEXT = "encoder_hidden_states"
_LENGTH = "text_tokens"
_GRID = "grid"

_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""What the model was trained to find around a prompt (its model card; diffusers has the same)."""

_TEMPLATE_TOKENS = 34
"""Of the template before the prompt; they are read and then left out."""

_MOST_READ = 1024
_MOST_KEPT = 512
"""Tokens; every encoded prompt is as long, so that rows fit together, and says where it ends."""

_SMALL = 2
"""Rows that go one by one, as in the stock pipeline: bit for bit, and without a mask."""


class QwenImage(FlowMatching):
    """One loaded model. Used by the engine's thread only."""

    def __init__(
        self,
        *,
        tokenizer: Any,  # noqa: ANN401 (transformers and diffusers are untyped)
        text_encoder: Any,  # noqa: ANN401
        transformer: Any,  # noqa: ANN401
        vae: Any,  # noqa: ANN401
        scheduler_config: Mapping[str, object],
        latent_map: LatentMap | None,
    ) -> None:
        """Takes the parts on the CPU; use `load`.

        Raises:
            CannotLoad: the transformer wants to be told the guidance.
        """
        if transformer.config.guidance_embeds:  # diffusers 0.42 has no forward for it
            raise CannotLoad("its transformer reads the guidance, which is not served")
        super().__init__(
            transformer=transformer,
            vae=vae,
            text_encoders=[text_encoder],
            scheduler_config=scheduler_config,
            latent_map=latent_map,
        )
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder

    @classmethod
    def load(cls, entry: Entry, dtype: torch.dtype) -> QwenImage:
        """Reads a model directory, from safetensors only and without any network.

        Raises:
            CannotLoad: a part is missing, or the transformer is of another kind.
            OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
        """
        path = entry.path
        return cls(
            tokenizer=load_tokenizer(Qwen2Tokenizer, path, "tokenizer"),
            text_encoder=load_text_encoder(
                Qwen2_5_VLForConditionalGeneration, path, "text_encoder", dtype
            ),
            transformer=load_network(QwenImageTransformer2DModel, path, "transformer", dtype),
            vae=load_network(AutoencoderKLQwenImage, path, "vae", dtype),
            scheduler_config=read_scheduler_config(path),
            latent_map=entry.latent_map,
        )

    def _count_channels(self) -> int:
        found: int = self._vae.config.z_dim
        return found

    def _count_scale(self) -> int:
        return int(2 ** len(self._vae.temperal_downsample))

    def _scaling_factor(self) -> float:
        return 1.0

    # --- conditioning -----------------------------------------------------------------------

    def is_guided(self, guidance: float) -> bool:
        """See the protocol, as for all that follows."""
        return guidance > 1

    def encode(self, text: str, *, negative: bool, clip_skip: int) -> Encoded:
        """As `encode_prompt`, and padded with zeros behind its end."""
        del clip_skip  # it is no CLIP
        tokens = self._tokenizer(
            [_TEMPLATE.format(text)],
            max_length=_MOST_READ + _TEMPLATE_TOKENS,
            padding=True,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        states = self._text_encoder(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            output_hidden_states=True,
        ).hidden_states[-1]
        read = states[:, _TEMPLATE_TOKENS:]
        kept = read[:, :_MOST_KEPT].to(dtype=self.dtype)
        length = kept.shape[1]
        padded = torch.nn.functional.pad(kept, (0, 0, 0, _MOST_KEPT - length))
        warnings: tuple[str, ...] = ()
        if read.shape[1] > _MOST_KEPT:
            which = "negative prompt" if negative else "prompt"
            warnings = (f"{which} cut after {_MOST_KEPT} tokens",)
        # the length stays on the CPU: asking a device for it would stall every step
        return Encoded({_TEXT: padded, _LENGTH: torch.tensor([length])}, warnings)

    def place(self, width_px: int, height_px: int, guidance: float) -> Tensors:
        """Rows and columns of tokens, on the CPU."""
        del guidance
        height, width = self._grid(width_px, height_px)
        return {_GRID: torch.tensor([[height // 2, width // 2]])}

    # --- latents ----------------------------------------------------------------------------

    def encode_image(
        self, pixels: torch.Tensor, width_px: int, height_px: int, generator: torch.Generator
    ) -> torch.Tensor:
        """See the protocol."""
        self._grid(width_px, height_px)
        still = pixels[:, :, None].to(device=self.device, dtype=self.dtype)
        latents = self._vae.encode(still).latent_dist.sample(generator)
        mean, inverse = self._statistics(latents)
        return pack(((latents - mean) * inverse)[:, :, 0])

    def _statistics(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and inverse deviation of latents (pictures, channels, 1, h, w)."""
        config = self._vae.config
        shape = (1, self._channels, 1, 1, 1)
        deviation = torch.tensor(config.latents_std).view(shape).to(latents)
        return torch.tensor(config.latents_mean).view(shape).to(latents), 1.0 / deviation

    def _packed(self, latents: torch.Tensor) -> torch.Tensor:
        return pack(latents)

    def _unpacked(self, latents: torch.Tensor, width_px: int, height_px: int) -> torch.Tensor:
        return unpack(latents, *self._grid(width_px, height_px))

    def denoise(self, rows: Rows) -> torch.Tensor:
        """One transformer forward; few rows take one each."""
        count = len(rows.samples)
        if count > _SMALL:
            return self._forward(rows, 0, count)
        return torch.cat([self._forward(rows, row, row + 1) for row in range(count)])

    def _forward(self, rows: Rows, begin: int, end: int) -> torch.Tensor:
        lengths = rows.conditioning[_LENGTH][begin:end]
        longest = int(lengths.max())
        mask: torch.Tensor | None = None
        if (lengths < longest).any():
            mask = torch.arange(longest)[None, :] < lengths[:, None]
            mask = mask.to(rows.samples.device)
        height, width = rows.conditioning[_GRID][0].tolist()
        prediction: torch.Tensor = self._transformer(
            hidden_states=rows.samples[begin:end],
            timestep=rows.timesteps[begin:end].to(rows.samples.dtype) / 1000,
            encoder_hidden_states_mask=mask,
            encoder_hidden_states=rows.conditioning[_TEXT][begin:end, :longest],
            img_shapes=[[(1, height, width)]] * (end - begin),
            return_dict=False,
        )[0]
        return prediction

    def guide(
        self, negative: torch.Tensor, positive: torch.Tensor, guidance: float
    ) -> torch.Tensor:
        """Guided, and each token as long as the positive prediction has it."""
        guided = guide(negative, positive, guidance)
        wanted: torch.Tensor = torch.norm(positive, dim=-1, keepdim=True)
        found: torch.Tensor = torch.norm(guided, dim=-1, keepdim=True)
        return guided * (wanted / found)

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
        del generators
        stills = self._unpacked(latents, width_px, height_px)[:, :, None].to(self._vae.dtype)
        mean, inverse = self._statistics(stills)
        return decode_kl(_StillDecoder(self._vae), stills / inverse + mean, tiled=tiled)


class _StillDecoder:
    """A video autoencoder for films of one picture."""

    def __init__(self, vae: Any) -> None:  # noqa: ANN401 (untyped, as above)
        self._vae = vae

    def enable_tiling(self) -> None:
        self._vae.enable_tiling()

    def disable_tiling(self) -> None:
        self._vae.disable_tiling()

    def decode(self, latents: torch.Tensor, *, return_dict: bool) -> tuple[torch.Tensor]:
        film: torch.Tensor = self._vae.decode(latents, return_dict=return_dict)[0]
        return (film[:, :, 0],)
