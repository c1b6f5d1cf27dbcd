"""What the engine asks of a loaded model whose denoiser takes a timestep per row.

Families implement it (`families/`); the engine knows none of them by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from easel_kit.ids import ModelKey
from gpu_worker.domain.drawing import Raster

Scheduler = Any  # diffusers schedulers share habits, not a type

Tensors = Mapping[str, torch.Tensor]
"""Named inputs of a denoiser; the first dimension of each counts rows."""


class CannotDraw(Exception):
    """The model cannot do what is asked; the text is for the user."""


class CannotLoad(Exception):
    """The model's files are not what they should be; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encoded prompt: tensors of one row each, on the device."""

    tensors: Tensors
    warnings: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Part(Protocol):
    """Anything that is loaded and takes memory: a model, an adapter, a control network."""

    @property
    def size_bytes(self) -> int:
        """Parameters and buffers; storage that several share is counted once."""
        ...

    def move_to(self, device: torch.device) -> None:
        """Brings all weights to the device."""
        ...


class Network(Part, Protocol):
    """A loaded control network."""


@dataclass(frozen=True, slots=True)
class Adaptation:
    """One adapter on a model, with its weight; 1 is as trained."""

    key: ModelKey
    adapter: Part
    weight: float


@dataclass(frozen=True, slots=True)
class ControlRows:
    """What one control network reads in one forward.

    Attributes:
        network: the loaded network.
        images: (rows, 3, height_px, width_px), 0 to 1.
        scales: (rows,), 0 where it does not act.
    """

    network: Network
    images: torch.Tensor
    scales: torch.Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """Input of one forward, all on the device.

    Attributes:
        samples: (rows, ...), scaled as each row's scheduler wants it.
        timesteps: (rows,).
        conditioning: named tensors of as many rows.
        controls: control networks that act on some row.
    """

    samples: torch.Tensor
    timesteps: torch.Tensor
    conditioning: Tensors
    controls: tuple[ControlRows, ...] = ()


@runtime_checkable
class Model(Part, Protocol):
    """A loaded model. Used by the engine's thread only.

    Latents of one picture are (1, ...) in whatever shape the denoiser takes them; what lies behind
    the first dimension is the family's own affair.
    """

    @property
    def dtype(self) -> torch.dtype:
        """Number format of weights and latents."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def reads_masks(self) -> bool:
        """Whether its denoiser takes a mask and the masked picture as further channels."""
        ...

    def adapt(self, adaptations: tuple[Adaptation, ...]) -> None:
        """Has all that follows run with exactly these adapters; cheap when nothing changes.

        Raises:
            CannotDraw: an adapter does not fit this model; names it.
        """
        ...

    def is_guided(self, guidance: float) -> bool:
        """Whether a picture with this guidance brings two rows into a forward."""
        ...

    def encode(self, text: str, *, negative: bool, clip_skip: int) -> Encoded:
        """Encodes one prompt under the current adapters."""
        ...

    def place(self, width_px: int, height_px: int, guidance: float) -> Tensors:
        """Conditioning that depends on size and guidance instead of the prompt; one row each."""
        ...

    def schedule(self, sampler: str, steps: int, width_px: int, height_px: int) -> Scheduler:
        """A fresh scheduler with its timesteps set, begin index 0.

        Raises:
            CannotDraw: the sampler cannot do that number of steps.
        """
        ...

    def noise(self, width_px: int, height_px: int, generator: torch.Generator) -> torch.Tensor:
        """Unit noise in the shape of latents, drawn on the CPU: a seed means the same anywhere."""
        ...

    def encode_image(
        self, pixels: torch.Tensor, width_px: int, height_px: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Clean latents of a picture, scaled as the denoiser knows them.

        Args:
            pixels: (1, 3, height_px, width_px), -1 to 1.
            width_px: of the picture.
            height_px: of the picture.
            generator: the encoder's distribution is sampled with it.
        """
        ...

    def shrink_mask(self, mask: torch.Tensor, width_px: int, height_px: int) -> torch.Tensor:
        """A mask (1, 1, height_px, width_px) of 0 and 1, shaped to blend latents with."""
        ...

    def denoise(self, rows: Rows) -> torch.Tensor:
        """One forward: a prediction for every row, shaped as the rows' latents."""
        ...

    def guide(
        self, negative: torch.Tensor, positive: torch.Tensor, guidance: float
    ) -> torch.Tensor:
        """One prediction out of a picture's two, each (1, ...)."""
        ...

    def estimate(
        self,
        scheduler: Scheduler,
        scaled: torch.Tensor,
        prediction: torch.Tensor,
        timestep: torch.Tensor,
    ) -> torch.Tensor:
        """What latents would finish as, judged before the next step; for previews only.

        Args:
            scheduler: of the picture, before that step.
            scaled: the latents as the denoiser saw them.
            prediction: for them, guided.
            timestep: of that step, 0-dimensional.
        """
        ...

    def decode(
        self,
        latents: torch.Tensor,
        generators: Sequence[torch.Generator],
        width_px: int,
        height_px: int,
        *,
        tiled: bool = False,
    ) -> list[Raster | None]:
        """The pictures of finished latents (pictures, ...); None where some pixel is no number.

        Args:
            latents: of pictures of one size.
            generators: one per picture.
            width_px: of each picture.
            height_px: of each picture.
            tiled: in pieces, for less memory and slightly other pixels.
        """
        ...

    def look(self, estimate: torch.Tensor, width_px: int, height_px: int) -> Raster:
        """A quick small look at an estimate of finished latents."""
        ...
