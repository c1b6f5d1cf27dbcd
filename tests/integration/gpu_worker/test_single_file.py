"""Single-file checkpoints, read without any hub."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from easel_kit.errors import InvalidState
from easel_kit.ids import ModelKey
from gpu_worker.engine.catalogue import Catalogue, Entry
from gpu_worker.engine.samplers import SAMPLERS
from gpu_worker.engine.single_file import load_parts
from tests.fakes.gpu_worker_checkpoints import write_checkpoint, write_configs

LISTED = """
[[model]]
key = "tiny"
name = "Tiny"
base = "sd-1"
source = "tiny.safetensors"
{config}
[model.defaults]
steps = 2
guidance = 2.0
width_px = 64
height_px = 64
sampler = "ddim"
"""


def catalogue(folder: Path, config: str = 'config = "configs"') -> Catalogue:
    file = folder / "catalogue.toml"
    file.write_text(LISTED.format(config=config), encoding="utf-8")
    return Catalogue(folder / "none", tuple(SAMPLERS), catalogue_file=file)


def tiny(folder: Path) -> Entry:
    return catalogue(folder).find(ModelKey("tiny"))


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("_no_network")
def test_a_checkpoint_gives_the_weights_that_were_put_into_it(tmp_path: Path) -> None:
    write_configs(tmp_path / "configs")
    written = write_checkpoint(tmp_path / "tiny.safetensors", tmp_path / "configs")
    listed = catalogue(tmp_path)
    entry = listed.find(ModelKey("tiny"))
    assert entry.card.usable, entry.card.unavailable_reason
    assert entry.pipeline == "StableDiffusionPipeline"
    assert "inpaint" in entry.card.features
    with listed.at_hand(entry) as found:
        parts = load_parts(found, torch.float32)
    assert parts["safety_checker"] is None
    assert parts["tokenizer"]("a red circle").input_ids
    count = 0
    for name, module in written.items():
        there = parts[name].state_dict()
        for key, tensor in module.state_dict().items():
            assert torch.equal(there[key], tensor), f"{name}.{key}"
            count += tensor.numel()
        assert not parts[name].training
    assert entry.weights == count
    assert entry.memory_bytes(2) == 2 * count


@pytest.mark.usefixtures("_no_network")
def test_all_weights_come_in_the_number_format_asked_for(tmp_path: Path) -> None:
    write_configs(tmp_path / "configs")
    write_checkpoint(tmp_path / "tiny.safetensors", tmp_path / "configs")
    parts = load_parts(tiny(tmp_path), torch.float64)
    for name in ("unet", "vae", "text_encoder"):
        assert {weight.dtype for weight in parts[name].parameters()} == {torch.float64}, name


def test_without_a_config_it_says_what_is_needed(tmp_path: Path) -> None:
    write_configs(tmp_path / "configs")
    write_checkpoint(tmp_path / "tiny.safetensors", tmp_path / "configs")
    for config, told in (
        ("", "needs `config`"),
        ('config = "nowhere"', "config: model_index.json is missing"),
        ('config = "http://x"', "config: must be a path"),
    ):
        listed = catalogue(tmp_path, config)
        entry = listed.find(ModelKey("tiny"))
        assert told in entry.card.unavailable_reason
        with (
            pytest.raises(InvalidState, match=told.split(":", maxsplit=1)[0]),
            listed.at_hand(entry),
        ):
            pass
    (tmp_path / "configs" / "tokenizer" / "tokenizer.json").unlink()
    (tmp_path / "configs" / "tokenizer" / "tokenizer_config.json").unlink()
    (tmp_path / "configs" / "tokenizer").rmdir()
    assert tiny(tmp_path).card.unavailable_reason == "config: tokenizer is missing"


def test_a_cut_checkpoint_is_damaged(tmp_path: Path) -> None:
    write_configs(tmp_path / "configs")
    file = tmp_path / "tiny.safetensors"
    write_checkpoint(file, tmp_path / "configs")
    file.write_bytes(file.read_bytes()[:-1])
    assert tiny(tmp_path).card.unavailable_reason == "tiny.safetensors is damaged"
