"""The models that are measured: the built-in one, and an even smaller one with random weights.

The small one is what libraries test themselves with: a real Stable Diffusion pipeline of a quarter
of a million parameters whose pictures are noise. It shows what a step costs besides arithmetic.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.engine.plan import SHAPES, TINY
from bench.engine.trace import SIZE_PX

_BUILT_IN = Path(__file__).parents[2] / "services" / "gpu-worker" / "models" / SHAPES
_SEED = 0
_WIDTH = 32
_TOKENS = 24
_LATENT_PX = 8


def prepare(folder: Path, keys: Iterable[str]) -> None:
    """Makes a directory with these models as our engine and stock diffusers both read them.

    Args:
        folder: is emptied first.
        keys: some of `plan.MODELS`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for key in keys:
        if key == TINY:
            _make_tiny(folder / TINY)
        else:
            (folder / key).symlink_to(_BUILT_IN)


def _make_tiny(path: Path) -> None:
    torch.manual_seed(_SEED)
    tokenizer = CLIPTokenizer.from_pretrained(_BUILT_IN / "tokenizer", local_files_only=True)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIZE_PX,
            mid_block_add_attention=False,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=_WIDTH,
                intermediate_size=2 * _WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=_TOKENS,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=_LATENT_PX,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=_WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
        ),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(path, safe_serialization=True)
    preset = json.loads((_BUILT_IN / "easel.json").read_text(encoding="utf-8"))
    preset |= {"key": TINY, "name": "Tiny", "description": "Random weights, for measurements."}
    (path / "easel.json").write_text(json.dumps(preset), encoding="utf-8")
