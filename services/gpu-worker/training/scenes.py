"""Captioned scenes: the grammar of the captions, and the drawing of what they say.

A scene is one figure, two or three alike, or a pair of figures with a relation, on a plain
background. Ten per cent of the (shape, colour, background) triples are held out of all training.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from PIL import Image, ImageDraw

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

PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "heart": "hearts",
    "cross": "crosses",
}
SHAPES = tuple(PLURALS)

SINGLE_RADII_PX = {"small": (8.5, 10.0), "medium": (13.0, 15.0), "large": (19.5, 22.0)}
"""Range of the radius of a figure that stands alone."""

SHARED_RADII_PX = {"small": (7.5, 8.5), "medium": (9.5, 10.5), "large": (11.8, 12.8)}
"""Range of the radius of a figure that shares the picture. Under 7.5 the latent loses the shape."""

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

NUMBERS = {2: "two", 3: "three"}

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
    return replace(scene, caption=scene.caption + _background_phrase(rng, background))


def _sample_one(rng: Random, background: str, colours: list[str]) -> Scene:
    size = rng.choice([None, *SINGLE_RADII_PX])
    shape, colour = rng.choice(SHAPES), rng.choice(colours)
    radius_px = rng.uniform(*SINGLE_RADII_PX[size or rng.choice(list(SINGLE_RADII_PX))])
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
    head = _with_article(_noun(figure)) + (f" {position}" if position else "")
    return Scene("one", background, (figure,), position=position, caption=head)


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
    count = rng.choice(list(NUMBERS))
    shape, colour = rng.choice(SHAPES), rng.choice(colours)
    pair = len(_TWO_LAYOUTS[0])
    size = rng.choice([None, "small", "large"]) if count == pair else None
    radius_px = rng.uniform(*SHARED_RADII_PX[size or rng.choice(["small", "medium"])])
    if count == pair:
        layout = rng.choice(_TWO_LAYOUTS)
    else:
        layout = rng.choice(_THREE_LAYOUTS)
        limit_px = _ROW_LARGEST_PX if layout is _THREE_IN_A_ROW else _THREE_LARGEST_PX
        radius_px = min(radius_px, limit_px)
    figures = tuple(
        Figure(
            shape, colour, size, x + rng.uniform(-0.7, 0.7), y + rng.uniform(-0.7, 0.7), radius_px
        )
        for x, y in layout
    )
    head = f"{NUMBERS[count]} {_noun(figures[0], plural=True)}"
    return Scene("many", background, figures, caption=head)


def _sample_pair(rng: Random, background: str, colours: list[str]) -> Scene:
    relation = rng.choice(list(RELATIONS))
    dx, dy = RELATIONS[relation]
    first = _sample_half(rng, colours, dx, dy)
    second = _sample_half(rng, colours, -dx, -dy)
    head = f"{_with_article(_noun(first))} {relation} {_with_article(_noun(second))}"
    return Scene("pair", background, (first, second), relation=relation, caption=head)


def _sample_half(rng: Random, colours: list[str], dx: int, dy: int) -> Figure:
    size = rng.choice([None, None, "small", "large"])
    radii_px = SHARED_RADII_PX[size or rng.choice(["small", "medium"])]
    distance_px = rng.uniform(15, 16)
    return Figure(
        rng.choice(SHAPES),
        rng.choice(colours),
        size,
        _MIDDLE_PX + dx * distance_px + rng.uniform(-1, 1),
        _MIDDLE_PX + dy * distance_px + rng.uniform(-1, 1),
        rng.uniform(*radii_px),
    )


def _noun(figure: Figure, *, plural: bool = False) -> str:
    shape = PLURALS[figure.shape] if plural else figure.shape
    return " ".join(word for word in (figure.size, figure.colour, shape) if word)


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _background_phrase(rng: Random, background: str) -> str:
    form = rng.random()
    if form < 0.65:  # noqa: PLR2004 - the three forms have shares 65, 25 and 10 per cent
        return f" on {_with_article(background)} background"
    if form < 0.9:  # noqa: PLR2004
        return f" on {background}"
    return f", {background} background"


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


def known_words() -> list[str]:
    """Every word that a caption may hold and so the model learns, lower-case and sorted.

    A prompt's words are its runs of letters and digits, in lower case; all else only parts them.
    """
    filling = (
        "a an on background in the center left right at top bottom to of above below two three "
        "small medium large"
    )
    return sorted({*filling.split(), *COLOURS, *SHAPES, *PLURALS.values()})


def domain_words() -> list[str]:
    """Every word that should be one token: those of the grammar and a few near it, sorted."""
    nearby = ", image picture drawing photo shape and with"
    return sorted({*known_words(), *nearby.split()})
