"""The wordings of a scene, as training writes them and the judge reads them."""

from __future__ import annotations

import random
import re
from collections import Counter

from tests.shapes import Caption, parse_caption
from training.captions import write_canonical, write_caption
from training.exam import CATEGORIES, mixed_questions, plain_questions
from training.scenes import (
    DEFAULT_BACKGROUNDS,
    SIDE_BY_SIDE,
    is_held_out,
    sample_scene,
)
from training.words import known_words, plain_words


def test_no_wording_lets_a_held_out_triple_into_training() -> None:
    rng = random.Random(9)
    for scene in (sample_scene(rng) for _ in range(500)):
        wording = parse_caption(write_caption(scene, rng, plain=False))
        assert wording.background == (scene.background if scene.names_background else None)
        for figure in wording.figures:
            assert not is_held_out(figure.shape, figure.colour, scene.background), scene.caption


def test_the_judge_understands_every_wording_as_it_was_meant() -> None:
    rng = random.Random(10)
    for index in range(1500):
        scene = sample_scene(rng, held_out=index % 2 == 0)
        read = parse_caption(scene.caption)
        assert read.background == (scene.background if scene.names_background else None)
        assert (read.position, read.relation) == (scene.position, scene.relation)
        assert [(figure.shape, figure.colour, figure.size) for figure in read.figures] == [
            (figure.shape, figure.colour, figure.size) for figure in scene.figures
        ]


def test_an_unnamed_background_is_drawn_so_that_the_figures_show() -> None:
    rng = random.Random(11)
    scenes = [
        scene for scene in (sample_scene(rng) for _ in range(800)) if not scene.names_background
    ]
    assert len(scenes) > 50
    for scene in scenes:
        colours = {figure.colour for figure in scene.figures}
        white_is_free = "white" not in colours
        assert scene.background not in colours
        assert (scene.background == "white") == white_is_free


def test_plain_captions_use_plain_words_and_free_ones_all() -> None:
    rng = random.Random(12)
    words: dict[bool, set[str]] = {True: set(), False: set()}
    for scene in (sample_scene(rng) for _ in range(3000)):
        for plain, seen in words.items():
            seen |= set(re.findall(r"[^\W_]+", write_caption(scene, rng, plain=plain)))
    assert words[True] == set(plain_words())
    assert words[False] == set(known_words())


def test_the_captions_of_the_judgement_are_fixed_and_all_held_out() -> None:
    questions = mixed_questions()
    assert questions == mixed_questions()
    assert len({question.caption for question in questions}) == len(questions) == 200
    assert Counter(question.category for question in questions) == CATEGORIES
    assert len(plain_questions()) == 100
    for question in (*questions, *plain_questions()):
        read = parse_caption(question.caption)
        backgrounds = {read.background} if read.background else set(DEFAULT_BACKGROUNDS)
        assert any(
            is_held_out(figure.shape, figure.colour, background)
            for figure in read.figures
            for background in backgrounds
        ), question


def test_the_categories_hold_what_they_say() -> None:
    read: dict[str, list[Caption]] = {}
    for question in mixed_questions():
        read.setdefault(question.category, []).append(parse_caption(question.caption))
    assert all(len(caption.figures) == 1 for caption in read["single"])
    assert all(len(set(caption.figures)) == 1 for caption in read["alike"] + read["star"])
    assert all(caption.figures[0].shape == "star" for caption in read["star"])
    assert all(caption.relation not in {None, "next to"} for caption in read["relation"])
    assert all(caption.relation in {None, "next to"} for caption in read["together"])
    for category, captions in read.items():
        assert all(
            (caption.background is None) == (category == "no background") for caption in captions
        )
    plain = set(plain_words())
    for question in mixed_questions():
        words = set(re.findall(r"[^\W_]+", question.caption))
        assert words.issubset(plain) == (question.category != "synonyms")


def test_the_canonical_caption_says_all() -> None:
    rng = random.Random(15)
    for scene in (sample_scene(rng) for _ in range(300)):
        read = parse_caption(write_canonical(scene))
        assert read.background == scene.background
        assert read.position == scene.position
        assert read.relation == (
            {None: SIDE_BY_SIDE, "next to": SIDE_BY_SIDE}.get(scene.relation, scene.relation)
            if scene.kind == "pair"
            else None
        )
