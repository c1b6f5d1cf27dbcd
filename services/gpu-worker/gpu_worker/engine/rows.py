"""Rows of one forward: which pictures' latents go in, and what each gets back.

A picture brings one row, or two with guidance (negative prompt first). Rows of a forward may come
from any jobs of one `BatchKey`: each carries its own timestep, conditioning and controls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from gpu_worker.engine.job import Picture
from gpu_worker.engine.model import ControlRows, Model, Rows, Tensors
from gpu_worker.engine.trajectory import Trajectory


def build_rows(pictures: Sequence[Picture]) -> Rows:
    """The rows of all pictures, in their order; every picture's work is a `Trajectory`."""
    samples: list[torch.Tensor] = []
    timesteps: list[torch.Tensor] = []
    conditioning: list[Tensors] = []
    for picture in pictures:
        work = _trajectory(picture)
        prompts = picture.job.conditioning.prompts
        samples += [work.sample()] * len(prompts)
        timesteps += [work.timestep[None]] * len(prompts)
        conditioning += [{**prompt, **work.fixed} for prompt in prompts]
    together = torch.cat(samples)
    return Rows(
        samples=together,
        timesteps=torch.cat(timesteps).to(together.device),
        conditioning={
            name: torch.cat([row[name] for row in conditioning]) for name in conditioning[0]
        },
        controls=_controls(pictures),
    )


def split_predictions(
    model: Model, pictures: Sequence[Picture], predictions: torch.Tensor
) -> Iterator[tuple[Picture, torch.Tensor]]:
    """Each picture with its own prediction (1, ...), guided where it asked for guidance."""
    at = 0
    for picture in pictures:
        own = predictions[at : at + picture.row_count]
        at += picture.row_count
        if picture.row_count == 1:
            yield picture, own
        else:
            negative, positive = own.chunk(2)
            yield picture, model.guide(negative, positive, _trajectory(picture).asked.guidance)


def guide(negative: torch.Tensor, positive: torch.Tensor, guidance: float) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): away from the negative prompt."""
    return negative + guidance * (positive - negative)


def _controls(pictures: Sequence[Picture]) -> tuple[ControlRows, ...]:
    found: list[ControlRows] = []
    for index, steer in enumerate(pictures[0].job.steers):
        images: list[torch.Tensor] = []
        scales: list[float] = []
        for picture in pictures:
            work = _trajectory(picture)
            scale = picture.job.steers[index].scale_at(work.position, len(work.timesteps))
            images += [picture.steers[index]] * picture.row_count
            scales += [scale] * picture.row_count
        together = torch.cat(images)
        if any(scales):
            exact = torch.tensor(scales, dtype=torch.float64)
            finest = torch.promote_types(together.dtype, torch.float32)
            found.append(ControlRows(steer.network, together, exact.to(together.device, finest)))
    return tuple(found)


def _trajectory(picture: Picture) -> Trajectory:
    assert isinstance(picture.work, Trajectory)  # noqa: S101 (whole runs never share a forward)
    return picture.work
