"""On an accelerator: the same pictures as on the CPU, within what other kernels round."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.device import choose_device
from gpu_worker.engine.face import AsyncEngine
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import drawn, running_engine
from tests.shapes import check

PROMPT = "a large red circle on a white background"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        choose_device("auto").type == "cpu", reason="needs an accelerator: there is none"
    ),
]


def pixels(raster: Raster) -> np.ndarray:
    shape = (raster.height_px, raster.width_px, 3)
    return np.frombuffer(raster.rgb, np.uint8).reshape(shape).astype(int)


async def test_single_precision_differs_by_one_level_at_most(engine: AsyncEngine) -> None:
    asked = generation(prompt=PROMPT)
    here = await drawn(engine, asked)
    with running_engine(device="auto") as accelerated:
        there = await drawn(accelerated, asked)
    difference = np.abs(pixels(here.pictures[0].raster) - pixels(there.pictures[0].raster))
    assert difference.max() <= 1


async def test_half_precision_draws_what_was_asked() -> None:
    with running_engine(device="auto", dtype="auto") as accelerated:
        outcome = await drawn(accelerated, generation(prompt=PROMPT))
    picture = Image.fromarray(pixels(outcome.pictures[0].raster).astype(np.uint8))
    assert check(picture, PROMPT).all_right
    assert torch.cuda.memory_allocated() > 0 or torch.backends.mps.is_available()
