"""One step of some pictures in one forward: nothing of theirs moves unless it succeeded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.job import Picture
from gpu_worker.engine.rows import build_rows, split_predictions
from gpu_worker.engine.trajectory import Trajectory
from gpu_worker.engine.whole import WholeRun


@dataclass(frozen=True, slots=True)
class Stepped:
    """What came of a picture's step: it moved on, or its numbers left their range."""

    picture: Picture
    finite: bool
    error: Exception | None = None
    preview: Raster | None = None


def take_step(pictures: Sequence[Picture], preview_interval_s: float) -> list[Stepped]:
    """Has all pictures take their next step.

    Args:
        pictures: of one batch key, none of them finished.
        preview_interval_s: a job is looked at no more often than this.

    Raises:
        Exception: the forward failed; no picture has moved.
    """
    first = pictures[0]
    if isinstance(first.work, WholeRun):
        first.work.advance()
        return [Stepped(first, finite=True)]
    model = first.job.stepper
    model.adapt(first.job.adaptations)
    rows = build_rows(pictures)
    predictions = model.denoise(rows)
    latents = (len(rows.samples), *first.work.latents.shape[1:])
    if predictions.shape != latents:
        # nobody's fault yet: the forward as a whole failed, and each will be tried alone
        raise ValueError(f"a forward gave {tuple(predictions.shape)} instead of {latents}")
    finite = torch.isfinite(predictions.flatten(1)).all(dim=1).tolist()
    stepped: list[Stepped] = []
    at = 0
    for picture, prediction in split_predictions(model, pictures, predictions):
        own, at = finite[at : at + picture.row_count], at + picture.row_count
        stepped.append(_advance(picture, prediction, preview_interval_s, finite=all(own)))
    return stepped


def _advance(
    picture: Picture, prediction: torch.Tensor, preview_interval_s: float, *, finite: bool
) -> Stepped:
    if not finite:
        return Stepped(picture, finite=False)
    preview: Raster | None = None
    work = picture.work
    assert isinstance(work, Trajectory)  # noqa: S101 (whole runs step elsewhere)
    try:
        if _preview_due(picture, preview_interval_s):
            preview = _look(picture, work, prediction)
        work.advance(prediction)
    except Exception as error:  # noqa: BLE001 (the engine judges it; the neighbours go on)
        return Stepped(picture, finite=True, error=error)
    return Stepped(picture, finite=True, preview=preview)


def _preview_due(picture: Picture, interval_s: float) -> bool:
    now_s = time.monotonic()
    if now_s - picture.job.last_preview_s < interval_s:
        return False
    picture.job.last_preview_s = now_s
    return True


def _look(picture: Picture, work: Trajectory, prediction: torch.Tensor) -> Raster:
    model = picture.job.stepper
    estimate = model.estimate(work.scheduler, work.scaled(), prediction, work.timestep)
    return model.look(estimate, work.asked.width_px, work.asked.height_px)
