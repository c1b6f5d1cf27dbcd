"""The data set: scenes drawn once, encoded by definition, kept in shards of safetensors."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from training.captions import write_caption
from training.latents import SCALING_FACTOR, define_latents
from training.scenes import KINDS, Scene, draw_scene, sample_scene
from training.tokenizer import MAX_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import CLIPTokenizer

    from training.progress import Bar

_FIRST_SEED = 1000
_CHUNK = 100
_WORDINGS = (True, True, False, False)
"""A scene is told in as many captions; True stands for one in plain words."""


@dataclass(frozen=True, slots=True)
class EncodedScenes:
    """Encoded scenes, row by row.

    Attributes:
        latents: (scenes, 4, 16, 16), float16, scaled.
        token_ids: (scenes, 4, 24), int16, the tokens of each scene's captions.
        kinds: (scenes,), int64, index into `scenes.KINDS`.
    """

    latents: Tensor
    token_ids: Tensor
    kinds: Tensor


def draw_batch(rng: random.Random, size: int) -> tuple[list[Scene], Tensor]:
    """Draws scenes that may be trained on.

    Returns:
        The scenes and their pictures, (size, 3, 64, 64), float32, -1 to 1.
    """
    scenes = [sample_scene(rng) for _ in range(size)]
    pixels = np.stack([np.asarray(draw_scene(scene, rng)) for scene in scenes])
    return scenes, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """The captions' tokens, padded and cut to (captions, 24), int64."""
    rows = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS)
    return torch.tensor(rows.input_ids)


def write_shards(
    directory: Path, tokenizer: CLIPTokenizer, shards: int, shard_scenes: int, bar: Bar
) -> None:
    """Draws and encodes the data set into `directory`; the same arguments give the same scenes."""
    for shard in range(shards):
        rng = random.Random(_FIRST_SEED + shard)  # noqa: S311 - seeded on purpose
        latents: list[Tensor] = []
        scenes: list[Scene] = []
        while (missing := shard_scenes - len(scenes)) > 0:
            chunk, pictures = draw_batch(rng, min(_CHUNK, missing))
            scenes += chunk
            latents.append((define_latents(pictures) * SCALING_FACTOR).half())
            share = (shard + len(scenes) / shard_scenes) / shards
            bar.show(share, f"shard {shard + 1} of {shards}")
        tensors = {
            "latents": torch.cat(latents),
            "token_ids": tokenize(tokenizer, _word(scenes, rng))
            .view(len(scenes), len(_WORDINGS), MAX_TOKENS)
            .short(),
            "kinds": torch.tensor([KINDS.index(scene.kind) for scene in scenes]),
        }
        save_file(tensors, directory / f"shard-{shard:02d}.safetensors")


def _word(scenes: list[Scene], rng: random.Random) -> list[str]:
    """The captions of every scene, one scene after the other."""
    return [write_caption(scene, rng, plain=plain) for scene in scenes for plain in _WORDINGS]


def load_shards(directory: Path) -> EncodedScenes:
    """Reads the whole data set of a directory into memory (2 kB a scene)."""
    shards = [load_file(path) for path in sorted(directory.glob("shard-*.safetensors"))]
    return EncodedScenes(
        latents=torch.cat([shard["latents"] for shard in shards]),
        token_ids=torch.cat([shard["token_ids"] for shard in shards]),
        kinds=torch.cat([shard["kinds"] for shard in shards]),
    )
