"""Rows of one forward: which jobs' latents go in, and what each gets back.

A picture brings one row, or two with guidance (negative prompt first). Rows of a forward may come
from any jobs of one model and latent shape: each carries its own timestep and conditioning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from gpu_worker.engine.job import JobState, Rows


def build_rows(jobs: Sequence[JobState]) -> Rows:
    """The rows of every job's current picture, in the order of the jobs."""
    samples: list[torch.Tensor] = []
    timesteps: list[torch.Tensor] = []
    conditioning: list[torch.Tensor] = []
    for job in jobs:
        picture = job.current
        prompts = [job.conditioning.text]
        if job.conditioning.empty is not None:
            prompts.insert(0, job.conditioning.empty)
        samples += [picture.scaled_sample()] * len(prompts)
        timesteps += [picture.timestep[None]] * len(prompts)
        conditioning += prompts
    together = torch.cat(samples)
    return Rows(together, torch.cat(timesteps).to(together.device), torch.cat(conditioning))


def split_predictions(
    jobs: Sequence[JobState], predictions: torch.Tensor
) -> Iterator[tuple[JobState, torch.Tensor]]:
    """Each job with its own prediction (1, channels, h, w), guided where it asked for guidance.

    Guidance is classifier-free (Ho and Salimans, 2022): away from the negative prompt.
    """
    at = 0
    for job in jobs:
        own = predictions[at : at + job.row_count]
        at += job.row_count
        if job.row_count == 1:
            yield job, own
        else:
            empty, text = own.chunk(2)
            yield job, empty + job.asked.guidance * (text - empty)
