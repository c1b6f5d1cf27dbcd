"""The captions that the judge understands, and what they ask for.

    [LEAD] FIGURES [BACKGROUND] [.]         LEAD: a picture|image|photo|drawing of, draw
    BACKGROUND , FIGURES                    (or `a colour background with FIGURES`)

where FIGURES is one of

    ONE [PLACE]                             ONE: [a|an|the|one] [size] colour shape
    two|three [size] colour shapes
    ONE RELATION|and ONE

and BACKGROUND is `on colour` or `[,] [on|with|against] [a|an|the] [plain] colour background`; the
place may stand behind it, and the size behind the colour. Every word may be replaced by one that
means the same in `lexicon`. Case and spacing do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from tests.shapes.lexicon import (
    ARTICLES,
    COLOUR_OF,
    COUNT_OF,
    NUMBERS,
    PICTURES,
    PLURAL_OF,
    POSITION_OF,
    RELATION_OF,
    SHAPE_OF,
    SIZE_OF,
)

_WORDS: Final = re.compile(r"[^\s,.]+|[,.]")
_Meaning = TypeVar("_Meaning")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One figure that a caption asks for; no size when the caption leaves it open."""

    shape: str
    colour: str
    size: str | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """What a caption asks for; a relation runs from the first figure to the second.

    No background, position or relation means that the caption leaves it open.
    """

    background: str | None
    figures: tuple[Wanted, ...]
    position: str | None = None
    relation: str | None = None

    def __str__(self) -> str:
        first = self.figures[0]
        if len(self.figures) == 1:
            head = _one(first) + (f" {self.position}" if self.position else "")
        elif self.relation is None and set(self.figures) == {first}:
            noun = _noun(first, f"{first.shape}es" if first.shape == "cross" else f"{first.shape}s")
            head = f"{NUMBERS[len(self.figures) - 2]} {noun}"
        else:
            head = f"{_one(first)} {self.relation or 'and'} {_one(self.figures[1])}"
        return head + (
            f" on {_with_article(self.background)} background" if self.background else ""
        )


def parse_caption(text: str) -> Caption:
    """Reads a caption.

    Raises:
        ValueError: The text is no caption of this grammar; the message names the word.
    """
    return _Parser(text).caption()


def _noun(figure: Wanted, shape: str) -> str:
    return " ".join(word for word in (figure.size, figure.colour, shape) if word)


def _one(figure: Wanted) -> str:
    return _with_article(_noun(figure, figure.shape))


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


class _Parser:
    """Reads the words of one caption from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[str] = _WORDS.findall(text.lower())
        self._next = 0

    def caption(self) -> Caption:
        self._lead()
        background = self._leading_background()
        figures, relation = self._figures()
        position = self._position(figures)
        if background is None:
            background = self._background()
            position = position or self._position(figures)
        self._skip((".",))
        if self._next < len(self._words):
            raise self._error("the end")
        return Caption(background, figures, position, relation)

    def _lead(self) -> None:
        """Passes over `draw` or `a picture of`."""
        start = self._next
        if self._skip(("draw",)):
            return
        self._skip(ARTICLES)
        if not (self._skip(PICTURES) and self._skip(("of",))):
            self._next = start

    def _leading_background(self) -> str | None:
        """The colour of a background said before the figures, or None if it is not."""
        start = self._next
        self._skip(("on",))
        self._skip(ARTICLES)
        colour = self._maybe(COLOUR_OF)
        if colour and self._skip(("background",)) and self._skip((",", "with")):
            return colour
        self._next = start
        return None

    def _figures(self) -> tuple[tuple[Wanted, ...], str | None]:
        count = self._maybe(COUNT_OF)
        if count:
            return (self._figure(PLURAL_OF),) * count, None
        first = self._one()
        if self._skip(("and",)):
            return (first, self._one()), None
        relation = self._maybe(RELATION_OF)
        if relation:
            return (first, self._one()), relation
        return (first,), None

    def _one(self) -> Wanted:
        self._skip(ARTICLES)
        return self._figure(SHAPE_OF)

    def _figure(self, nouns: Mapping[str, str]) -> Wanted:
        size = self._maybe(SIZE_OF)
        colour = self._take("a colour", COLOUR_OF)
        size = size or self._maybe(SIZE_OF)
        return Wanted(self._take("a shape", nouns), colour, size)

    def _position(self, figures: tuple[Wanted, ...]) -> str | None:
        return self._maybe(POSITION_OF) if len(figures) == 1 else None

    def _background(self) -> str | None:
        """The colour of a background said behind the figures, or None if none is."""
        comma = self._skip((",",))
        link = self._skip(("on", "with", "against"))
        article = link and self._skip(ARTICLES)
        plain = self._skip(("plain",))
        if not (comma or link or plain) and not self._stands(COLOUR_OF):
            return None
        colour = self._take("a colour", COLOUR_OF)
        if self._skip(("background",)):
            return colour
        if link != "on" or article:
            raise self._error("'background'")
        return colour

    def _maybe(self, phrases: Mapping[str, _Meaning]) -> _Meaning | None:
        """The meaning of the longest of the phrases that stands next, taken, or None."""
        for phrase in sorted(phrases, key=lambda phrase: -len(phrase.split())):
            words = phrase.split()
            if self._words[self._next : self._next + len(words)] == words:
                self._next += len(words)
                return phrases[phrase]
        return None

    def _skip(self, words: Collection[str]) -> str | None:
        """The next word, taken, if it is one of these."""
        if not self._stands(words):
            return None
        self._next += 1
        return self._words[self._next - 1]

    def _take(self, wanted: str, meanings: Mapping[str, str]) -> str:
        word = self._skip(meanings)
        if word is None:
            raise self._error(wanted)
        return meanings[word]

    def _stands(self, words: Collection[str]) -> bool:
        return self._next < len(self._words) and self._words[self._next] in words

    def _error(self, wanted: str) -> ValueError:
        rest = self._words[self._next :]
        found = f"{rest[0]!r}" if rest else "the end"
        return ValueError(f"caption {self._text!r}: expected {wanted}, found {found}")
