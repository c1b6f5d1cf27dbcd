"""How well a model keeps to captions that training never saw, as an independent judge sees it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from training.export import PRESET
from training.scenes import KINDS, SIDE_PX, Scene, sample_scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.progress import Bar

_CAPTION_SEED = 4242
_CHUNK = 25
_SHEET_COLUMNS = 10
_SHEET_GAP_PX = 1
_SHEET_GREY = (90, 90, 90)


class Verdict(Protocol):
    """What a judge says about a picture: right, wrong, or None where the caption asks nothing."""

    @property
    def background(self) -> bool:
        """The background has the caption's colour."""

    @property
    def count(self) -> bool:
        """As many figures as the caption names."""

    @property
    def colour(self) -> bool:
        """The figures' colours are the caption's."""

    @property
    def shape(self) -> bool:
        """The figures' shapes are the caption's."""

    @property
    def size(self) -> bool | None:
        """The figures have the sizes that the caption names."""

    @property
    def position(self) -> bool | None:
        """The figure is where the caption puts it."""

    @property
    def relation(self) -> bool | None:
        """The two figures lie to each other as the caption says."""

    @property
    def all_right(self) -> bool:
        """Everything that the caption says holds."""


if TYPE_CHECKING:
    Judge = Callable[[Image.Image, str], Verdict]

_QUESTIONS = (
    "background",
    "count",
    "colour",
    "shape",
    "size",
    "position",
    "relation",
    "all_right",
)


@dataclass(slots=True)
class Score:
    """How often an answer was right, of how often the question arose."""

    right: int = 0
    asked: int = 0

    def add(self, answer: bool | None) -> None:  # noqa: FBT001 - the answer is the datum
        """Counts an answer; None means that the question did not arise."""
        self.right += answer is True
        self.asked += answer is not None

    def __str__(self) -> str:
        return f"{self.right} of {self.asked}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a model, by question, and for everything right by kind of scene."""

    questions: dict[str, Score]
    kinds: dict[str, Score]

    def summary(self) -> str:
        """One line for people."""
        answers = [f"{name.replace('_', ' ')} {score}" for name, score in self.questions.items()]
        kinds = [f"{kind} {score}" for kind, score in self.kinds.items()]
        return f"held-out captions: {', '.join(answers)} ({', '.join(kinds)})"


def held_out_scenes(count: int) -> list[Scene]:
    """The first `count` scenes of a fixed row that training never draws."""
    rng = random.Random(_CAPTION_SEED)  # noqa: S311 - seeded on purpose
    return [sample_scene(rng, held_out=True) for _ in range(count)]


def evaluate_model(
    directory: Path, judge: Judge, captions: int, bar: Bar, sheet: Path | None = None
) -> Evaluation:
    """Makes one picture for each held-out caption with the preset's defaults and judges it.

    Args:
        directory: A pipeline directory; computed in float32 on the CPU.
        judge: Decides whether a picture fits a caption.
        captions: How many captions; the seed of a picture is its number.
        bar: Shows how far it is.
        sheet: Where a contact sheet of the pictures goes, as PNG, if anywhere.
    """
    scenes = held_out_scenes(captions)
    pictures = _generate(directory, [scene.caption for scene in scenes], bar)
    if sheet:
        _contact_sheet(pictures).save(sheet)
    questions = {name: Score() for name in _QUESTIONS}
    kinds: dict[str, Score] = {kind: Score() for kind in KINDS}
    for scene, picture in zip(scenes, pictures, strict=True):
        verdict = judge(picture, scene.caption)
        for name, score in questions.items():
            score.add(getattr(verdict, name))
        kinds[scene.kind].add(verdict.all_right)
    return Evaluation(questions, kinds)


def _generate(directory: Path, captions: list[str], bar: Bar) -> list[Image.Image]:
    pipeline = StableDiffusionPipeline.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    while len(pictures) < len(captions):
        first = len(pictures)
        chunk = captions[first : first + _CHUNK]
        generators = [torch.Generator().manual_seed(first + index) for index in range(len(chunk))]
        pictures += pipeline(
            chunk,
            num_inference_steps=PRESET["defaults"]["steps"],
            guidance_scale=PRESET["defaults"]["guidance"],
            generator=generators,
        ).images
        bar.show(len(pictures) / len(captions), f"picture {len(pictures)} of {len(captions)}")
    return pictures


def _contact_sheet(pictures: list[Image.Image]) -> Image.Image:
    pitch_px = SIDE_PX + 2 * _SHEET_GAP_PX
    rows = -(-len(pictures) // _SHEET_COLUMNS)
    sheet = Image.new("RGB", (_SHEET_COLUMNS * pitch_px, rows * pitch_px), _SHEET_GREY)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, _SHEET_COLUMNS)
        corner = (column * pitch_px + _SHEET_GAP_PX, row * pitch_px + _SHEET_GAP_PX)
        sheet.paste(picture, corner)
    return sheet
