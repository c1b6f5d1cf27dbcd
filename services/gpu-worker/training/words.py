"""The language of the captions: every word that the model learns, and which mean the same."""

from __future__ import annotations

from itertools import chain
from typing import Final

COLOUR_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "cyan": ("cyan", "turquoise", "aqua"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "black": ("black",),
    "white": ("white",),
    "gray": ("gray", "grey"),
}
"""By meaning; here and below the first name is the plain one."""

SHAPE_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "circle": ("circle", "disc", "disk", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "plus"),
}

SIZE_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium",),
    "large": ("large", "big", "huge"),
}

NUMBER_NAMES: Final[dict[int, tuple[str, ...]]] = {
    2: ("two", "2", "a couple of", "a pair of"),
    3: ("three", "3"),
}

POSITION_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "in the center": ("in the center", "in the centre", "in the middle"),
    "on the left": ("on the left", "on the left side", "at the left"),
    "on the right": ("on the right", "on the right side", "at the right"),
    "at the top": ("at the top",),
    "at the bottom": ("at the bottom",),
}

RELATION_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "to the left of": ("to the left of", "left of", "on the left of"),
    "to the right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
    "next to": ("next to", "beside"),
}

ARTICLES: Final = ("a", "an", "the", "one", "1")
LEADS: Final = ("a picture of", "an image of", "a photo of", "a drawing of", "draw")
BACKGROUND_WORDS: Final = ("on", "with", "against", "plain", "background")
TOGETHER: Final = "and"
"""Joins two figures of which the caption does not say how they lie to each other."""

MARKS: Final = (",", ".")


def plural(noun: str) -> str:
    """The plural of a shape's name."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def known_words() -> list[str]:
    """Every word that a caption may hold and so the model learns, lower-case and sorted.

    A prompt's words are its runs of letters and digits, in lower case; all else only parts them.
    """
    nouns = list(chain.from_iterable(SHAPE_NAMES.values()))
    phrases = chain(
        nouns,
        map(plural, nouns),
        chain.from_iterable(COLOUR_NAMES.values()),
        chain.from_iterable(SIZE_NAMES.values()),
        chain.from_iterable(NUMBER_NAMES.values()),
        chain.from_iterable(POSITION_NAMES.values()),
        chain.from_iterable(RELATION_NAMES.values()),
        ARTICLES,
        LEADS,
        BACKGROUND_WORDS,
        (TOGETHER,),
    )
    return sorted({word for phrase in phrases for word in phrase.split()})


def plain_words() -> list[str]:
    """The words of captions that use only plain names, sorted."""
    tables = (COLOUR_NAMES, SHAPE_NAMES, SIZE_NAMES, NUMBER_NAMES, POSITION_NAMES, RELATION_NAMES)
    phrases = [names[0] for table in tables for names in table.values()]
    phrases += [plural(names[0]) for names in SHAPE_NAMES.values()]
    phrases += ["a", "an", "on", "background", TOGETHER]
    return sorted({word for phrase in phrases for word in phrase.split()})
