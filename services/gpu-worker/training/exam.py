"""The captions that a model is judged by: all of them hold a triple that training never draws.

Each also is the picture's seed: its number in its set, from 0 on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from training.captions import write_caption
from training.scenes import Scene, sample_scene
from training.words import plain_words

if TYPE_CHECKING:
    from collections.abc import Callable

_SEED = 4242
_PLAIN_CAPTIONS = Path(__file__).with_name("plain-captions.txt")
_PLAIN_WORDS = frozenset(plain_words())


@dataclass(frozen=True, slots=True)
class Question:
    """A caption and what is hard about it; `category` is of CATEGORIES, or "plain"."""

    category: str
    caption: str


@dataclass(frozen=True, slots=True)
class _Category:
    captions: int
    admits: Callable[[Scene], bool]
    is_plain: bool = True


def _has_star(scene: Scene) -> bool:
    return scene.figures[0].shape == "star"


def _is_related(scene: Scene) -> bool:
    return scene.relation not in {None, "next to"}


_CATEGORIES: Final = {
    "single": _Category(35, lambda scene: scene.kind == "one" and not _has_star(scene)),
    "alike": _Category(25, lambda scene: scene.kind == "many" and not _has_star(scene)),
    "star": _Category(30, lambda scene: scene.kind != "pair" and _has_star(scene)),
    "relation": _Category(40, lambda scene: scene.kind == "pair" and _is_related(scene)),
    "together": _Category(10, lambda scene: scene.kind == "pair" and not _is_related(scene)),
    "no background": _Category(30, lambda scene: not scene.names_background),
    "synonyms": _Category(30, lambda _: True, is_plain=False),
}

CATEGORIES: Final = {name: category.captions for name, category in _CATEGORIES.items()}
"""How many of the 200 mixed captions are of each kind.

One figure; two or three alike; one to three stars; a pair with a relation; a pair that stands
side by side or whose relation is not said; any figures without a background named; any figures in
free wording, with at least one word that is no plain one. All but the last are in plain words, and
all but "no background" name one.
"""


def mixed_questions() -> list[Question]:
    """The 200 captions of all categories, none twice; the same at every call."""
    found: dict[str, Question] = {}
    for name, category in _CATEGORIES.items():
        rng = random.Random(f"{_SEED} {name}")  # noqa: S311 - seeded on purpose
        wanted = len(found) + category.captions
        while len(found) < wanted:
            caption = _draw_caption(rng, name, category)
            if caption:
                found.setdefault(caption, Question(name, caption))
    return list(found.values())


def _draw_caption(rng: random.Random, name: str, category: _Category) -> str | None:
    scene = sample_scene(rng, held_out=True)
    if scene.names_background == (name == "no background") or not category.admits(scene):
        return None
    caption = write_caption(scene, rng, plain=category.is_plain)
    is_in_plain_words = _PLAIN_WORDS.issuperset(caption.replace(",", "").rstrip(".").split())
    return caption if is_in_plain_words == category.is_plain else None


def plain_questions() -> list[Question]:
    """The 100 captions, in plain words and all with a background, that judged the first weights."""
    captions = _PLAIN_CAPTIONS.read_text(encoding="utf-8").splitlines()
    return [Question("plain", caption) for caption in captions]
