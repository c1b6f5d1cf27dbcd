"""A start from a finished model instead of from nothing, when the language has grown since.

UNet and autoencoder are taken as they are, and so are the words that the model knows already. A new
word begins as a copy of a known one that means the same, or as the mean of all known words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training.export import PRESET_FILE
from training.text import build_text_encoder
from training.tokenizer import WORD_END
from training.words import (
    COLOUR_NAMES,
    NUMBER_NAMES,
    POSITION_NAMES,
    RELATION_NAMES,
    SHAPE_NAMES,
    SIZE_NAMES,
    known_words,
    plural,
)

if TYPE_CHECKING:
    from pathlib import Path

_EMBEDDING = "embeddings.token_embedding.weight"
_LIKE_IN_USE = {
    "the": "a",
    "one": "a",
    "1": "a",
    "with": "on",
    "against": "on",
    "centre": "center",
    "middle": "center",
    ".": ",",
}
"""Words that the tables of synonyms do not pair, by the known word whose part they take."""


def start_text(model: Path, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The model's text encoder with the vocabulary of `tokenizer`; float32 on the CPU.

    Raises:
        OSError: The directory holds no model, or no preset.
        KeyError: The preset names no known words.
    """
    old = CLIPTextModel.from_pretrained(
        model / "text_encoder", dtype=torch.float32, local_files_only=True
    )
    old_tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True)
    known = set(json.loads((model / PRESET_FILE).read_text(encoding="utf-8"))["known_words"])
    weights = old.state_dict()
    name = next(key for key in weights if key.endswith(_EMBEDDING))
    weights[name] = _transplant(weights[name], old_tokenizer.get_vocab(), tokenizer, known)
    encoder = build_text_encoder(tokenizer)
    encoder.load_state_dict(weights)
    return encoder


def start_unet(model: Path) -> UNet2DConditionModel:
    """The model's UNet, float32 on the CPU."""
    return UNet2DConditionModel.from_pretrained(
        model / "unet", torch_dtype=torch.float32, local_files_only=True
    )


def start_vae(model: Path) -> AutoencoderKL:
    """The model's autoencoder, float32 on the CPU."""
    return AutoencoderKL.from_pretrained(
        model / "vae", torch_dtype=torch.float32, local_files_only=True
    )


def _transplant(
    rows: torch.Tensor, old_vocab: dict[str, int], tokenizer: CLIPTokenizer, known: set[str]
) -> torch.Tensor:
    """The embedding, (entries, 128), for the new vocabulary from the rows of the old one."""
    origin = {**_synonyms(), **_LIKE_IN_USE}
    middle = rows[[old_vocab[word + WORD_END] for word in sorted(known)]].mean(dim=0)
    grown = middle.repeat(len(tokenizer), 1)
    new_words = {word + WORD_END for word in (*known_words(), *_LIKE_IN_USE) if word not in known}
    for entry, index in tokenizer.get_vocab().items():
        word = origin.get(entry.removesuffix(WORD_END))
        if entry not in new_words:
            source = old_vocab.get(entry)
        else:
            source = old_vocab[word + WORD_END] if word in known | {","} else None
        if source is not None:
            grown[index] = rows[source]
    return grown


def _synonyms() -> dict[str, str]:
    """The plain name of every other name, as far as both are single words."""
    shapes = {
        **SHAPE_NAMES,
        **{f"{shape}s": _plurals(names) for shape, names in SHAPE_NAMES.items()},
    }
    tables = (COLOUR_NAMES, shapes, SIZE_NAMES, NUMBER_NAMES, POSITION_NAMES, RELATION_NAMES)
    return {
        other: names[0]
        for table in tables
        for names in table.values()
        for other in names[1:]
        if " " not in other + names[0]
    }


def _plurals(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(plural, names))
