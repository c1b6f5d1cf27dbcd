"""The captions that the judge reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shapes import Caption, Wanted, parse_caption
from tests.shapes.lexicon import (
    COLOUR_OF,
    COLOURS,
    COUNT_OF,
    PLURAL_OF,
    POSITION_OF,
    POSITIONS,
    RELATION_OF,
    RELATIONS,
    SHAPE_OF,
    SHAPES,
    SIZE_OF,
    SIZES,
)

FIGURES = st.builds(
    Wanted, st.sampled_from(SHAPES), st.sampled_from(COLOURS), st.none() | st.sampled_from(SIZES)
)
BACKGROUNDS = st.none() | st.sampled_from(COLOURS)
ONE = st.builds(
    Caption, BACKGROUNDS, st.tuples(FIGURES), position=st.none() | st.sampled_from(POSITIONS)
)
MANY = st.builds(
    lambda background, figure, count: Caption(background, (figure,) * count),
    BACKGROUNDS,
    FIGURES,
    st.sampled_from((2, 3)),
)
PAIR = st.builds(
    Caption,
    BACKGROUNDS,
    st.tuples(FIGURES, FIGURES),
    relation=st.none() | st.sampled_from(RELATIONS),
)


@given(caption=ONE | MANY | PAIR)
def test_a_caption_survives_being_written_and_read(caption: Caption) -> None:
    assert parse_caption(str(caption)) == caption


BEHIND = (
    " on a {} background",
    " on {}",
    ", {} background",
    " {} background",
    " with a {} background",
    " against the {} background",
    ", on a plain {} background.",
    " on {} background",
)
BEFORE = ("{} background, ", "on a {} background, ", "a {} background with ")


@given(
    caption=ONE | MANY | PAIR,
    colour=st.sampled_from(COLOURS),
    form=st.sampled_from(BEHIND + BEFORE),
)
def test_the_background_may_be_said_in_many_ways(caption: Caption, colour: str, form: str) -> None:
    figures = str(replace(caption, background=None))
    said = form.format(colour)
    text = said + figures if form in BEFORE else figures + said
    assert parse_caption(text) == replace(caption, background=colour)


@given(caption=ONE | MANY | PAIR, lead=st.sampled_from(("draw", "a photo of", "an image of")))
def test_a_lead_and_a_full_stop_ask_for_nothing(caption: Caption, lead: str) -> None:
    assert parse_caption(f"{lead} {caption}.") == caption


@pytest.mark.parametrize("words", [COLOUR_OF, SHAPE_OF, SIZE_OF, POSITION_OF], ids="cszp")
def test_words_of_the_same_meaning_are_the_same_to_the_judge(words: dict[str, str]) -> None:
    def caption(word: str) -> str:
        if words is POSITION_OF:
            return f"a red star {word} on blue"
        size, colour, shape = "small", "red", "star"
        if words is COLOUR_OF:
            colour = word
        elif words is SHAPE_OF:
            shape = word
        else:
            size = word
        return f"a {size} {colour} {shape} on blue"

    for word, meaning in words.items():
        assert parse_caption(caption(word)) == parse_caption(caption(meaning))


def test_numbers_plurals_and_relations_have_other_names_too() -> None:
    for number, count in COUNT_OF.items():
        for noun, shape in PLURAL_OF.items():
            caption = Caption("blue", (Wanted(shape, "red"),) * count)
            assert parse_caption(f"{number} red {noun} on blue") == caption
    for name, relation in RELATION_OF.items():
        caption = Caption(None, (Wanted("star", "red"), Wanted("heart", "red")), relation=relation)
        assert parse_caption(f"red star {name} the red heart") == caption


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        (
            "a red circle on a white background",
            Caption("white", (Wanted("circle", "red"),)),
        ),
        ("two red squares on blue", Caption("blue", (Wanted("square", "red"),) * 2)),
        (
            "  A large RED star on the left,  white background ",
            Caption("white", (Wanted("star", "red", "large"),), position="on the left"),
        ),
        (
            "an orange cross to the right of a small pink heart on gray",
            Caption(
                "gray",
                (Wanted("cross", "orange"), Wanted("heart", "pink", "small")),
                relation="to the right of",
            ),
        ),
        ("a red circle", Caption(None, (Wanted("circle", "red"),))),
        ("Grey disc", Caption(None, (Wanted("circle", "gray"),))),
        (
            "the violet huge box against a plain grey background on the left side.",
            Caption("gray", (Wanted("square", "purple", "large"),), position="on the left"),
        ),
        (
            "a pair of tiny aqua pluses",
            Caption(None, (Wanted("cross", "cyan", "small"),) * 2),
        ),
        (
            "white background, a red ball and 1 little green star",
            Caption("white", (Wanted("circle", "red"), Wanted("star", "green", "small"))),
        ),
        (
            "a red ball on the left of a pink heart on the white background",
            Caption(
                "white",
                (Wanted("circle", "red"), Wanted("heart", "pink")),
                relation="to the left of",
            ),
        ),
        (
            "a red ball beside a pink heart",
            Caption(None, (Wanted("circle", "red"), Wanted("heart", "pink")), relation="next to"),
        ),
    ],
)
def test_captions_mean_what_they_say(text: str, caption: Caption) -> None:
    assert parse_caption(text) == caption


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a red zebra on white", "'zebra'"),
        ("a mauve circle on white", "'mauve'"),
        ("a red circle on a mauve background", "'mauve'"),
        ("four red circles on white", "'four'"),
        ("two red circle on white", "'circle'"),
        ("a red circle on a white", "the end"),
        ("a red circle with white", "the end"),
        ("a red circle, white", "the end"),
        ("a red circle on", "the end"),
        ("a star on white", "'star'"),
        ("a small red large circle on white", "'large'"),
        ("two red circles on the left on white", "'left'"),
        ("a red circle on white on black", "'on'"),
        ("white background, a red circle on black", "'on'"),
        ("a red circle and on white", "'on'"),
        ("a picture a red circle", "'picture'"),
        ("a red circle on white and green", "'and'"),
        ("a red circle above", "the end"),
        ("", "the end"),
    ],
)
def test_what_is_no_caption_is_refused_by_its_word(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=rf"expected .*, found {word}$"):
        parse_caption(text)
