"""The tokenizer: a genuine CLIP byte-pair tokenizer in which every known word is one token."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TypeAlias

from transformers import CLIPTokenizer

from training.words import MARKS, known_words

MAX_TOKENS = 24
"""Length of a prompt in tokens, with the start and the end token."""

WORD_END = "</w>"
"""Marks an entry that ends a word."""

_START, _END = "<|startoftext|>", "<|endoftext|>"

Pair: TypeAlias = tuple[str, str]


def build_tokenizer() -> CLIPTokenizer:
    """Makes the tokenizer; a word that is not known falls back to its letters."""
    merges = _learn_merges(sorted({*known_words(), *MARKS}))
    alphabet = sorted(_byte_alphabet())
    entries = [
        *alphabet,
        *(letter + WORD_END for letter in alphabet),
        *(left + right for left, right in merges),
        _START,
        _END,
    ]
    vocab = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def _byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for the bytes in GPT-2's byte-level encoding."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = itertools.count(256)
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def _learn_merges(words: list[str]) -> list[Pair]:
    """Byte-pair merges, most frequent pair first, until every word is a single symbol."""
    split = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges: list[Pair] = []
    while any(len(symbols) > 1 for symbols in split):
        counts = Counter(pair for symbols in split for pair in itertools.pairwise(symbols))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        split = [_merge(symbols, best) for symbols in split]
    return merges


def _merge(symbols: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    index = 0
    while index < len(symbols):
        if tuple(symbols[index : index + 2]) == pair:
            merged.append("".join(pair))
            index += 2
        else:
            merged.append(symbols[index])
            index += 1
    return merged
