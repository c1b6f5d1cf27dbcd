"""Captioned scenes: what is in them, and the drawing of it; `captions` puts them into words.

A scene is one figure, two or three alike, or a pair of figures, on a plain background. Ten per cent
of the (shape, colour, background) triples are held out of all training, in whatever words.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from PIL import Image, ImageDraw

from training.captions import write_caption

if TYPE_CHECKING:
    from random import Random

SIDE_PX = 64
"""Width and height of every picture."""

SUPERSAMPLING = 4
"""A scene is drawn this many times larger and averaged down: smooth edges."""

COLOUR_JITTER = 6
"""Each channel of a drawn colour may be off its name's value by this much, of 255."""

COLOURS: dict[str, tuple[int, int, int]] = {
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

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
_SHAPE_WEIGHTS = (1, 1, 1, 2, 1, 1)
"""The star is the hardest shape on the coarse latents, and so drawn twice as often."""

SINGLE_RADII_PX = {"small": (8.5, 10.0), "medium": (13.0, 15.0), "large": (19.5, 22.0)}
"""Range of the radius of a figure that stands alone."""

SHARED_RADII_PX = {"small": (7.9, 8.5), "medium": (9.6, 10.6), "large": (11.8, 12.8)}
"""Range of the radius of a figure that shares the picture. Under 7.9 the latent loses stars."""

POSITIONS = {
    "in the center": (32, 32),
    "on the left": (19, 32),
    "on the right": (45, 32),
    "at the top": (32, 19),
    "at the bottom": (32, 45),
}
"""Where the middle of a single figure lies, in pixels from the top left corner."""

RELATIONS = {
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
"""Direction from the second figure of a pair to the first: x to the right, y down."""

SIDE_BY_SIDE = "to the left of"
"""How a pair is drawn of which the caption does not say it: in the order of reading."""

_RELATION_CHOICES: dict[str | None, int] = {
    "to the left of": 2,
    "to the right of": 2,
    "above": 2,
    "below": 2,
    "next to": 2,
    None: 4,
}
"""The relations of pairs by their weight; None is a pair of which no relation is said."""

DEFAULT_BACKGROUNDS = ("white", "black", "gray")
"""Without a background in the caption it is the first of these that no figure has."""

_UNNAMED_SHARE = 0.12
_PLAIN_SHARE = 0.5

Kind: TypeAlias = Literal["one", "many", "pair"]
Point: TypeAlias = tuple[float, float]

KINDS: tuple[Kind, ...] = ("one", "many", "pair")
_KIND_WEIGHTS = (0.5, 0.2, 0.3)

_MIDDLE_PX = SIDE_PX // 2
_TWO_LAYOUTS: tuple[tuple[Point, ...], ...] = (
    ((17, 32), (47, 32)),
    ((32, 17), (32, 47)),
    ((18, 18), (46, 46)),
    ((18, 46), (46, 18)),
)
_THREE_IN_A_ROW: tuple[Point, ...] = ((11, 32), (32, 32), (53, 32))
_THREE_LAYOUTS: tuple[tuple[Point, ...], ...] = (
    _THREE_IN_A_ROW,
    ((32, 16), (16, 46), (48, 46)),
    ((32, 48), (16, 18), (48, 18)),
)
_THREE_LAYOUT_WEIGHTS = (1, 2, 2)
_THREE_LARGEST_PX = 9.5
_ROW_LARGEST_PX = 8.4


@dataclass(frozen=True, slots=True)
class Figure:
    """One drawn figure; `size` is the word of the caption, or None when it is not said."""

    shape: str
    colour: str
    size: str | None
    x_px: float
    y_px: float
    radius_px: float


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn, and the caption that says so."""

    kind: Kind
    background: str
    figures: tuple[Figure, ...]
    position: str | None = None
    relation: str | None = None
    names_background: bool = True
    caption: str = ""


def is_held_out(shape: str, colour: str, background: str) -> bool:
    """Whether this triple is kept out of all training: a fixed tenth, by its CRC-32."""
    return zlib.crc32(f"{shape}|{colour}|{background}".encode()) % 10 == 0


def sample_scene(rng: Random, *, held_out: bool = False) -> Scene:
    """Draws a scene at random; with `held_out` only scenes that training never sees."""
    while True:
        scene = _sample_any(rng)
        unseen = any(
            is_held_out(figure.shape, figure.colour, scene.background) for figure in scene.figures
        )
        if unseen == held_out:
            return scene


def _sample_any(rng: Random) -> Scene:
    background = rng.choice(list(COLOURS))
    colours = [colour for colour in COLOURS if colour != background]
    kind = rng.choices(KINDS, _KIND_WEIGHTS)[0]
    samplers = {"one": _sample_one, "many": _sample_many, "pair": _sample_pair}
    scene = samplers[kind](rng, background, colours)
    if rng.random() < _UNNAMED_SHARE:
        scene = replace(scene, background=_default_background(scene), names_background=False)
    plain = rng.random() < _PLAIN_SHARE
    return replace(scene, caption=write_caption(scene, rng, plain=plain))


def _default_background(scene: Scene) -> str:
    taken = {figure.colour for figure in scene.figures}
    return next(colour for colour in DEFAULT_BACKGROUNDS if colour not in taken)


def _sample_shape(rng: Random) -> str:
    return rng.choices(SHAPES, _SHAPE_WEIGHTS)[0]


def _sample_one(rng: Random, background: str, colours: list[str]) -> Scene:
    size = rng.choice([None, *SINGLE_RADII_PX])
    shape, colour = _sample_shape(rng), rng.choice(colours)
    radius_px = rng.uniform(*SINGLE_RADII_PX[size or rng.choice(["medium", "large"])])
    said = rng.random() < 0.4  # noqa: PLR2004 - two pictures in five name a place
    position = rng.choice(list(POSITIONS)) if said else None
    margin_px = 1.15 * radius_px + 2
    x_px, y_px = _place(rng, position, margin_px)
    figure = Figure(
        shape,
        colour,
        size,
        min(max(x_px, margin_px), SIDE_PX - margin_px),
        min(max(y_px, margin_px), SIDE_PX - margin_px),
        radius_px,
    )
    return Scene("one", background, (figure,), position=position)


def _place(rng: Random, position: str | None, margin_px: float) -> Point:
    if position is None:
        return _MIDDLE_PX + rng.uniform(-4, 4), _MIDDLE_PX + rng.uniform(-4, 4)
    x_px: float
    y_px: float
    x_px, y_px = POSITIONS[position]
    near_px, far_px = 4 + margin_px, SIDE_PX - 4 - margin_px
    if position == "on the left":
        x_px = min(x_px, near_px)
    elif position == "on the right":
        x_px = max(x_px, far_px)
    elif position == "at the top":
        y_px = min(y_px, near_px)
    elif position == "at the bottom":
        y_px = max(y_px, far_px)
    return x_px + rng.uniform(-2, 2), y_px + rng.uniform(-2, 2)


def _sample_many(rng: Random, background: str, colours: list[str]) -> Scene:
    shape, colour = _sample_shape(rng), rng.choice(colours)
    if rng.random() < 0.5:  # noqa: PLR2004 - as many twos as threes
        layout = rng.choice(_TWO_LAYOUTS)
        size = rng.choice([None, "small", "large"])
        limit_px = math.inf
    else:
        (layout,) = rng.choices(_THREE_LAYOUTS, _THREE_LAYOUT_WEIGHTS)
        size = rng.choice([None, None, "small"])
        limit_px = _ROW_LARGEST_PX if layout is _THREE_IN_A_ROW else _THREE_LARGEST_PX
    radius_px = min(rng.uniform(*SHARED_RADII_PX[size or "medium"]), limit_px)
    figures = tuple(
        Figure(
            shape, colour, size, x + rng.uniform(-0.7, 0.7), y + rng.uniform(-0.7, 0.7), radius_px
        )
        for x, y in layout
    )
    return Scene("many", background, figures)


def _sample_pair(rng: Random, background: str, colours: list[str]) -> Scene:
    relation = rng.choices(list(_RELATION_CHOICES), list(_RELATION_CHOICES.values()))[0]
    dx, dy = RELATIONS[relation if relation in RELATIONS else SIDE_BY_SIDE]
    first = _sample_half(rng, colours, dx, dy)
    second = _sample_half(rng, colours, -dx, -dy)
    return Scene("pair", background, (first, second), relation=relation)


def _sample_half(rng: Random, colours: list[str], dx: int, dy: int) -> Figure:
    size = rng.choice([None, None, "small", "large"])
    distance_px = rng.uniform(15, 16)
    return Figure(
        _sample_shape(rng),
        rng.choice(colours),
        size,
        _MIDDLE_PX + dx * distance_px + rng.uniform(-1, 1),
        _MIDDLE_PX + dy * distance_px + rng.uniform(-1, 1),
        rng.uniform(*SHARED_RADII_PX[size or "medium"]),
    )


def outline(shape: str, corners: int = 40) -> list[Point]:
    """The shape's polygon about the origin, radius about 1, y down; curves have `corners` points.

    Raises:
        KeyError: The shape has no outline here.
    """
    if shape == "circle":
        angles = [2 * math.pi * index / corners for index in range(corners)]
        return [(math.cos(angle), math.sin(angle)) for angle in angles]
    if shape == "star":
        return [_star_corner(index) for index in range(10)]
    if shape == "heart":
        return [_heart_point(2 * math.pi * index / corners) for index in range(corners)]
    return _STRAIGHT_OUTLINES[shape]


def _star_corner(index: int) -> Point:
    radius = 0.46 if index % 2 else 1.12
    angle = -math.pi / 2 + index * math.pi / 5
    return radius * math.cos(angle), radius * math.sin(angle) + 0.06


def _heart_point(t: float) -> Point:
    x = 16 * math.sin(t) ** 3
    y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return x / 16, (-y - 2.5) / 15


def _cross(arm: float, half: float) -> list[Point]:
    quarter = [(-half, -arm), (half, -arm), (half, -half), (arm, -half), (arm, half), (half, half)]
    return quarter + [(-x, -y) for x, y in quarter]


_STRAIGHT_OUTLINES: dict[str, list[Point]] = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0.0, -1.0), (1.05, 0.85), (-1.05, 0.85)],
    "cross": _cross(arm=1.0, half=0.36),
}


def draw_scene(scene: Scene, rng: Random) -> Image.Image:
    """Draws the scene as an RGB picture of 64 x 64; `rng` only moves the colours a little."""
    side_px = SIDE_PX * SUPERSAMPLING
    image = Image.new("RGB", (side_px, side_px), _near(rng, COLOURS[scene.background]))
    pencil = ImageDraw.Draw(image)
    for figure in scene.figures:
        fill = _near(rng, COLOURS[figure.colour])
        corners = [
            (
                (figure.x_px + figure.radius_px * x) * SUPERSAMPLING,
                (figure.y_px + figure.radius_px * y) * SUPERSAMPLING,
            )
            for x, y in outline(figure.shape)
        ]
        pencil.polygon(corners, fill=fill)
    return image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)


def _near(rng: Random, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (
        int(min(255, max(0, value + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER))))
        for value in colour
    )
    return red, green, blue
