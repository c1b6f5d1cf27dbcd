"""The judgement: what of a caption a picture fulfils."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image

from tests.shapes.caption import Caption, Wanted, parse_caption
from tests.shapes.vision import SIDE_PX, UNKNOWN, Seen, Sight, look

if TYPE_CHECKING:
    from collections.abc import Iterable

_MIDDLE_PX: Final = SIDE_PX / 2
_SINGLE_SIZE_LIMITS_PX: Final = (11.5, 17.2)
"""A lone figure of a smaller radius is small, of a larger one large, between them medium."""
_SHARED_SIZE_LIMITS_PX: Final = (9.1, 11.2)
"""The same where figures share the picture."""
_OFF_CENTRE_PX: Final = 6.5
"""A figure whose middle is this far from the picture's is to a side; a nearer one is central."""
_LARGE_OFF_CENTRE_PX: Final = 3.3
"""The same for a large figure, which has less room to move."""
_APART_PX: Final = 8.0
"""In a relation the middles are at least this far apart, and further than across it."""

_DIRECTIONS: Final = {
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
_EITHER_WAY: Final = {"next to": ("to the left of", "to the right of")}
"""Relations that hold when one of others does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which promises of a caption a picture keeps; None where the caption promises nothing.

    Attributes:
        background: The background has its colour; where the caption names none, it is of any one
            known colour that no asked figure has.
        count: There are as many figures as asked for.
        colour: The figures' colours, however they are spread over the shapes.
        shape: The figures' shapes, however they are coloured.
        binding: Each shape has its own colour.
        size: The figures' sizes.
        position: The place of a single figure.
        relation: The first figure lies where asked, seen from the second.
    """

    background: bool
    count: bool
    colour: bool
    shape: bool
    binding: bool
    size: bool | None = None
    position: bool | None = None
    relation: bool | None = None

    @property
    def colour_right(self) -> bool:
        """Background and figures have their colours."""
        return self.background and self.colour

    @property
    def shape_right(self) -> bool:
        """The shapes are right, in the right number."""
        return self.count and self.shape

    @property
    def all_right(self) -> bool:
        """Everything that the caption promises is kept."""
        kept = (self.background, self.count, self.colour, self.shape, self.binding)
        asked = (self.size, self.position, self.relation)
        return all(kept) and all(answer is not False for answer in asked)


def check(picture: Image.Image | bytes, caption: str) -> Verdict:
    """Judges a picture, or the bytes of its file, by a caption.

    Raises:
        ValueError: The caption is not understood, or the picture is not square.
        PIL.UnidentifiedImageError: The bytes are no picture.
    """
    wanted = parse_caption(caption)
    if isinstance(picture, bytes):
        with Image.open(io.BytesIO(picture)) as opened:
            return _judge(look(opened), wanted)
    return _judge(look(picture), wanted)


def _judge(sight: Sight, wanted: Caption) -> Verdict:
    figures = _best_order(sight.figures, wanted)
    return Verdict(
        background=_background(sight, wanted),
        count=len(sight.figures) == len(wanted.figures),
        colour=_same((s.colour for s in sight.figures), (w.colour for w in wanted.figures)),
        shape=_same((s.shape for s in sight.figures), (w.shape for w in wanted.figures)),
        binding=figures is not None and _are(figures, wanted.figures),
        size=_sizes(figures, wanted),
        position=_position(figures, wanted),
        relation=_relation(figures, wanted),
    )


def _background(sight: Sight, wanted: Caption) -> bool:
    if wanted.background is not None:
        return sight.background == wanted.background
    taken = {figure.colour for figure in wanted.figures}
    return sight.background != UNKNOWN and sight.background not in taken


def _same(seen: Iterable[str], wanted: Iterable[str]) -> bool:
    return sorted(seen) == sorted(wanted)


def _best_order(seen: tuple[Seen, ...], wanted: Caption) -> tuple[Seen, ...] | None:
    """The seen figures in the wanted ones' best fitting order; None if there are not as many."""
    if len(seen) != len(wanted.figures):
        return None

    def fitness(order: tuple[Seen, ...]) -> tuple[bool, int]:
        answers = (_sizes(order, wanted), _relation(order, wanted))
        return _are(order, wanted.figures), sum(answer is True for answer in answers)

    return max(itertools.permutations(seen), key=fitness)


def _are(seen: tuple[Seen, ...], wanted: tuple[Wanted, ...]) -> bool:
    pairs = zip(seen, wanted, strict=True)
    return all((s.colour, s.shape) == (w.colour, w.shape) for s, w in pairs)


def _sizes(figures: tuple[Seen, ...] | None, wanted: Caption) -> bool | None:
    if all(figure.size is None for figure in wanted.figures):
        return None
    if figures is None:
        return False
    limits_px = _SINGLE_SIZE_LIMITS_PX if len(figures) == 1 else _SHARED_SIZE_LIMITS_PX
    return all(
        asked.size is None or asked.size == _size(figure, limits_px)
        for figure, asked in zip(figures, wanted.figures, strict=True)
    )


def _size(figure: Seen, limits_px: tuple[float, float]) -> str:
    if figure.radius_px < limits_px[0]:
        return "small"
    return "medium" if figure.radius_px < limits_px[1] else "large"


def _position(figures: tuple[Seen, ...] | None, wanted: Caption) -> bool | None:
    if wanted.position is None:
        return None
    if figures is None:
        return False
    figure = figures[0]
    right_px, down_px = figure.x_px - _MIDDLE_PX, figure.y_px - _MIDDLE_PX
    is_large = figure.radius_px >= _SINGLE_SIZE_LIMITS_PX[1]
    limit_px = _LARGE_OFF_CENTRE_PX if is_large else _OFF_CENTRE_PX
    if wanted.position == "in the center":
        return max(abs(right_px), abs(down_px)) < limit_px
    x, y = _DIRECTIONS[wanted.position]
    return x * right_px + y * down_px > limit_px


def _relation(figures: tuple[Seen, ...] | None, wanted: Caption) -> bool | None:
    if wanted.relation is None:
        return None
    if figures is None:
        return False
    first, second = figures
    names = _EITHER_WAY.get(wanted.relation, (wanted.relation,))
    return any(_lies(first, second, _DIRECTIONS[name]) for name in names)


def _lies(first: Seen, second: Seen, direction: tuple[int, int]) -> bool:
    """Whether the first figure lies in this direction, x to the right and y down, of the second."""
    x, y = direction
    right_px, down_px = first.x_px - second.x_px, first.y_px - second.y_px
    along_px = x * right_px + y * down_px
    across_px = abs(y * right_px) + abs(x * down_px)
    return along_px > max(_APART_PX, across_px)
