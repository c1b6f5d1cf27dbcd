"""A tiny Stable Diffusion with random weights, as a folder of configs and as one file.

The file has the names of the first Stable Diffusion's code; the table of names is the inverse of
what diffusers reads (`diffusers/loaders/single_file_utils.py`).
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

from tests.fakes.gpu_worker_models import SHAPES_DIR

_LAYERS = 1
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_TOP = {"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut"}


def write_configs(folder: Path) -> None:
    """A diffusers folder without weights."""
    shutil.copytree(SHAPES_DIR, folder, ignore=shutil.ignore_patterns("*.safetensors", "easel*"))
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    config |= {
        "addition_embed_type": None,
        "resnet_time_scale_shift": "default",
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": _LAYERS,
        "norm_num_groups": 8,
    }
    (folder / "unet" / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_checkpoint(file: Path, configs: Path) -> dict[str, Any]:
    """One file with all weights; returns the parts that they were taken from."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet"))
    vae = AutoencoderKL.from_pretrained(SHAPES_DIR / "vae", dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(SHAPES_DIR / "text_encoder", dtype=torch.float32)
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in unet.state_dict().items():
        weights[f"model.diffusion_model.{_unet_name(name)}"] = tensor
    for name, tensor in vae.state_dict().items():
        weights[f"first_stage_model.{_vae_name(name)}"] = tensor
    for name, tensor in text.state_dict().items():
        plain = name.removeprefix("text_model.")
        weights[f"cond_stage_model.transformer.text_model.{plain}"] = tensor
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)
    return {"unet": unet, "vae": vae, "text_encoder": text}


def _unet_name(name: str) -> str:
    for ours, theirs in _UNET_TOP.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{place}.{_inner(found[1], found[3])}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name)
    assert found, name
    way, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * (_LAYERS + 1)}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{block * (_LAYERS + 1) + _LAYERS}.1.{rest}"  # no attention there
    place = block * (_LAYERS + 1) + layer + (1 if way == "down" else 0)
    stem = "input_blocks" if way == "down" else "output_blocks"
    return f"{stem}.{place}.{1 if kind == 'attentions' else 0}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    part, _, last = rest.rpartition(".")
    return f"{_UNET_RESNET[part]}.{last}"


def _vae_name(name: str) -> str:
    for ours, theirs in _VAE_TOP.items():
        name = name.replace(ours, theirs)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{2 - int(m[1])}.block.", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{2 - int(m[1])}.upsample", name)
