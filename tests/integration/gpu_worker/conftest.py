"""One engine and one stock pipeline for all tests of a process: torch takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gpu_worker.engine.face import AsyncEngine
from tests.fakes.gpu_worker_models import SHAPES_DIR, Recorder, Stock, running_engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration/gpu_worker" in item.nodeid:
            item.add_marker(pytest.mark.xdist_group("torch"))
            # numpy's word to torch, said where diffusers makes its timesteps
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    """Of the shared engine."""
    return Recorder()


@pytest.fixture(scope="session")
def engine(recorder: Recorder) -> Iterator[AsyncEngine]:
    """A real engine over the real model; leave it as it was."""
    with running_engine(recorder) as running:
        yield running


@pytest.fixture(scope="session")
def stock() -> Stock:
    """Diffusers' own pipeline of the same model."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (  # noqa: PLC0415
        StableDiffusionPipeline,
    )

    pipeline = StableDiffusionPipeline.from_pretrained(
        SHAPES_DIR, dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
