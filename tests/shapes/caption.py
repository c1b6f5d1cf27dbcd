"""The captions that the judge understands, and what they ask for.

    a [size] colour shape [position] BACKGROUND
    two|three [size] colour shapes BACKGROUND
    a [size] colour shape RELATION a [size] colour shape BACKGROUND

where BACKGROUND is `on a colour background`, `on colour` or `, colour background`. Case and
spacing do not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

COLOURS: Final = (
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
    "black",
    "white",
    "gray",
)
SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "cross")
SIZES: Final = ("small", "medium", "large")
POSITIONS: Final = ("in the center", "on the left", "on the right", "at the top", "at the bottom")
RELATIONS: Final = ("to the left of", "to the right of", "above", "below")
NUMBERS: Final = {"two": 2, "three": 3}

_PLURALS: Final = {"crosses" if shape == "cross" else f"{shape}s": shape for shape in SHAPES}
_PLURAL_OF: Final = {shape: plural for plural, shape in _PLURALS.items()}
_NUMBER_OF: Final = {count: word for word, count in NUMBERS.items()}
_ARTICLES: Final = ("a", "an")
_WORDS: Final = re.compile(r"[^\s,]+|,")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One figure that a caption asks for; no size when the caption leaves it open."""

    shape: str
    colour: str
    size: str | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """What a caption asks for; a relation runs from the first figure to the second."""

    background: str
    figures: tuple[Wanted, ...]
    position: str | None = None
    relation: str | None = None

    def __str__(self) -> str:
        first = self.figures[0]
        if self.relation:
            head = f"{_one(first)} {self.relation} {_one(self.figures[1])}"
        elif len(self.figures) == 1:
            head = _one(first) + (f" {self.position}" if self.position else "")
        else:
            noun = _noun(first, _PLURAL_OF[first.shape])
            head = f"{_NUMBER_OF[len(self.figures)]} {noun}"
        return f"{head} on {_with_article(self.background)} background"


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
        number = self._maybe(NUMBERS)
        if number:
            figures = (self._figure(_PLURALS),) * NUMBERS[number]
            return self._finish(figures)
        first = self._one()
        position = self._maybe(POSITIONS)
        if position:
            return self._finish((first,), position=position)
        relation = self._maybe(RELATIONS)
        if relation:
            return self._finish((first, self._one()), relation=relation)
        return self._finish((first,))

    def _one(self) -> Wanted:
        self._take("an article or a number", _ARTICLES)
        return self._figure({shape: shape for shape in SHAPES})

    def _figure(self, nouns: dict[str, str]) -> Wanted:
        size = self._maybe(SIZES)
        colour = self._take("a colour", COLOURS)
        return Wanted(nouns[self._take("a shape", nouns)], colour, size)

    def _finish(
        self,
        figures: tuple[Wanted, ...],
        position: str | None = None,
        relation: str | None = None,
    ) -> Caption:
        background = self._background()
        if self._next < len(self._words):
            raise self._error("the end")
        return Caption(background, figures, position, relation)

    def _background(self) -> str:
        named = self._maybe((",",)) is not None
        if not named:
            self._take("a background", ("on",))
            named = self._maybe(_ARTICLES) is not None
        colour = self._take("a colour", COLOURS)
        if named:
            self._take("'background'", ("background",))
        return colour

    def _maybe(self, phrases: dict[str, int] | tuple[str, ...]) -> str | None:
        """The one of the phrases that stands next, taken, or None."""
        for phrase in phrases:
            words = phrase.split()
            if self._words[self._next : self._next + len(words)] == words:
                self._next += len(words)
                return phrase
        return None

    def _take(self, wanted: str, words: dict[str, str] | tuple[str, ...]) -> str:
        if self._next == len(self._words) or self._words[self._next] not in words:
            raise self._error(wanted)
        self._next += 1
        return self._words[self._next - 1]

    def _error(self, wanted: str) -> ValueError:
        rest = self._words[self._next :]
        found = f"{rest[0]!r}" if rest else "the end"
        return ValueError(f"caption {self._text!r}: expected {wanted}, found {found}")
