"""Adapters on the shared model: each job has exactly its own, as stock diffusers applies them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from safetensors.torch import load_file

from easel_kit.ids import ModelKey
from gpu_worker.domain.drawing import Failed, FailureKind
from gpu_worker.domain.generation import Generation, Lora
from gpu_worker.engine import adapters
from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.model import Adaptation
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import (
    Recorder,
    Stock,
    copy_model,
    draw,
    drawn,
    running_engine,
)
from tests.fakes.gpu_worker_stock import Result, close, drawn_by_stock, drawn_by_us, same
from tests.fakes.gpu_worker_weights import lora_file, peft_file, save_lora

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")

Stack = tuple[tuple[str, float], ...]


def adapted(stack: Stack, **changes: object) -> Generation:
    loras = tuple(Lora(ModelKey(key), weight) for key, weight in stack)
    return generation(loras=loras, steps=4, **changes)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory, stock: Stock) -> Path:
    path = tmp_path_factory.mktemp("models")
    copy_model(path)
    lora_file(path, "ink", stock, 1)
    lora_file(path, "oil.v2", stock, 2, rank=2)
    peft_file(path, "line", stock, 3)
    save_lora(path, "alien", {"lora_unet_no_such_place.lora_down.weight": torch.ones(2, 2)})
    whole = load_file(lora_file(path, "wide", stock, 4, rank=3) / "weights.safetensors")
    cut = {name: one[:, :5] if "lora_down" in name else one for name, one in whole.items()}
    save_lora(path, "cut", {name: one.contiguous() for name, one in cut.items()})
    return path


@pytest.fixture(scope="module")
def own_recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def own_engine(models_dir: Path, own_recorder: Recorder) -> Iterator[AsyncEngine]:
    with running_engine(own_recorder, models_dir=models_dir) as running:
        yield running


def by_stock(stock: Stock, models_dir: Path, stack: Stack, **changes: object) -> Result:
    try:
        for key, _ in stack:
            file = models_dir / key / "weights.safetensors"
            stock.load_lora_weights(load_file(file), adapter_name=key.replace(".", "_"))
        if stack:
            names = [key.replace(".", "_") for key, _ in stack]
            stock.set_adapters(names, adapter_weights=[weight for _, weight in stack])
        return drawn_by_stock(stock, adapted(stack, **changes))
    finally:
        stock.unload_lora_weights()


@pytest.mark.parametrize(
    "stack",
    [(("ink", 1.0),), (("line", 0.7),), (("ink", 0.6), ("oil.v2", -0.4), ("line", 1.2))],
)
async def test_alone_it_is_bitwise_stock(
    own_engine: AsyncEngine, own_recorder: Recorder, stock: Stock, models_dir: Path, stack: Stack
) -> None:
    ours = await drawn_by_us(own_engine, own_recorder, adapted(stack))
    assert same(ours, by_stock(stock, models_dir, stack))
    assert not close(ours, by_stock(stock, models_dir, ()))  # the adapters are to be seen


async def test_the_model_comes_back_bit_for_bit(
    own_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    before = await drawn(own_engine, generation())
    await drawn(own_engine, adapted((("ink", 1.0),)))
    assert await drawn(own_engine, generation()) == before
    assert before == await drawn(engine, generation())


async def test_jobs_with_different_adapters_take_turns(
    own_engine: AsyncEngine, own_recorder: Recorder, stock: Stock, models_dir: Path
) -> None:
    stacks: list[Stack] = [(("ink", 1.0),), (("ink", 0.3), ("line", 1.0)), ()]
    jobs = [adapted(stack, seed=50 + index) for index, stack in enumerate(stacks)]
    outcomes = await asyncio.gather(*(drawn(own_engine, asked) for asked in jobs))
    for index, (stack, outcome) in enumerate(zip(stacks, outcomes, strict=True)):
        ours = (own_recorder.made[-1].latents[50 + index], outcome.pictures[0].raster.rgb)
        assert same(ours, by_stock(stock, models_dir, stack, seed=50 + index))


@pytest.mark.parametrize("key", ["alien", "cut"])
async def test_one_that_does_not_fit_is_named_and_leaves_nothing(
    own_engine: AsyncEngine, engine: AsyncEngine, key: str
) -> None:
    outcome = await draw(own_engine, adapted(((key, 1.0),)))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.kind) == ("invalid_request", FailureKind.CALLER)
    assert key in outcome.message
    assert await drawn(own_engine, generation()) == await drawn(engine, generation())


async def test_one_named_twice_is_refused(own_engine: AsyncEngine) -> None:
    outcome = await draw(own_engine, adapted((("ink", 0.5), ("ink", 0.5))))
    assert isinstance(outcome, Failed)
    assert "ink is named twice" in outcome.message


def test_a_long_row_of_adapters_leaves_few_behind(
    monkeypatch: pytest.MonkeyPatch, stock: Stock, models_dir: Path
) -> None:
    monkeypatch.setattr(adapters, "_KEPT", 2)
    host = adapters.Adapters(
        StableDiffusionLoraLoaderMixin, unet=stock.unet, text_encoder=stock.text_encoder
    )
    tensors = load_file(models_dir / "ink" / "weights.safetensors")
    plain = sum(1 for _ in stock.unet.parameters())
    sizes = set()
    for index in range(5):
        host.adapt([Adaptation(ModelKey(f"a{index}"), adapters.Adapter(dict(tensors), 1), 1.0)])
        sizes.add(sum(1 for _ in stock.unet.parameters()))
    assert host.inside == 2
    assert len(sizes) == 2  # one adapter inside, then never more than two
    stock.unload_lora_weights()
    assert sum(1 for _ in stock.unet.parameters()) == plain


async def test_an_adapter_left_on_is_seen(models_dir: Path, stock: Stock) -> None:
    """The comparison itself must be able to fail."""
    recorder = Recorder()
    with running_engine(recorder, models_dir=models_dir) as engine:  # its prompts are spoilt too
        await drawn(engine, adapted((("ink", 1.0),)))
        recorder.made[-1].adapt = lambda _: None  # type: ignore[attr-defined]
        ours = await drawn_by_us(engine, recorder, generation(steps=4, seed=99))
    assert not close(ours, by_stock(stock, models_dir, (), seed=99))
