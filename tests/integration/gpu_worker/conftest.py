"""One engine and one stock pipeline for all tests of a process: torch takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
    StableDiffusionPipeline,
)
from structlog.testing import capture_logs

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


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; outside of it a traceback would print whole tensors."""
    with capture_logs() as entries:
        yield entries


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
    return _pipeline(torch.float32)


@pytest.fixture(scope="session")
def stock_double() -> Stock:
    """The same in double precision."""
    return _pipeline(torch.float64)


def _pipeline(dtype: torch.dtype) -> Stock:
    pipeline = StableDiffusionPipeline.from_pretrained(
        SHAPES_DIR, dtype=dtype, local_files_only=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
