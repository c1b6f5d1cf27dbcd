r"""Words that weigh more or less: `(words:1.3)`, only where a number says so.

`\(` and `\)` are plain parentheses. Groups may stand inside of one another, their weights multiply.
Whatever is no group with a weight from 0 to 2 is text as it stands, so that prompts without weights
are encoded as diffusers encodes them. The parser is pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

MAX_WEIGHT = 2.0
"""Beyond it embeddings leave the region that denoisers were trained in."""

_TOKEN = re.compile(r"\\[()]|[()]")
_WEIGHT = re.compile(
    r"(?P<words>.*\S.*?)\s*:\s*(?P<weight>\d{1,3}(?:\.\d{1,6})?|\.\d{1,6})\s*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Weighted:
    """A prompt without its notation.

    Attributes:
        text: what the encoder reads.
        weights: one per character of `text`; empty where all are 1.
        warnings: for the user.
    """

    text: str
    weights: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()

    def of_tokens(self, offsets: Sequence[Sequence[int]]) -> list[float]:
        """Weights of tokens, each that of its first character; 1 for tokens without text.

        Args:
            offsets: begin and end of each token in `text`, as tokenizers tell them.
        """
        return [
            self.weights[begin] if self.weights and begin < end else 1.0 for begin, end in offsets
        ]


@dataclass(slots=True)
class _Piece:
    """Characters with their weights, begun by an opening parenthesis (but for the outermost)."""

    text: list[str]
    weights: list[float]

    def add(self, text: str, weights: Sequence[float] = ()) -> None:
        self.text.append(text)
        self.weights.extend(weights or [1.0] * len(text))


def parse(prompt: str) -> Weighted:
    """Takes the notation out of a prompt; never fails."""
    open_pieces = [_Piece([], [])]
    warnings: list[str] = []
    at = 0
    for match in _TOKEN.finditer(prompt):
        open_pieces[-1].add(prompt[at : match.start()])
        at = match.end()
        sign = match.group()
        if sign == "(":
            open_pieces.append(_Piece([], []))
        elif sign == ")" and len(open_pieces) > 1:
            _close(open_pieces, warnings)
        else:
            open_pieces[-1].add(sign[-1])
    open_pieces[-1].add(prompt[at:])
    while len(open_pieces) > 1:  # never closed: a plain parenthesis
        left = open_pieces.pop()
        open_pieces[-1].add("(")
        open_pieces[-1].add("".join(left.text), left.weights)
    whole = open_pieces[0]
    plain = all(weight == 1.0 for weight in whole.weights)
    return Weighted("".join(whole.text), () if plain else tuple(whole.weights), tuple(warnings))


def _close(open_pieces: list[_Piece], warnings: list[str]) -> None:
    piece = open_pieces.pop()
    text = "".join(piece.text)
    found = _WEIGHT.fullmatch(text)
    weight = float(found["weight"]) if found else 1.0
    if found is None or weight > MAX_WEIGHT:
        if found is not None:
            warnings.append(
                f"weight {found['weight']} is not from 0 to {MAX_WEIGHT:g}: left as text"
            )
        open_pieces[-1].add("(")
        open_pieces[-1].add(text, piece.weights)
        open_pieces[-1].add(")")
        return
    words = found["words"]
    weights = [min(MAX_WEIGHT, weight * inner) for inner in piece.weights[: len(words)]]
    open_pieces[-1].add(words, weights)


def apply_weights(
    encoded: torch.Tensor, empty: torch.Tensor, weights: Sequence[float]
) -> torch.Tensor:
    """Moves tokens away from what the empty prompt gives at their place, or towards it.

    `empty + weight (encoded - empty)` for each token, the interpretation that ComfyUI introduced
    (its `sd1_clip.py`): weight 0 says nothing, 1 is the token as it is, bit for bit.

    Args:
        encoded: (1, tokens, channels), of the prompt.
        empty: the same of the empty prompt.
        weights: one per token.
    """
    scale = torch.tensor(weights, dtype=encoded.dtype, device=encoded.device)[None, :, None]
    return torch.where(scale == 1, encoded, empty + scale * (encoded - empty))
