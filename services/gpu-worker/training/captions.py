"""Says a scene in words: in the plain ones, or in any that mean the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from training.words import (
    COLOUR_NAMES,
    LEADS,
    NUMBER_NAMES,
    POSITION_NAMES,
    RELATION_NAMES,
    SHAPE_NAMES,
    SIZE_NAMES,
    TOGETHER,
    plural,
)

if TYPE_CHECKING:
    from random import Random

    from training.scenes import Figure, Scene

_PLAIN_BACKGROUNDS = (" on a {} background", " on {}", ", {} background")
_PLAIN_SHARES = (65, 25, 10)
_FREE_BACKGROUNDS = (
    *_PLAIN_BACKGROUNDS,
    ", on a {} background",
    " on a plain {} background",
    " with a {} background",
    " against a {} background",
    " {} background",
)
_FREE_SHARES = (25, 15, 10, 5, 5, 20, 10, 10)
_LEADING_BACKGROUNDS = ("{} background, ", "on a {} background, ", "a {} background with ")
_LEADING_SHARE = 0.1
_LEAD_SHARE = 0.1
_STOP_SHARE = 0.1
_PLACE_LAST_SHARE = 0.1
_COLOUR_FIRST_SHARE = 0.1
_BEFORE_ONE = ("a", "", "the", "one", "1")
_BEFORE_ONE_SHARES = (60, 20, 8, 8, 4)


def write_caption(scene: Scene, rng: Random, *, plain: bool) -> str:
    """Says what is in the scene, and its background if the scene wants that said.

    Args:
        scene: What to say.
        rng: Picks among words and forms of the same meaning.
        plain: Only plain names, in the order article, size, colour, shape, place, background.
    """
    return _Writer(rng, plain=plain).write(scene)


def write_canonical(scene: Scene) -> str:
    """The one caption of plain words that says everything of the scene in the usual order."""
    figures = [_described(figure) for figure in scene.figures]
    if scene.kind == "many":
        first = scene.figures[0]
        noun = _described(replace(first, shape=plural(first.shape)))
        subject = f"{NUMBER_NAMES[len(figures)][0]} {noun}"
    elif scene.kind == "pair":
        is_said = scene.relation not in {None, "next to"}
        joint = scene.relation if is_said else "to the left of"
        subject = f"{with_article(figures[0])} {joint} {with_article(figures[1])}"
    else:
        subject = " ".join(word for word in (with_article(figures[0]), scene.position) if word)
    return subject + _said(_PLAIN_BACKGROUNDS[0], scene.background)


def _described(figure: Figure) -> str:
    return " ".join(word for word in (figure.size, figure.colour, figure.shape) if word)


@dataclass(frozen=True, slots=True)
class _Writer:
    rng: Random
    plain: bool

    def write(self, scene: Scene) -> str:
        subject = self._subject(scene)
        place = f" {self._name(POSITION_NAMES[scene.position])}" if scene.position else ""
        if not scene.names_background:
            return self._framed(subject + place)
        colour = self._name(COLOUR_NAMES[scene.background])
        if self._happens(_LEADING_SHARE):
            return _said(self.rng.choice(_LEADING_BACKGROUNDS), colour) + subject + place
        forms, shares = (
            (_PLAIN_BACKGROUNDS, _PLAIN_SHARES) if self.plain else (_FREE_BACKGROUNDS, _FREE_SHARES)
        )
        (form,) = self.rng.choices(forms, shares)
        background = _said(form, colour)
        place_last = self._happens(_PLACE_LAST_SHARE)
        return self._framed(subject + (background + place if place_last else place + background))

    def _framed(self, text: str) -> str:
        """Now and then `a picture of` before it or a full stop behind it."""
        lead = f"{self.rng.choice(LEADS)} " if self._happens(_LEAD_SHARE) else ""
        return lead + text + ("." if self._happens(_STOP_SHARE) else "")

    def _subject(self, scene: Scene) -> str:
        first = scene.figures[0]
        if scene.kind == "many":
            number = self._name(NUMBER_NAMES[len(scene.figures)])
            return f"{number} {self._noun(first, several=True)}"
        if scene.kind == "pair":
            joint = self._name(RELATION_NAMES[scene.relation]) if scene.relation else TOGETHER
            return f"{self._one(first)} {joint} {self._one(scene.figures[1])}"
        return self._one(first)

    def _one(self, figure: Figure) -> str:
        noun = self._noun(figure)
        (article,) = ("a",) if self.plain else self.rng.choices(_BEFORE_ONE, _BEFORE_ONE_SHARES)
        return with_article(noun) if article == "a" else f"{article} {noun}".strip()

    def _noun(self, figure: Figure, *, several: bool = False) -> str:
        shape = self._name(SHAPE_NAMES[figure.shape])
        words = [
            self._name(SIZE_NAMES[figure.size]) if figure.size else "",
            self._name(COLOUR_NAMES[figure.colour]),
        ]
        if self._happens(_COLOUR_FIRST_SHARE):
            words.reverse()
        return " ".join(word for word in (*words, plural(shape) if several else shape) if word)

    def _name(self, names: tuple[str, ...]) -> str:
        return names[0] if self.plain else self.rng.choice(names)

    def _happens(self, share: float) -> bool:
        return not self.plain and self.rng.random() < share


def with_article(words: str) -> str:
    """The words after `a`, or `an` before a vowel."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def _said(form: str, colour: str) -> str:
    """The form with the colour in it, its article fitting."""
    if colour[0] in "aeiou":
        form = form.replace("a {}", "an {}")
    return form.format(colour)
