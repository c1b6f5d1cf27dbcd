"""The text encoder and its warm start: reading a caption's fields before seeing a picture."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from training.captions import write_canonical
from training.dataset import tokenize
from training.progress import Bar, CpuBudget, cosine_rate
from training.scenes import (
    COLOURS,
    POSITIONS,
    SHAPES,
    SINGLE_RADII_PX,
    Scene,
    sample_scene,
)
from training.tokenizer import MAX_TOKENS
from training.words import RELATION_NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import CLIPTokenizer

WIDTH = 128
"""Width of the hidden states, and so of the UNet's cross attention."""

_PEAK_RATE = 2e-3
_BATCH = 64
_ALIGN_RATE = 1e-3

_COLOUR_WORDS = (*COLOURS, None)
_SHAPE_WORDS = (*SHAPES, None)
_SIZE_WORDS = (*SINGLE_RADII_PX, None)
_POSITION_WORDS = (*POSITIONS, None)
_RELATION_WORDS = (*RELATION_NAMES, None)
_MOST_FIGURES = 3

_CLASSES = (
    len(_COLOUR_WORDS),
    _MOST_FIGURES,
    len(_POSITION_WORDS),
    len(_RELATION_WORDS),
    *2 * (len(_COLOUR_WORDS), len(_SHAPE_WORDS), len(_SIZE_WORDS)),
)
"""Number of answers to each question of `field_targets`."""


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIP text encoder of two layers; 0.35 million parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=WIDTH,
        )
    )


def field_targets(scene: Scene) -> list[int]:
    """What a caption says, as class indices.

    In order: background, count, position and relation, then colour, shape and size of the first
    figure and of the second one of a pair.
    """
    first = scene.figures[0]
    second = scene.figures[1] if scene.kind == "pair" else None
    return [
        _COLOUR_WORDS.index(scene.background if scene.names_background else None),
        len(scene.figures) - 1,
        _POSITION_WORDS.index(scene.position),
        _RELATION_WORDS.index(scene.relation),
        _COLOUR_WORDS.index(first.colour),
        _SHAPE_WORDS.index(first.shape),
        _SIZE_WORDS.index(first.size),
        _COLOUR_WORDS.index(second.colour if second else None),
        _SHAPE_WORDS.index(second.shape if second else None),
        _SIZE_WORDS.index(second.size if second else None),
    ]


def align_text(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, budget_s: float, bar: Bar
) -> CLIPTextModel:
    """Teaches a trained encoder to read every wording as it now reads the canonical caption.

    The hidden states of all positions are drawn to those that `encoder` has for the canonical
    caption of the same scene, so that a UNet trained with it understands the other wordings too.

    Args:
        encoder: The trained one, which already tells canonical captions; it is left as it is.
        tokenizer: That of the encoder.
        budget_s: CPU seconds to train.
        bar: Shows how far it is.
    """
    torch.manual_seed(0)
    rng = random.Random(17)  # noqa: S311 - seeded on purpose
    teacher = encoder.eval()
    student = copy.deepcopy(encoder)
    optimizer = torch.optim.AdamW(student.parameters(), lr=_ALIGN_RATE, weight_decay=0.0)
    budget = CpuBudget(budget_s)
    step = 0
    while step == 0 or budget.left_s > 0:
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(_ALIGN_RATE, budget.share)
        scenes = [sample_scene(rng) for _ in range(_BATCH)]
        canonical = [write_canonical(scene) for scene in scenes]
        with torch.no_grad():
            wanted = teacher(tokenize(tokenizer, canonical)).last_hidden_state
        kept = canonical[: _BATCH // 8]
        said = kept + [scene.caption for scene in scenes[_BATCH // 8 :]]
        loss = functional.mse_loss(student(tokenize(tokenizer, said)).last_hidden_state, wanted)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
        bar.show(budget.share, f"step {step}, loss {loss.item():.4f}")
    return student


def train_text(directory: Path, tokenizer: CLIPTokenizer, budget_s: float, bar: Bar) -> None:
    """Trains the mean hidden state to tell the fields linearly; saves into `directory`."""
    torch.manual_seed(0)
    rng = random.Random(7)  # noqa: S311 - seeded on purpose
    encoder = build_text_encoder(tokenizer).train()
    head = torch.nn.Linear(WIDTH, sum(_CLASSES))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=_PEAK_RATE)
    budget = CpuBudget(budget_s)
    step = 0
    while step == 0 or budget.left_s > 0:
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(_PEAK_RATE, budget.share)
        scenes = [sample_scene(rng) for _ in range(_BATCH)]
        targets = torch.tensor([field_targets(scene) for scene in scenes])
        tokens = tokenize(tokenizer, [scene.caption for scene in scenes])
        hidden = encoder(tokens).last_hidden_state.mean(dim=1)
        answers = head(hidden).split(_CLASSES, dim=1)
        losses = [
            functional.cross_entropy(answer, targets[:, field])
            for field, answer in enumerate(answers)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
        bar.show(budget.share, f"step {step}, loss {loss.item():.3f}")
    encoder.eval()
    encoder.save_pretrained(directory)
