"""What is in a picture: its background and its figures, found in CIE Lab without any learning.

The background is the median of the border. What differs from it falls into connected parts; a part
is cut at half the way between the two colours and compared with the six outlines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.shapes.outlines import OUTLINES, area, box_middle, template

SIDE_PX: Final = 64
"""Pictures are brought to this side first; all lengths below are in its pixels."""

PALETTE: Final = {
    "red": (220, 30, 35),
    "orange": (255, 140, 20),
    "yellow": (250, 225, 40),
    "green": (30, 150, 60),
    "cyan": (60, 205, 225),
    "blue": (35, 70, 215),
    "purple": (130, 45, 170),
    "pink": (255, 150, 195),
    "black": (20, 20, 22),
    "white": (248, 248, 248),
    "gray": (130, 130, 132),
}

UNKNOWN: Final = "?"
"""Stands for a shape or a colour that is none of the known ones."""

_BORDER_PX: Final = 2
_PART_DISTANCE: Final = 14.0
"""A pixel this far from the background in Lab belongs to a figure."""
_COLOUR_DISTANCE: Final = 25.0
"""A colour further than this from every name has none. The closest two names are 30 apart."""
_COLOUR_SPREAD: Final = 12.0
"""Pixels that lie typically further than this from their median are no one colour."""
_LEAST_AREA_PX: Final = 25
_LEAST_SIDE_PX: Final = 5
_LEAST_CORE_PX: Final = 5
_LEAST_OVERLAP: Final = 0.7
"""Intersection over union with the best outline; true scenes reach more, blobs do not."""
_ASPECTS: Final = (0.7, 1.45)

_XYZ: Final = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
_WHITE_POINT: Final = np.array([0.95047, 1.0, 1.08883])


@dataclass(frozen=True, slots=True)
class Seen:
    """A figure found in a picture: its middle, and its radius as if drawn from the outline."""

    shape: str
    colour: str
    x_px: float
    y_px: float
    radius_px: float


@dataclass(frozen=True, slots=True)
class Sight:
    """All that was found in a picture."""

    background: str
    figures: tuple[Seen, ...]


def look(picture: Image.Image) -> Sight:
    """Finds background and figures of a picture of any mode and size.

    Raises:
        ValueError: The picture is not square.
    """
    if picture.width != picture.height:
        raise ValueError(f"a picture of {picture.width} x {picture.height} is not square")
    rgb = picture.convert("RGB")
    if rgb.width != SIDE_PX:
        rgb = rgb.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    lab = _to_lab(np.asarray(rgb))
    background, background_name = _colour(lab[_border()])
    distance = np.linalg.norm(lab - background, axis=2)
    parts = _connected_parts(distance > _PART_DISTANCE)
    found = (_recognise(part, lab, distance, background) for part in parts)
    return Sight(background_name, tuple(figure for figure in found if figure))


def _to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """sRGB of 0 to 255 to CIE Lab under D65; the last axis holds the channels."""
    value = rgb.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _XYZ.T / _WHITE_POINT
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_NAMES: Final = tuple(PALETTE)
_NAMED_LAB: Final = _to_lab(np.array(list(PALETTE.values()), dtype=np.uint8))


def _colour(pixels: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """The median of the pixels, (pixels, 3) in Lab, and its name."""
    median: NDArray[np.float64] = np.median(pixels, axis=0)
    distances = np.linalg.norm(_NAMED_LAB - median, axis=1)
    nearest = int(distances.argmin())
    spread = np.median(np.linalg.norm(pixels - median, axis=1))
    known = distances[nearest] <= _COLOUR_DISTANCE and spread <= _COLOUR_SPREAD
    return median, _NAMES[nearest] if known else UNKNOWN


def _border() -> NDArray[np.bool_]:
    border = np.ones((SIDE_PX, SIDE_PX), dtype=np.bool_)
    border[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = False
    return border


def _connected_parts(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The parts of the mask that hang together by sides, each as a mask of the same shape."""
    left = mask.copy()
    parts: list[NDArray[np.bool_]] = []
    for row, column in np.argwhere(mask):
        if left[row, column]:
            part = _flood(left, int(row), int(column))
            left &= ~part
            parts.append(part)
    return parts


def _flood(mask: NDArray[np.bool_], row: int, column: int) -> NDArray[np.bool_]:
    height, width = mask.shape
    part = np.zeros_like(mask)
    part[row, column] = True
    waiting = [(row, column)]
    while waiting:
        y, x = waiting.pop()
        for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= v < height and 0 <= u < width and mask[v, u] and not part[v, u]:
                part[v, u] = True
                waiting.append((v, u))
    return part


def _recognise(
    part: NDArray[np.bool_],
    lab: NDArray[np.float64],
    distance: NDArray[np.float64],
    background: NDArray[np.float64],
) -> Seen | None:
    """The figure that a part is, or None when it is a speck."""
    if part.sum() < _LEAST_AREA_PX:
        return None
    colour, name = _colour(lab[_core(part)])
    half_way = 0.5 * float(np.linalg.norm(colour - background))
    pieces = _connected_parts(part & (distance > half_way))
    if not pieces:
        return None
    rows, columns = np.nonzero(max(pieces, key=np.count_nonzero))
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    if min(bottom - top, right - left) < _LEAST_SIDE_PX:
        return None
    inside = np.zeros((bottom - top, right - left), dtype=np.bool_)
    inside[rows - top, columns - left] = True
    middle_px = np.array([left + right, top + bottom]) / 2
    return _fit(inside, middle_px, name)


def _core(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part without its blurred rim, as far as something remains."""
    once = _eroded(part)
    twice = _eroded(once)
    for core in (twice, once):
        if core.sum() >= _LEAST_CORE_PX:
            return core
    return part


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    framed = np.pad(mask, 1)
    eroded: NDArray[np.bool_] = (
        mask & framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    )
    return eroded


def _fit(inside: NDArray[np.bool_], middle_px: NDArray[np.float64], colour: str) -> Seen:
    """Names the outline that covers the box's inside best and puts it there."""
    height_px, width_px = inside.shape
    overlaps = {}
    for shape in OUTLINES:
        drawn = template(shape, width_px, height_px)
        overlaps[shape] = np.count_nonzero(inside & drawn) / np.count_nonzero(inside | drawn)
    best = max(overlaps, key=overlaps.__getitem__)
    radius_px = float(np.sqrt(np.count_nonzero(inside) / area(best)))
    x_px, y_px = middle_px - radius_px * box_middle(best)
    upright = _ASPECTS[0] <= width_px / height_px <= _ASPECTS[1]
    known = upright and overlaps[best] >= _LEAST_OVERLAP
    return Seen(best if known else UNKNOWN, colour, float(x_px), float(y_px), radius_px)
