"""Prompts into tokens, and the warning that some of them were cut."""

from __future__ import annotations

from typing import Any

import torch

Tokenizer = Any  # transformers is untyped


def padded_ids(tokenizer: Tokenizer, text: str, limit: int) -> torch.Tensor:
    """(1, limit) token numbers, cut or padded."""
    tokens = tokenizer(
        text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
    )
    found: torch.Tensor = tokens.input_ids
    return found


def cut_warning(
    tokenizer: Tokenizer, text: str, limit: int, *, negative: bool, marks: int
) -> tuple[str, ...]:
    """That the text has more tokens than the model reads; () where it has not.

    Args:
        tokenizer: of the model.
        text: a prompt.
        limit: tokens that are read, marks among them.
        negative: which prompt it is.
        marks: tokens that mark the beginning and the end.
    """
    if len(tokenizer(text, verbose=False).input_ids) <= limit:
        return ()
    return (f"{'negative prompt' if negative else 'prompt'} cut after {limit - marks} tokens",)
