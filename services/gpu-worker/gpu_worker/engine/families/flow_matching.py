"""What flow-matching families share: transformer, VAE and how latents become pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.catalogue import LatentMap
from gpu_worker.engine.families.stable_diffusion import decode_kl
from gpu_worker.engine.flow import estimate_flow, schedule_flow
from gpu_worker.engine.look import LatentLook
from gpu_worker.engine.memory import size_bytes
from gpu_worker.engine.model import Adaptation, CannotDraw, Scheduler
from gpu_worker.engine.rows import guide

_PATCH = 2
"""Latents go two by two, so pictures are multiples of twice the VAE's scale."""


class FlowMatching:
    """One loaded model of a KL autoencoder with a shift. Used by the engine's thread only."""

    _max_shift = 1.15
    """Of sigmas, where the scheduler's configuration has none."""

    _even_sigmas = True

    def __init__(
        self,
        *,
        transformer: Any,  # noqa: ANN401 (transformers and diffusers are untyped)
        vae: Any,  # noqa: ANN401
        text_encoders: Sequence[Any],
        scheduler_config: Mapping[str, object],
        latent_map: LatentMap | None,
    ) -> None:
        """Takes the parts, on the CPU."""
        self._transformer = transformer
        self._vae = vae
        self._modules = (*text_encoders, transformer, vae)
        self._scheduler_config = scheduler_config
        self._channels = self._count_channels()
        self._scale = self._count_scale()
        self._look = LatentLook(latent_map, self._channels, self._scaling_factor())
        self.size_bytes = size_bytes(*self._modules)
        # asked of the modules once: they answer by a walk through all of theirs
        self.dtype: torch.dtype = transformer.dtype
        self.device: torch.device = transformer.device

    def _count_channels(self) -> int:
        found: int = self._vae.config.latent_channels
        return found

    def _count_scale(self) -> int:
        return int(2 ** (len(self._vae.config.block_out_channels) - 1))

    def _scaling_factor(self) -> float:
        found: float = self._vae.config.scaling_factor
        return found

    # --- the whole --------------------------------------------------------------------------

    @property
    def reads_masks(self) -> bool:
        """See the protocol."""
        return False

    @property
    def denoiser(self) -> Any:  # noqa: ANN401 (untyped, as above)
        """What switches work on."""
        return self._transformer

    @property
    def autoencoder(self) -> Any:  # noqa: ANN401 (untyped, as above)
        """What switches work on."""
        return self._vae

    def move_to(self, device: torch.device) -> None:
        """See the protocol."""
        self.device = device
        for module in self._modules:
            module.to(device)

    def adapt(self, adaptations: tuple[Adaptation, ...]) -> None:
        """See the protocol."""
        if adaptations:
            raise CannotDraw(f"adapter {adaptations[0].key} does not fit this model")

    # --- latents ----------------------------------------------------------------------------

    def schedule(self, sampler: str, steps: int, width_px: int, height_px: int) -> Scheduler:
        """See the protocol."""
        height, width = self._grid(width_px, height_px)
        return schedule_flow(
            sampler,
            self._scheduler_config,
            steps,
            (height // _PATCH) * (width // _PATCH),
            even=self._even_sigmas,
            max_shift=self._max_shift,
        )

    def _grid(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Rows and columns of latents.

        Raises:
            CannotDraw: the size is none of this model.
        """
        unit_px = self._scale * _PATCH
        for field, side_px in (("width_px", width_px), ("height_px", height_px)):
            if side_px % unit_px:
                raise CannotDraw(f"{field}: must be a multiple of {unit_px} for this model")
        return height_px // self._scale, width_px // self._scale

    def noise(self, width_px: int, height_px: int, generator: torch.Generator) -> torch.Tensor:
        """See the protocol."""
        height, width = self._grid(width_px, height_px)
        shape = (1, self._channels, height, width)
        drawn = torch.randn(shape, generator=generator, dtype=self.dtype).to(self.device)
        return self._packed(drawn)

    def encode_image(
        self, pixels: torch.Tensor, width_px: int, height_px: int, generator: torch.Generator
    ) -> torch.Tensor:
        """See the protocol."""
        self._grid(width_px, height_px)
        config = self._vae.config
        seen = self._vae.encode(pixels.to(device=self.device, dtype=self.dtype))
        latents = seen.latent_dist.sample(generator)
        return self._packed((latents - config.shift_factor) * config.scaling_factor)

    def shrink_mask(self, mask: torch.Tensor, width_px: int, height_px: int) -> torch.Tensor:
        """See the protocol: these families do not inpaint."""
        del mask, width_px, height_px
        raise CannotDraw("init_image.mask: this model cannot paint parts of a picture anew")

    def _packed(self, latents: torch.Tensor) -> torch.Tensor:
        """From (1, channels, h, w) to what the transformer takes."""
        return latents

    def _unpacked(self, latents: torch.Tensor, width_px: int, height_px: int) -> torch.Tensor:
        """Back, for any number of pictures."""
        del width_px, height_px
        return latents

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
        return estimate_flow(scheduler, scaled, prediction, timestep)

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
        config = self._vae.config
        latents = self._unpacked(latents, width_px, height_px)
        latents = (latents / config.scaling_factor) + config.shift_factor
        return decode_kl(self._vae, latents, tiled=tiled)

    def look(self, estimate: torch.Tensor, width_px: int, height_px: int) -> Raster:
        """See the protocol."""
        return self._look(self._unpacked(estimate, width_px, height_px))


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(pictures, channels, h, w) to (pictures, h / 2 * w / 2, 4 channels): a token is 2 by 2."""
    pictures, channels, height, width = latents.shape
    blocks = latents.view(pictures, channels, height // 2, 2, width // 2, 2)
    tokens = blocks.permute(0, 2, 4, 1, 3, 5)
    return tokens.reshape(pictures, (height // 2) * (width // 2), channels * 4)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of `pack`; `height` and `width` are of the latents."""
    pictures, _, numbers = tokens.shape
    blocks = tokens.view(pictures, height // 2, width // 2, numbers // 4, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(pictures, numbers // 4, height, width)
