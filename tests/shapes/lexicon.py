"""The words that the judge understands, and what each of them means."""

from __future__ import annotations

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
RELATIONS: Final = ("to the left of", "to the right of", "above", "below", "next to")
NUMBERS: Final = ("two", "three")

ARTICLES: Final = ("a", "an", "the", "one", "1")
PICTURES: Final = ("picture", "image", "photo", "drawing")


def _meanings(names: tuple[str, ...], **others: str) -> dict[str, str]:
    """Each name means itself; the others are given as `meaning_with_underscores="word, word"`."""
    found = {name: name for name in names}
    for meaning, words in others.items():
        found |= dict.fromkeys(words.split(", "), meaning.replace("_", " "))
    return found


COLOUR_OF: Final = _meanings(COLOURS, gray="grey", purple="violet", cyan="turquoise, aqua")
SHAPE_OF: Final = _meanings(SHAPES, circle="disc, disk, ball", square="box", cross="plus")
SIZE_OF: Final = _meanings(SIZES, small="little, tiny", large="big, huge")
PLURAL_OF: Final = {
    noun + ("es" if noun in {"cross", "box", "plus"} else "s"): shape
    for noun, shape in SHAPE_OF.items()
}
POSITION_OF: Final = _meanings(
    POSITIONS,
    in_the_center="in the centre, in the middle",
    on_the_left="on the left side, at the left",
    on_the_right="on the right side, at the right",
)
RELATION_OF: Final = _meanings(
    RELATIONS,
    to_the_left_of="left of, on the left of",
    to_the_right_of="right of, on the right of",
    above="over, on top of",
    below="under, beneath",
    next_to="beside",
)
COUNT_OF: Final = {
    "two": 2,
    "2": 2,
    "a couple of": 2,
    "a pair of": 2,
    "three": 3,
    "3": 3,
}
