"""The captions that the judge reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shapes import Caption, Wanted, parse_caption
from tests.shapes.caption import COLOURS, POSITIONS, RELATIONS, SHAPES, SIZES

FIGURES = st.builds(
    Wanted, st.sampled_from(SHAPES), st.sampled_from(COLOURS), st.none() | st.sampled_from(SIZES)
)
BACKGROUNDS = st.sampled_from(COLOURS)
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
    Caption, BACKGROUNDS, st.tuples(FIGURES, FIGURES), relation=st.sampled_from(RELATIONS)
)


@given(caption=ONE | MANY | PAIR)
def test_a_caption_survives_being_written_and_read(caption: Caption) -> None:
    assert parse_caption(str(caption)) == caption


@given(caption=ONE | MANY | PAIR, form=st.sampled_from((" on {}", ", {} background")))
def test_the_background_may_be_said_in_short(caption: Caption, form: str) -> None:
    head, _, _ = str(caption).rpartition(" on ")
    assert parse_caption(head + form.format(caption.background)) == caption


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
        ("a red circle", "the end"),
        ("a red circle on a white", "the end"),
        ("a red circle on white and green", "'and'"),
        ("a red circle above", "the end"),
        ("", "the end"),
    ],
)
def test_what_is_no_caption_is_refused_by_its_word(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=rf"expected .*, found {word}$"):
        parse_caption(text)
