"""Models on disk and in memory: what is offered, what is refused and why, what stays loaded."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from easel_kit.errors import InvalidInput, InvalidState, NotFound
from easel_kit.ids import ModelKey, new_attempt_id
from gpu_worker.domain.drawing import Drawn, Failed, FailureKind, Stopped
from gpu_worker.domain.model import PictureSize
from gpu_worker.engine.cache import ModelCache
from gpu_worker.engine.catalogue import Catalogue, Entry
from gpu_worker.engine.device import choose_device, choose_dtype
from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.families.stable_diffusion import StableDiffusion
from gpu_worker.engine.model import Model, Rows
from gpu_worker.engine.samplers import SAMPLERS
from tests.fakes.gpu_worker import SHAPES, generation
from tests.fakes.gpu_worker_models import (
    MODELS_DIR,
    Gate,
    Wrapped,
    close,
    copy_model,
    draw,
    drawn,
    faulty,
    running_engine,
    write_preset,
)

OTHER = ModelKey("other")


def replace_file(path: Path, data: bytes) -> None:
    """Another file where a link to a real one is."""
    path.unlink()
    path.write_bytes(data)


def reason(models_dir: Path) -> str:
    (entry,) = Catalogue(models_dir, tuple(SAMPLERS)).entries()
    return entry.card.unavailable_reason


# --- the catalogue ----------------------------------------------------------------------------


def test_the_built_in_model_is_offered(engine: AsyncEngine) -> None:
    (card,) = (card for card in engine.models() if card.key == SHAPES)
    assert card.usable
    assert card.defaults.steps == 10
    assert card.defaults.guidance == 2.5
    assert card.sizes == (PictureSize(64, 64),)
    assert card.max_prompt_tokens == 22
    assert card.samplers == tuple(SAMPLERS)
    assert card.licence


def test_a_preset_may_offer_fewer_samplers(tmp_path: Path) -> None:
    copy_model(tmp_path, samplers=["ddim", "unheard-of"])
    (entry,) = Catalogue(tmp_path, tuple(SAMPLERS)).entries()
    assert entry.card.samplers == ("ddim",)


def test_other_things_in_the_folder_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "readme.txt").write_text("x", encoding="utf-8")
    assert Catalogue(tmp_path, ()).entries() == ()
    assert Catalogue(tmp_path / "absent", ()).entries() == ()


def test_the_first_of_two_models_of_one_key_counts(tmp_path: Path) -> None:
    copy_model(tmp_path, "a", name="first")
    copy_model(tmp_path, "b", name="second")
    (entry,) = Catalogue(tmp_path, tuple(SAMPLERS)).entries()
    assert entry.card.name == "first"


def _no_preset(path: Path) -> None:
    (path / "easel.json").unlink()


def _bad_preset(path: Path) -> None:
    write_preset(path, defaults={"steps": 0})


def _no_json(path: Path) -> None:
    replace_file(path / "easel.json", b"{")


def _unknown_default_sampler(path: Path) -> None:
    write_preset(path, samplers=["euler"])


def _no_index(path: Path) -> None:
    (path / "model_index.json").unlink()


def _index_no_json(path: Path) -> None:
    replace_file(path / "model_index.json", b"{")


def _other_pipeline(path: Path) -> None:
    replace_file(path / "model_index.json", json.dumps({"_class_name": "Strange"}).encode())


def _index_of_nothing(path: Path) -> None:
    replace_file(path / "model_index.json", b"[]")


def _no_tokenizer(path: Path) -> None:
    shutil.rmtree(path / "tokenizer")


def _no_weights(path: Path) -> None:
    (path / "vae" / "diffusion_pytorch_model.safetensors").unlink()


def _only_pickles(path: Path) -> None:
    _no_weights(path)
    (path / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")


def _cut_weights(path: Path) -> None:
    file = path / "unet" / "diffusion_pytorch_model.safetensors"
    replace_file(file, file.read_bytes()[:100_000])


def _dangling_weights(path: Path) -> None:
    file = path / "text_encoder" / "model.safetensors"
    file.unlink()
    file.symlink_to(path / "nowhere")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_no_preset, "easel.json is missing"),
        (_bad_preset, "easel.json: defaults.steps"),
        (_no_json, "easel.json: "),
        (_unknown_default_sampler, "default sampler"),
        (_no_index, "model_index.json is missing"),
        (_index_no_json, "model_index.json is no JSON"),
        (_other_pipeline, "class Strange"),
        (_index_of_nothing, "class None"),
        (_no_tokenizer, "tokenizer"),
        (_no_weights, "vae has no safetensors"),
        (_only_pickles, "vae has no safetensors"),
        (_cut_weights, "unet/diffusion_pytorch_model.safetensors is damaged"),
        (_dangling_weights, "text_encoder/model.safetensors is damaged"),
    ],
)
async def test_a_damaged_model_says_why_and_the_worker_draws_on(
    tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    damage(copy_model(tmp_path))
    assert told in reason(tmp_path)


async def test_a_damaged_model_does_not_harm_the_others(tmp_path: Path) -> None:
    copy_model(tmp_path)
    _cut_weights(copy_model(tmp_path, "other", key="other"))
    with running_engine(models_dir=tmp_path) as engine:
        outcome = await draw(engine, generation(model_key=OTHER))
        assert isinstance(outcome, Failed)
        assert (outcome.kind, outcome.code) == (FailureKind.TRANSIENT, "model_unavailable")
        assert "damaged" in outcome.message
        assert isinstance(await draw(engine, generation(steps=1)), Drawn)


async def test_weights_of_another_model_are_found_out_at_loading(tmp_path: Path) -> None:
    path = copy_model(tmp_path)
    file = path / "unet" / "diffusion_pytorch_model.safetensors"
    file.unlink()
    save_file({"conv_in.weight": torch.zeros(1, 2, 3, 4)}, file)
    with running_engine(models_dir=tmp_path) as engine:
        with pytest.raises(InvalidState, match="cannot be loaded"):
            await engine.load(SHAPES)
        (card,) = engine.models()
        assert "cannot be loaded" in card.unavailable_reason
        with pytest.raises(InvalidState, match="cannot be loaded"):
            await engine.warm_up(SHAPES)

        shutil.copy(MODELS_DIR / "shapes-64" / "unet" / file.name, file)
        assert (await engine.load(SHAPES)).usable
        assert isinstance(await draw(engine, generation(steps=1)), Drawn)


async def test_a_model_that_changed_its_key_is_not_served_under_the_old_one(
    tmp_path: Path,
) -> None:
    path = copy_model(tmp_path)
    with running_engine(models_dir=tmp_path) as engine:
        write_preset(path, key="renamed")
        with pytest.raises(InvalidState, match="names another key"):
            await engine.load(SHAPES)


async def test_a_model_that_cannot_draw_does_not_warm_up() -> None:
    def nothing(_model: Wrapped, rows: Rows) -> torch.Tensor:
        return torch.full_like(rows.samples, torch.nan)

    with (
        running_engine(faulty(nothing)) as engine,
        pytest.raises(InvalidState, match="cannot draw"),
    ):
        await engine.warm_up(SHAPES)


# --- memory -----------------------------------------------------------------------------------


async def test_loading_and_unloading_show_in_the_catalogue() -> None:
    with running_engine() as engine:
        assert not engine.models()[0].loaded
        assert (await engine.load(SHAPES)).loaded
        assert engine.models()[0].loaded
        assert (await engine.load(SHAPES)).loaded
        assert not (await engine.unload(SHAPES)).loaded
        assert not (await engine.unload(SHAPES)).loaded


async def test_unknown_models_are_not_found(engine: AsyncEngine) -> None:
    with pytest.raises(NotFound):
        await engine.load(OTHER)
    with pytest.raises(NotFound):
        await engine.unload(OTHER)
    outcome = await draw(engine, generation(model_key=OTHER))
    assert isinstance(outcome, Failed)
    assert outcome.code == "model_unavailable"


async def test_a_model_in_use_is_not_unloaded() -> None:
    with running_engine() as engine:
        heard = asyncio.Event()
        attempt_id = new_attempt_id()
        drawing = asyncio.ensure_future(
            engine.draw(attempt_id, generation(steps=100), {}, lambda _: heard.set())
        )
        await heard.wait()
        with pytest.raises(InvalidState, match="in use"):
            await engine.unload(SHAPES)
        engine.cancel(attempt_id)
        assert isinstance(await drawing, Stopped)
        await engine.unload(SHAPES)


async def test_many_who_want_a_model_share_one_load() -> None:
    loads = 0
    begin = threading.Event()

    def load(entry: Entry, dtype: torch.dtype) -> Model:
        nonlocal loads
        loads += 1
        assert begin.wait(20)
        return StableDiffusion.load(entry, dtype)

    with running_engine(load) as engine:
        asked = generation(steps=2)
        wanting = [asyncio.ensure_future(engine.load(SHAPES)) for _ in range(3)]
        drawing = [asyncio.ensure_future(drawn(engine, asked)) for _ in range(3)]
        gone = new_attempt_id()
        stopped = asyncio.ensure_future(engine.draw(gone, asked, {}, lambda _: None))
        await asyncio.sleep(0)
        engine.cancel(gone)
        assert await stopped == Stopped(0)  # while the model is still loading
        begin.set()
        await asyncio.gather(*wanting)
        pictures = await asyncio.gather(*drawing)
    assert loads == 1
    assert close(pictures[0], pictures[1])
    assert close(pictures[0], pictures[2])


async def test_who_waits_for_a_model_hears_of_the_end() -> None:
    begin, reached = threading.Event(), threading.Event()

    def load(entry: Entry, dtype: torch.dtype) -> Model:
        reached.set()
        assert begin.wait(20)
        return StableDiffusion.load(entry, dtype)

    with running_engine(load) as engine:
        wanting = asyncio.ensure_future(engine.load(SHAPES))
        drawing = asyncio.ensure_future(draw(engine, generation()))
        assert await asyncio.to_thread(reached.wait, 20)
        engine.close()
        outcome = await asyncio.wait_for(drawing, 20)
        assert isinstance(outcome, Failed)
        assert outcome.kind is FailureKind.WORKER
        with pytest.raises(InvalidState):
            await asyncio.wait_for(wanting, 20)
        with pytest.raises(InvalidState):
            await asyncio.wait_for(engine.load(SHAPES), 20)
        begin.set()


async def test_the_model_used_longest_ago_makes_room(tmp_path: Path) -> None:
    for key in ("a", "b", "c"):
        copy_model(tmp_path, key, key=key)
    with running_engine(models_dir=tmp_path, cache_bytes=40_000_000) as engine:

        async def use(key: str) -> list[str]:
            await drawn(engine, generation(model_key=ModelKey(key), steps=1))
            return [card.key for card in engine.models() if card.loaded]

        assert await use("a") == ["a"]
        assert await use("b") == ["a", "b"]
        assert await use("a") == ["a", "b"]
        assert await use("c") == ["a", "c"]


async def test_a_model_waits_until_one_in_use_makes_room(tmp_path: Path) -> None:
    for key in ("shapes-64", "other"):
        copy_model(tmp_path, key, key=key)
    gate = Gate()
    with running_engine(faulty(gate), models_dir=tmp_path, cache_bytes=20_000_000) as engine:
        first = asyncio.ensure_future(draw(engine, generation(steps=30)))
        assert await asyncio.to_thread(gate.reached.wait, 20)
        second = asyncio.ensure_future(draw(engine, generation(model_key=OTHER, steps=1)))
        await asyncio.sleep(0)
        gate.open.set()
        assert isinstance(await first, Drawn)
        assert isinstance(await second, Drawn)
        assert [card.key for card in engine.models() if card.loaded] == [OTHER]


async def test_a_model_larger_than_the_memory_for_models_is_refused() -> None:
    with running_engine(cache_bytes=1_000_000) as engine:
        outcome = await draw(engine, generation())
        assert isinstance(outcome, Failed)
        assert outcome.code == "model_unavailable"


async def test_a_model_that_does_not_fit_the_device_is_refused() -> None:
    class Huge(StableDiffusion):
        def move_to(self, device: torch.device) -> None:
            raise torch.OutOfMemoryError(str(device))

    with running_engine(Huge.load) as engine:
        with pytest.raises(InvalidState, match="memory"):
            await engine.load(SHAPES)
        assert isinstance(await draw(engine, generation()), Failed)


def test_weights_are_counted_once() -> None:
    with running_engine() as engine:
        entry = Catalogue(MODELS_DIR, tuple(SAMPLERS)).find(SHAPES)
        single = StableDiffusion.load(entry, torch.float32)
        half = StableDiffusion.load(entry, torch.float16)
        assert engine.models()
    assert 15_000_000 < single.size_bytes < 16_000_000
    assert 0.45 < half.size_bytes / single.size_bytes < 0.55
    assert half.dtype is torch.float16


def test_a_failed_load_is_forgotten() -> None:
    started: list[ModelKey] = []
    cache = ModelCache[Model](10, started.append, lambda: None)
    cache.abandon_loads(InvalidState("nothing waits"))
    assert started == []
    assert cache.used_bytes == 0


# --- devices ----------------------------------------------------------------------------------


def test_devices_are_known_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    for wrong in ("abacus", "cuda:99", "meta"):
        with pytest.raises(InvalidInput):
            choose_device(wrong)


def test_number_formats_are_known_by_name() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) is torch.float32
    assert choose_dtype("auto", torch.device("cuda", 0)) is torch.float16
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(InvalidInput):
        choose_dtype("float7", cpu)


async def test_the_status_names_device_and_memory(engine: AsyncEngine) -> None:
    status = engine.status()
    assert status.device == "cpu"
    assert 0 <= status.memory_used_bytes < status.memory_total_bytes
