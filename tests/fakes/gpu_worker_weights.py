"""Tiny networks with made-up weights, saved as catalogue entries beside the real model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file

from tests.fakes.gpu_worker_models import SHAPES_DIR, Stock, copy_model, write_preset


def paint_model(models_dir: Path, key: str = "paint-64") -> Path:
    """The real model with a made-up UNet that reads masks: nine channels in."""
    path = copy_model(models_dir, key, key=key)
    config = json.loads((SHAPES_DIR / "unet" / "config.json").read_text(encoding="utf-8"))
    for file in (path / "unet").iterdir():
        file.unlink()
    torch.manual_seed(1)
    unet = UNet2DConditionModel.from_config(config | {"in_channels": 9})
    unet.save_pretrained(path / "unet", safe_serialization=True)
    return path


def lora_file(models_dir: Path, key: str, stock: Stock, seed: int, **shape: int) -> Path:
    """A made-up adapter in kohya's key format, strong enough to be seen.

    `shape` may set `rank`, and `text` to 0 for an adapter of the UNet alone.
    """
    names = [("unet", "lora_unet_", (".to_q", ".to_k", ".to_v"))]
    if shape.get("text", 1):
        names.append(("text_encoder", "lora_te_text_model_", ("q_proj", "v_proj", "out_proj")))
    rng = torch.Generator().manual_seed(seed)
    rank = shape.get("rank", 4)
    tensors: dict[str, torch.Tensor] = {}
    for part, prefix, endings in names:
        for name, module in getattr(stock, part).named_modules():
            if name.endswith(endings):
                stem = prefix + name.replace(".", "_")
                down = (rank, module.in_features)
                up = (module.out_features, rank)
                tensors[f"{stem}.lora_down.weight"] = 0.3 * torch.randn(down, generator=rng)
                tensors[f"{stem}.lora_up.weight"] = 0.3 * torch.randn(up, generator=rng)
                tensors[f"{stem}.alpha"] = torch.tensor(rank / 2)
    return save_lora(models_dir, key, tensors)


def peft_file(models_dir: Path, key: str, stock: Stock, seed: int) -> Path:
    """A made-up adapter of the UNet in diffusers' (peft's) key format."""
    rng = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in stock.unet.named_modules():
        if name.endswith((".to_q", ".to_out.0")):
            down, up = (2, module.in_features), (module.out_features, 2)
            tensors[f"unet.{name}.lora_A.weight"] = 0.3 * torch.randn(down, generator=rng)
            tensors[f"unet.{name}.lora_B.weight"] = 0.3 * torch.randn(up, generator=rng)
    return save_lora(models_dir, key, tensors)


def save_lora(models_dir: Path, key: str, tensors: dict[str, torch.Tensor]) -> Path:
    """An entry of type `lora`."""
    path = models_dir / key
    path.mkdir(parents=True)
    save_file(tensors, path / "weights.safetensors")
    write_preset(path, key=key, type="lora")
    return path


def control_net(models_dir: Path, key: str, stock: Stock, seed: int) -> Path:
    """An entry of type `controlnet`: the UNet's own encoder with made-up connections."""
    net = ControlNetModel.from_unet(stock.unet, conditioning_embedding_out_channels=(8, 16, 16))
    rng = torch.Generator().manual_seed(seed)
    for name, weight in net.named_parameters():
        if "controlnet_" in name:
            strength = 0.5 if "cond_embedding" in name else 0.1  # its picture is to be seen
            weight.data = strength * torch.randn(weight.shape, generator=rng)
    path = models_dir / key
    net.save_pretrained(path, safe_serialization=True)
    write_preset(path, key=key, type="controlnet")
    return path
