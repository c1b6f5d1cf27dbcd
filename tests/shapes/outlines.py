"""The outlines of the six shapes, as the judge knows them."""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_CURVE_POINTS: Final = 72
_SUPERSAMPLING: Final = 4


def _curve(name: str) -> list[tuple[float, float]]:
    turns = [2 * math.pi * index / _CURVE_POINTS for index in range(_CURVE_POINTS)]
    if name == "circle":
        return [(math.sin(t), math.cos(t)) for t in turns]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) + 2.5)
            / 15,
        )
        for t in turns
    ]


def _star() -> list[tuple[float, float]]:
    radii = (1.12, 0.46)
    turns = [index * math.pi / 5 for index in range(10)]
    return [
        (radii[index % 2] * math.sin(t), 0.06 - radii[index % 2] * math.cos(t))
        for index, t in enumerate(turns)
    ]


_B: Final = 0.36
"""Half the width of the cross's bars."""

OUTLINES: Final[dict[str, NDArray[np.float64]]] = {
    name: np.array(points)
    for name, points in {
        "circle": _curve("circle"),
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0.0, -1.0), (1.05, 0.85), (-1.05, 0.85)],
        "star": _star(),
        "heart": _curve("heart"),
        "cross": [
            *((-_B, -1.0), (_B, -1.0), (_B, -_B), (1.0, -_B), (1.0, _B), (_B, _B)),
            *((_B, 1.0), (-_B, 1.0), (-_B, _B), (-1.0, _B), (-1.0, -_B), (-_B, -_B)),
        ],
    }.items()
}
"""(corners, 2): x to the right and y down about the figure's middle, for a radius of 1."""


def extent(shape: str) -> NDArray[np.float64]:
    """Width and height of the shape's bounding box for a radius of 1: (2,)."""
    corners = OUTLINES[shape]
    size: NDArray[np.float64] = corners.max(axis=0) - corners.min(axis=0)
    return size


def box_middle(shape: str) -> NDArray[np.float64]:
    """The middle of the bounding box seen from the figure's middle, for a radius of 1: (2,)."""
    corners = OUTLINES[shape]
    middle: NDArray[np.float64] = (corners.max(axis=0) + corners.min(axis=0)) / 2
    return middle


def area(shape: str) -> float:
    """The shape's area for a radius of 1, by the shoelace formula."""
    x, y = OUTLINES[shape].T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2


@functools.cache
def template(shape: str, width_px: int, height_px: int) -> NDArray[np.bool_]:
    """The shape stretched over a box: (height_px, width_px), true inside."""
    corners = OUTLINES[shape]
    unit = (corners - corners.min(axis=0)) / extent(shape)
    scaled = unit * (width_px * _SUPERSAMPLING, height_px * _SUPERSAMPLING)
    canvas = Image.new("L", (width_px * _SUPERSAMPLING, height_px * _SUPERSAMPLING), 0)
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in scaled], fill=255)
    return np.asarray(canvas.resize((width_px, height_px), Image.Resampling.BOX)) > 127
