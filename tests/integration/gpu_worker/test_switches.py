"""Trades of exactness for memory and speed: applied at load, refused where they cannot work."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from easel_kit.errors import InvalidInput
from easel_kit.settings import load_settings
from gpu_worker import main
from gpu_worker.domain.drawing import Raster
from gpu_worker.engine.catalogue import Catalogue
from gpu_worker.engine.device import choose_device
from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.families.loading import load_part
from gpu_worker.engine.served import SAMPLER_NAMES
from gpu_worker.engine.switches import Switchable, Switches, apply_switches, check_switches
from gpu_worker.settings import Settings
from tests.fakes.gpu_worker import SHAPES, generation
from tests.fakes.gpu_worker_models import MODELS_DIR, drawn, running_engine

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
needs_accelerator = pytest.mark.skipif(
    choose_device("auto").type == "cpu", reason="needs an accelerator: there is none"
)


def pixels(raster: Raster) -> np.ndarray:
    return np.frombuffer(raster.rgb, np.uint8).astype(int)


def loaded(dtype: torch.dtype = torch.float32) -> Switchable:
    part = load_part(Catalogue(MODELS_DIR, SAMPLER_NAMES).find(SHAPES), dtype)
    assert isinstance(part, Switchable)
    return part


@pytest.mark.parametrize(
    ("switches", "field"),
    [
        (Switches(compile_blocks=True), "compile_blocks"),
        (Switches(group_offload=True), "group_offload"),
        (Switches(attention_backend="flash"), "attention_backend"),
        (Switches(attention_backend="unheard-of"), "attention_backend"),
    ],
)
def test_what_cannot_work_on_a_cpu_is_refused_at_start(switches: Switches, field: str) -> None:
    with pytest.raises(InvalidInput, match=field), running_engine(switches=switches):
        pass


@pytest.mark.parametrize(
    ("switches", "field"),
    [
        (Switches(attention_backend="flash_hub"), "attention_backend"),
        (Switches(fp8_storage=True, group_offload=True), "fp8_storage"),
    ],
)
def test_what_cannot_work_anywhere_is_refused(switches: Switches, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        check_switches(switches, CUDA)


@pytest.mark.skipif(importlib.util.find_spec("torchao") is not None, reason="torchao is there")
def test_a_missing_library_is_named() -> None:
    with pytest.raises(InvalidInput, match="torchao"):
        check_switches(Switches(int8_weights=True), CPU)


@pytest.mark.parametrize(
    ("switches", "levels"),
    [
        (Switches(channels_last=True), 1),
        (Switches(attention_backend="native"), 0),
        (Switches(fp8_storage=True), 160),
    ],
    ids=["channels-last", "attention", "fp8"],
)
async def test_it_draws_nearly_the_same(
    engine: AsyncEngine, switches: Switches, levels: int
) -> None:
    asked = generation(steps=6)
    (usual,) = (await drawn(engine, asked)).pictures
    with running_engine(switches=switches) as switched:
        (picture,) = (await drawn(switched, asked)).pictures
    difference = np.abs(pixels(usual.raster) - pixels(picture.raster))
    assert difference.max() <= levels
    assert difference.mean() <= 4


def test_narrow_weights_take_less_memory() -> None:
    part = loaded()
    before = part.size_bytes
    apply_switches(part, Switches(fp8_storage=True), CPU, torch.float32)
    assert part.size_bytes < before
    assert part.denoiser.dtype is torch.float32  # what it computes in


def test_blocks_are_compiled_where_there_are_some() -> None:
    part = loaded()
    apply_switches(part, Switches(compile_blocks=True), CUDA, torch.float32)
    compiled = [module for module in part.denoiser.modules() if module._compiled_call_impl]
    assert {type(module).__name__ for module in compiled} == {"BasicTransformerBlock"}


def test_settings_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "SCHEDULER_ADDRESS": "127.0.0.1:7002",
        "OBJECTS__URL": "file:///objects",
        "MODELS_DIR": "/models",
        "CHANNELS_LAST": "true",
        "COMPILE_BLOCKS": "true",
        "ATTENTION_BACKEND": "native",
        "FP8_STORAGE": "true",
        "INT8_WEIGHTS": "true",
        "GROUP_OFFLOAD": "true",
    }
    for name, value in told.items():
        monkeypatch.setenv(f"WORKER_{name}", value)
    options = main._engine_options(load_settings(Settings))
    assert options.switches == Switches(
        channels_last=True,
        compile_blocks=True,
        attention_backend="native",
        fp8_storage=True,
        int8_weights=True,
        group_offload=True,
    )


def test_switched_off_nothing_changes() -> None:
    part = loaded()
    before = {name: value.clone() for name, value in part.denoiser.state_dict().items()}
    apply_switches(part, Switches(), CPU, torch.float32)
    assert all(torch.equal(before[k], v) for k, v in part.denoiser.state_dict().items())


@pytest.mark.gpu
@needs_accelerator
@pytest.mark.parametrize(
    "switches",
    [
        Switches(channels_last=True),
        Switches(compile_blocks=True),
        Switches(fp8_storage=True),
        Switches(group_offload=True),
    ],
    ids=["channels-last", "compile", "fp8", "offload"],
)
async def test_on_an_accelerator_it_draws_nearly_the_same(switches: Switches) -> None:
    asked = generation(steps=6)
    with running_engine(device="auto") as usual:
        (one,) = (await drawn(usual, asked)).pictures
    with running_engine(device="auto", switches=switches) as switched:
        (two,) = (await drawn(switched, asked)).pictures
    assert np.abs(pixels(one.raster) - pixels(two.raster)).mean() <= 4
