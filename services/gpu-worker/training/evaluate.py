"""How well a model keeps to captions that training never saw, as an independent judge sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from diffusers import StableDiffusionPipeline

from training.export import PRESET
from training.sheet import contact_sheet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from PIL import Image

    from training.exam import Question
    from training.progress import Bar

_CHUNK = 25


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the judged pictures are made; by default as the preset says."""

    steps: int = PRESET["defaults"]["steps"]
    guidance: float = PRESET["defaults"]["guidance"]


class Verdict(Protocol):
    """What a judge says about a picture: right, wrong, or None where the caption asks nothing."""

    @property
    def background(self) -> bool:
        """The background has the caption's colour, or any that fits where it names none."""

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
    def binding(self) -> bool:
        """Each shape has its own colour."""

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

_FIELDS = ("background", "count", "colour", "shape", "binding", "size", "position", "relation")
_EVERYTHING = "everything"


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
class Answer:
    """What the model drew for a caption, and the fields in which that is wrong."""

    question: Question
    picture: Image.Image
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a model by field, for everything right by category, and each answer."""

    fields: dict[str, Score]
    categories: dict[str, Score]
    answers: tuple[Answer, ...]

    def summary(self) -> str:
        """A table for people, and a line for each caption that was missed."""
        everything = self.fields[_EVERYTHING]
        lines = [f"{everything.asked} captions that training never saw: {everything} all right"]
        for title, scores in (("all right by category", self.categories), ("right", self.fields)):
            lines += ["", title]
            lines += [f"  {name:<14}{score!s:>10}" for name, score in scores.items()]
        missed = [
            f"  {number:>3} {answer.question.caption}: {', '.join(answer.wrong)}"
            for number, answer in enumerate(self.answers)
            if answer.wrong
        ]
        return "\n".join([*lines, *(["", "wrong", *missed] if missed else [])])

    def as_dict(self) -> dict[str, Any]:
        """The same for programs; an answer's number is also the seed of its picture."""
        return {
            "captions": len(self.answers),
            "categories": {name: _numbers(score) for name, score in self.categories.items()},
            "fields": {name: _numbers(score) for name, score in self.fields.items()},
            "wrong": [
                {
                    "number": number,
                    "category": answer.question.category,
                    "caption": answer.question.caption,
                    "fields": answer.wrong,
                }
                for number, answer in enumerate(self.answers)
                if answer.wrong
            ],
        }


def _numbers(score: Score) -> dict[str, int]:
    return {"right": score.right, "asked": score.asked}


def evaluate_model(
    directory: Path,
    judge: Judge,
    questions: Sequence[Question],
    bar: Bar,
    *,
    sheet: Path | None = None,
    sampling: Sampling | None = None,
) -> Evaluation:
    """Makes one picture for each caption and judges it.

    Args:
        directory: A pipeline directory; computed in float32 on the CPU.
        judge: Decides whether a picture fits a caption.
        questions: The captions; the seed of a picture is its caption's number.
        bar: Shows how far it is.
        sheet: Where a contact sheet of the pictures goes, as PNG, if anywhere.
        sampling: Steps and guidance, if not the preset's.
    """
    captions = [question.caption for question in questions]
    pictures = _generate(directory, captions, sampling or Sampling(), bar)
    fields = {name: Score() for name in (*_FIELDS, _EVERYTHING)}
    categories = {question.category: Score() for question in questions}
    answers: list[Answer] = []
    for question, picture in zip(questions, pictures, strict=True):
        verdict = judge(picture, question.caption)
        for name in _FIELDS:
            fields[name].add(getattr(verdict, name))
        fields[_EVERYTHING].add(verdict.all_right)
        categories[question.category].add(verdict.all_right)
        wrong = tuple(name for name in _FIELDS if getattr(verdict, name) is False)
        answers.append(Answer(question, picture, wrong))
    if sheet:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(answers).save(sheet)
    return Evaluation(fields, categories, tuple(answers))


def _generate(
    directory: Path, captions: list[str], sampling: Sampling, bar: Bar
) -> list[Image.Image]:
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
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            generator=generators,
        ).images
        bar.show(len(pictures) / len(captions), f"picture {len(pictures)} of {len(captions)}")
    return pictures
