"""Words that a tiny model was never taught, so that its user hears of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

_WORD = re.compile(r"[^\W_]+")


def unknown_words(prompt: str, known: Collection[str] | None) -> tuple[str, ...]:
    """One warning that names the words of a prompt that are not among `known`.

    Args:
        prompt: any text; its words are runs of letters and digits, in whatever case.
        known: lower-case words; None where the model has no fixed vocabulary.
    """
    if known is None:
        return ()
    words = dict.fromkeys(match.group().lower() for match in _WORD.finditer(prompt))
    strange = [word for word in words if word not in known]
    if not strange:
        return ()
    return (f"words that the model does not know: {', '.join(strange)}",)
