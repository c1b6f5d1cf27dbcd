"""The catalogue: models of several sources, what is said of them, what becomes of wrong ones."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer
from safetensors.torch import save_file

from easel_kit.errors import DependencyDown, InvalidInput, InvalidState, NotFound
from easel_kit.ids import ModelKey
from gpu_worker.engine.catalogue import Catalogue, Entry
from gpu_worker.engine.catalogue_file import read_catalogue_file
from gpu_worker.engine.families.stable_diffusion import StableDiffusion
from gpu_worker.engine.preset import Listed, Preset
from gpu_worker.engine.served import PIPELINES, SAMPLER_NAMES, SERVED, served_as, served_pipelines
from gpu_worker.main import open_model_files
from gpu_worker.ports import ModelFiles
from gpu_worker.settings import Settings
from tests.fakes.gpu_worker_fetch import open_store
from tests.fakes.gpu_worker_hub import COMMIT, FakeHub, running_hub
from tests.fakes.gpu_worker_models import SHAPES_DIR, copy_model

GUIDE = Path(__file__).parents[3] / "docs" / "operations" / "models.md"
DEFAULTS = """
defaults = {steps = 7, guidance = 2.0, width_px = 64, height_px = 64, sampler = "euler"}
"""
SHAPES_FILES = {
    str(path.relative_to(SHAPES_DIR)): path.read_bytes()
    for path in SHAPES_DIR.rglob("*")
    if path.is_file()
}
X = ModelKey("x")


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def __call__(self) -> float:
        return self.time_s


def listing(folder: Path, *models: str) -> Path:
    file = folder / "catalogue.toml"
    file.write_text("".join(f"[[model]]\n{model}\n" for model in models), encoding="utf-8")
    return file


def model(source: str, *more: str, key: str = "x") -> str:
    lines = (f'key = "{key}"', 'name = "X"', 'base = "sd-1"', f'source = "{source}"', *more)
    return "\n".join(lines)


def catalogue(folder: Path, *models: str, files: ModelFiles | None = None) -> Catalogue:
    return Catalogue(
        folder / "models", SAMPLER_NAMES, catalogue_file=listing(folder, *models), files=files
    )


def only(folder: Path, *lines: str, source: str = "pipe", files: ModelFiles | None = None) -> Entry:
    return catalogue(folder, model(source, *lines), files=files).find(X)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub(FakeHub(dict(SHAPES_FILES))) as running:
        yield running


# --- what is listed -----------------------------------------------------------------------------


def test_a_folder_brings_its_preset_and_the_file_wins(tmp_path: Path) -> None:
    copy_model(tmp_path, "pipe", known_words=["Red", "circle"], max_steps=33)
    entry = only(tmp_path, "defaults = {steps = 7}", "price_factor = 2.0")
    card = entry.card
    assert card.usable, card.unavailable_reason
    assert (card.key, card.name, card.max_steps) == ("x", "X", 33)
    assert (card.defaults.steps, card.defaults.guidance) == (7, 2.5)
    assert card.licence == "MIT"
    assert entry.known_words == frozenset({"red", "circle"})
    assert entry.path == tmp_path / "pipe"
    assert entry.pipeline == "StableDiffusionPipeline"
    assert card.features == SERVED["StableDiffusionPipeline"].features


def test_size_and_memory_are_those_of_the_weights(tmp_path: Path) -> None:
    copy_model(tmp_path, "pipe")
    entry = only(tmp_path)
    weights = [data for name, data in SHAPES_FILES.items() if name.endswith(".safetensors")]
    assert entry.card.size_bytes == sum(map(len, weights))
    loaded = StableDiffusion.load(entry, torch.float32)
    assert 0.95 < entry.memory_bytes(4) / loaded.size_bytes < 1.05


def test_a_folder_without_a_preset_is_described_by_the_file_alone(tmp_path: Path) -> None:
    (copy_model(tmp_path, "pipe") / "easel.json").unlink()
    card = only(tmp_path, DEFAULTS).card
    assert card.usable, card.unavailable_reason
    assert card.defaults.steps == 7


def test_an_entry_comes_before_a_child_of_its_key_and_instead_of_its_source(
    tmp_path: Path,
) -> None:
    copy_model(tmp_path / "models", "a", key="x", name="child")
    copy_model(tmp_path / "models", "b", key="b")
    copy_model(tmp_path / "models", "c", key="c")
    found = catalogue(tmp_path, model("models/b")).entries()
    assert [(entry.card.key, entry.card.name) for entry in found] == [
        ("c", "Shapes 64"),
        ("x", "X"),
    ]


def test_loras_and_controlnets_are_listed(tmp_path: Path) -> None:
    for folder in ("lora", "net"):
        (tmp_path / folder).mkdir()
    numbers = {"a": torch.zeros(2, 3)}
    save_file(numbers, tmp_path / "lora" / "ink.safetensors")
    save_file(numbers, tmp_path / "net" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "net" / "config.json").write_text("{}", encoding="utf-8")
    found = catalogue(
        tmp_path,
        model("lora", 'type = "lora"', key="l"),
        model("lora/ink.safetensors", 'type = "lora"', key="f"),
        model("net", 'type = "controlnet"', key="n"),
    )
    for key, path in (
        ("l", tmp_path / "lora" / "ink.safetensors"),
        ("f", tmp_path / "lora" / "ink.safetensors"),
        ("n", tmp_path / "net"),
    ):
        entry = found.find(ModelKey(key))
        assert entry.card.usable, entry.card.unavailable_reason
        assert (entry.path, entry.pipeline, entry.weights) == (path, "", 6)
        assert entry.card.features == entry.card.samplers == ()


@pytest.mark.parametrize(
    ("files", "kind", "more", "told"),
    [
        ([], "lora", "", "no safetensors weights"),
        (["a.ckpt"], "lora", "", "only pickles, which are never loaded"),
        (["a.safetensors", "b.safetensors"], "lora", "", "several .safetensors files"),
        (["a.safetensors"], "lora", 'file = "c.safetensors"', "c.safetensors is missing"),
        (["diffusion_pytorch_model.safetensors"], "controlnet", "", "config.json is missing"),
        (["config.json", "diffusion_pytorch_model.bin"], "controlnet", "", "only pickles"),
    ],
)
def test_what_a_lora_or_controlnet_lacks_is_told(
    tmp_path: Path, files: list[str], kind: str, more: str, told: str
) -> None:
    (tmp_path / "pipe").mkdir()
    for name in files:
        (tmp_path / "pipe" / name).write_bytes(b"{}")
    assert told in only(tmp_path, f'type = "{kind}"', more).card.unavailable_reason


def test_missing_shards_are_told(tmp_path: Path) -> None:
    unet = copy_model(tmp_path, "pipe") / "unet"
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "shard-2.safetensors"}}), encoding="utf-8")
    assert only(tmp_path).card.unavailable_reason == "unet lacks shard-2.safetensors"
    index.write_text("{", encoding="utf-8")
    assert "index.json of unet is damaged" in only(tmp_path).card.unavailable_reason


def test_every_pipeline_of_diffusers_is_served_and_features_follow_its_class(
    tmp_path: Path,
) -> None:
    assert set(SERVED) <= served_pipelines()
    assert set(PIPELINES.values()) <= served_pipelines()
    index = copy_model(tmp_path, "pipe") / "model_index.json"
    said = json.loads(index.read_bytes())
    index.unlink()
    for pipeline, sampler in (
        ("PixArtSigmaPipeline", "default"),
        ("FluxPipeline", "flow_euler"),
        ("StableDiffusionXLPipeline", "ddim"),
    ):
        index.write_text(json.dumps(said | {"_class_name": pipeline}), encoding="utf-8")
        served = served_as(pipeline)
        entry = only(tmp_path, f'defaults = {{sampler = "{sampler}"}}')
        assert entry.card.usable, entry.card.unavailable_reason
        assert (entry.pipeline, entry.card.features) == (pipeline, served.features)
        assert entry.card.samplers == served.samplers
        wrong = only(tmp_path, 'defaults = {sampler = "none"}')
        assert f"must be one of {', '.join(served.samplers)}" in wrong.card.unavailable_reason


# --- wrong entries ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (model("pipe", "max_steps = 0"), "catalogue.toml: model 1: max_steps: "),
        (model("pipe", "defaults = {steps = 0}"), "model 1: defaults.steps: "),
        (model("none", "defaults = {steps = 1}"), "model 1: defaults.guidance: a main model"),
        (model("pipe", 'sampler = "x"'), "model 1: sampler: is not known"),
        (model("pipe", "[model.sha256]", '"a" = "12"'), "sha256: a: must be 64 hex"),
        (model("pipe", 'type = "vae"'), "model 1: type: "),
        (model("x.ckpt"), "source: .ckpt files are pickles"),
        (model("ftp://x/y"), "source: must be a path"),
        (model("s3://bucket"), "source: must be s3://bucket/prefix"),
        (model("hub:name"), "source: must be hub:organisation/name@revision"),
        (model("hub:a/b@main"), "source: the revision must be a commit"),
        ('key = "x"', "model 1: source: "),
        (model("absent", DEFAULTS), "its files are missing"),
        (model(f"hub:a/b@{COMMIT}", DEFAULTS), "fetches no models"),
        (model("pipe", 'samplers = ["ddim"]', DEFAULTS), "the default sampler must be one of ddim"),
    ],
)
def test_a_wrong_entry_is_unavailable_and_names_the_field(
    tmp_path: Path, entry: str, told: str
) -> None:
    copy_model(tmp_path, "pipe")
    copy_model(tmp_path, "good")
    found = catalogue(tmp_path, entry, model("good", key="good"))
    assert told in found.find(X).card.unavailable_reason
    assert found.find(ModelKey("good")).card.usable


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[model]", "is no TOML"),
        ("[[models]]\nkey = 'x'", "models: is not known"),
        ("[model]\nkey = 'x'", r"must be written as \[\[model\]\]"),
        ("[[model]]\nkey = 'No key'", "model 1: key: "),
        ("[[model]]\nsource = 'x'", "model 1: key: "),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "catalogue.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=told):
        Catalogue(tmp_path, (), catalogue_file=file)
    with pytest.raises(InvalidInput, match="cannot be read"):
        Catalogue(tmp_path, (), catalogue_file=tmp_path / "absent.toml")


# --- remote models ------------------------------------------------------------------------------


def test_a_model_of_a_hub_is_fetched_when_it_is_loaded(tmp_path: Path, hub: FakeHub) -> None:
    hub.files["easel.json"] = json.dumps({"known_words": ["red"], "name": "theirs"}).encode()
    files = open_store(tmp_path / "cache", limit_bytes=2**30, hub=hub.endpoint)
    entry_text = model(f"hub:org/model@{COMMIT}", DEFAULTS, "size_bytes = 5")
    found = catalogue(tmp_path, entry_text, files=files)
    entry = found.find(X)
    assert entry.card.usable
    assert (entry.path, entry.card.size_bytes, entry.memory_bytes(4)) == (Path(), 5, 5)
    assert entry.pipeline == "StableDiffusionPipeline"  # by its base
    assert hub.asked == []
    with found.at_hand(entry) as local:
        assert local.card.name == "X"
        assert local.known_words == frozenset({"red"})
        assert StableDiffusion.load(local, torch.float32).size_bytes > 10_000_000
    found.loaded(local)
    assert found.find(X).weights > 0
    again = catalogue(tmp_path, entry_text, files=files).find(X)
    assert again == local  # a later start knows it all without asking the hub


def test_a_model_of_a_bucket_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint)
        client.create_bucket(Bucket="shelf")
        for name, data in SHAPES_FILES.items():
            client.put_object(Bucket="shelf", Key=f"shapes/{name}", Body=data)
        files = open_store(tmp_path / "cache", limit_bytes=2**30, s3=endpoint)
        found = catalogue(tmp_path, model("s3://shelf/shapes", DEFAULTS), files=files)
        with found.at_hand(found.find(X)) as local:
            assert StableDiffusion.load(local, torch.float32).size_bytes > 10_000_000
    finally:
        server.stop()


def test_a_remote_model_that_is_away_raises_and_is_tried_again(
    tmp_path: Path, hub: FakeHub
) -> None:
    files = open_store(tmp_path / "cache", limit_bytes=2**30)
    found = catalogue(tmp_path, model(f"hub:org/model@{COMMIT}", DEFAULTS), files=files)
    with pytest.raises(DependencyDown), found.at_hand(found.find(X)):
        pass
    hub.files = {"model.bin": b""}
    files = open_store(tmp_path / "cache", limit_bytes=2**30, hub=hub.endpoint)
    found = catalogue(tmp_path, model(f"hub:org/model@{COMMIT}", DEFAULTS), files=files)
    with pytest.raises(InvalidState, match="only pickles"), found.at_hand(found.find(X)):
        pass


def test_fetched_files_that_a_loader_chokes_on_are_checked_and_fetched_again(
    tmp_path: Path, hub: FakeHub
) -> None:
    files = open_store(tmp_path / "cache", limit_bytes=2**30, hub=hub.endpoint)
    found = catalogue(tmp_path, model(f"hub:org/model@{COMMIT}", DEFAULTS), files=files)
    with found.at_hand(found.find(X)) as local:
        config = local.path / "unet" / "config.json"
    right = config.read_bytes()
    config.write_bytes(b"x" * len(right))
    with pytest.raises(OSError, match="config"), found.at_hand(found.find(X)) as local:
        StableDiffusion.load(local, torch.float32)
    with found.at_hand(found.find(X)) as local:
        assert config.read_bytes() == right


def test_a_checkpoint_of_a_bucket_takes_its_config_from_a_hub(tmp_path: Path, hub: FakeHub) -> None:
    file = tmp_path / "one.safetensors"
    save_file({"w": torch.zeros(3)}, file)
    files = open_store(tmp_path / "cache", limit_bytes=2**30, hub=hub.endpoint)
    text = model("one.safetensors", DEFAULTS, f'config = "hub:org/model@{COMMIT}"')
    found = catalogue(tmp_path, text, files=files)
    assert found.find(X).card.usable
    with found.at_hand(found.find(X)) as local:
        assert local.path == file
        assert local.config is not None
        assert (local.config / "tokenizer" / "tokenizer.json").is_file()
        assert not list(local.config.rglob("*.safetensors"))


# --- repair -------------------------------------------------------------------------------------


def test_a_repaired_model_is_looked_at_again_after_a_back_off(tmp_path: Path) -> None:
    clock = Clock()
    path = copy_model(tmp_path / "models", "x", key="x")
    shutil.rmtree(path / "unet")
    found = Catalogue(tmp_path / "models", SAMPLER_NAMES, now=clock)
    assert "unet is missing" in found.find(X).card.unavailable_reason
    waits = []
    for _ in range(8):
        began = clock.time_s
        assert found.due() == ()
        while not found.due():
            clock.time_s += 1
        waits.append(clock.time_s - began)
        found.put(found.read(X))  # as broken as before
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]
    shutil.copytree(SHAPES_DIR / "unet", path / "unet")
    clock.time_s += 900
    assert found.due() == (X,)
    found.put(found.read(X))
    assert found.find(X).card.usable
    found.loaded(found.find(X))
    assert found.due() == ()


def test_an_operator_need_not_wait(tmp_path: Path) -> None:
    copy_model(tmp_path, "pipe")
    found = catalogue(tmp_path, model("pipe"))
    found.mark_unavailable(X, "broken")
    assert found.find(X).card.unavailable_reason == "broken"
    listing(tmp_path, model("pipe", "max_steps = 3"))
    assert found.refresh(X).card.max_steps == 3  # the file is read again too
    assert found.find(X).card.usable


def test_an_entry_that_is_gone_or_unreadable_is_unavailable_after_a_refresh(
    tmp_path: Path,
) -> None:
    copy_model(tmp_path, "pipe")
    found = catalogue(tmp_path, model("pipe"))
    listing(tmp_path, model("pipe", key="y"))
    assert "does not list it any more" in found.refresh(X).card.unavailable_reason
    (tmp_path / "catalogue.toml").write_text("[[", encoding="utf-8")
    assert "is no TOML" in found.refresh(X).card.unavailable_reason
    listing(tmp_path, model("pipe"))
    assert found.refresh(X).card.usable
    with pytest.raises(NotFound):
        found.refresh(ModelKey("y"))


# --- the guide ----------------------------------------------------------------------------------


def test_the_examples_of_the_guide_are_right(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    copy_model(tmp_path, "models/shapes-64")
    (tmp_path / "controlnets" / "canny").mkdir(parents=True)
    file = tmp_path / "catalogue.toml"
    file.write_text("\n".join(blocks), encoding="utf-8")
    assert all(not record.fault for record in read_catalogue_file(file))
    files = open_store(tmp_path / "cache")
    found = Catalogue(tmp_path / "none", SAMPLER_NAMES, catalogue_file=file, files=files)
    reasons = {entry.card.key: entry.card.unavailable_reason for entry in found.entries()}
    assert reasons.pop(ModelKey("edges")) == "config.json is missing"  # an empty folder, here
    assert set(reasons.values()) == {""}, reasons
    assert found.find(ModelKey("sdxl")).pipeline == "StableDiffusionXLPipeline"


def test_the_guide_names_every_field_and_setting() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for name in {*Preset.model_fields, *Listed.model_fields}:
        assert f"`{name}`" in text, name
    for name in Settings.model_fields:
        if name.startswith("model_") or name == "catalogue_file":
            assert f"`WORKER_{name.upper()}`" in text, name


# --- settings -----------------------------------------------------------------------------------


def settings(folder: Path, **more: object) -> Settings:
    needed = {"scheduler_address": "127.0.0.1:1", "models_dir": folder / "models"}
    return Settings.model_validate({**needed, "objects": {"url": folder.as_uri()}, **more})


def test_the_settings_say_where_models_come_from(tmp_path: Path, hub: FakeHub) -> None:
    hub.token = "secret"
    token = tmp_path / "token"
    token.write_text("secret\n", encoding="utf-8")
    files = open_model_files(
        settings(
            tmp_path,
            model_disk_cache_dir=tmp_path / "cache",
            model_hub_endpoint=hub.endpoint,
            model_hub_token_file=token,
        ),
        lambda: False,
    )
    found = catalogue(tmp_path, model(f"hub:org/model@{COMMIT}", DEFAULTS), files=files)
    with found.at_hand(found.find(X)) as local:
        assert (local.path / "model_index.json").is_file()


def test_settings_that_cannot_work_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for name, value in (
        ("model_disk_cache_dir", tmp_path / "file" / "cache"),
        ("model_hub_token_file", tmp_path / "absent"),
    ):
        with pytest.raises(InvalidInput, match=name):
            open_model_files(settings(tmp_path, **{name: value}), lambda: False)
    files = open_model_files(settings(tmp_path), lambda: False)
    found = catalogue(tmp_path, model(f"hub:org/model@{COMMIT}", DEFAULTS), files=files)
    with pytest.raises(InvalidState, match="model_disk_cache_dir"), found.at_hand(found.find(X)):
        pass
