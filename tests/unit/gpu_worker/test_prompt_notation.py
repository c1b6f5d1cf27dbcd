"""Prompts with weights: what is notation, what is text, and that nothing breaks the parser."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.vocabulary import unknown_words
from gpu_worker.engine.weighting import MAX_WEIGHT, Weighted, apply_weights, parse

NOTATION = st.text(st.sampled_from("ab :.()\\0123-"), max_size=40)
WORDS = st.text(st.characters(exclude_characters="()\\:"), min_size=1, max_size=12)


def spans(parsed: Weighted) -> list[tuple[str, float]]:
    """Stretches of one weight."""
    found: list[tuple[str, float]] = []
    weights = parsed.weights or (1.0,) * len(parsed.text)
    for character, weight in zip(parsed.text, weights, strict=True):
        if found and found[-1][1] == weight:
            found[-1] = (found[-1][0] + character, weight)
        else:
            found.append((character, weight))
    return found


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (red:1.3) cat", [("a ", 1.0), ("red", 1.3), (" cat", 1.0)]),
        ("(red cat:.5)", [("red cat", 0.5)]),
        ("(red : 2)", [("red", 2.0)]),
        ("(red:0) cat", [("red", 0.0), (" cat", 1.0)]),
        ("(a (b:1.5) c:0.5)", [("a ", 0.5), ("b", 0.75), (" c", 0.5)]),
        ("((a:2):2)", [("a", 2.0)]),
        ("(at 10:30:1.2)", [("at 10:30", 1.2)]),
        ("((a):1.5)", [("(a)", 1.5)]),
        ("(a\nb:1.5)", [("a\nb", 1.5)]),
        (r"(a\):1.5)", [("a)", 1.5)]),
    ],
)
def test_a_number_after_a_colon_weighs_the_words(
    prompt: str, expected: list[tuple[str, float]]
) -> None:
    assert spans(parse(prompt)) == expected


@pytest.mark.parametrize(
    "prompt",
    ["", "a cat", "(a cat)", "((a cat))", "a:1.3", "(a:", "a:1.3)", "(:1.3)", "( :1.3)", "(a:b)",
     "(a:-1)", "(a:1e3)", "(a:)", ")(", "[a:1.2]", "(a", r"a \ b", "(a:1.3", "(a:1.3.4)"],
)  # fmt: skip
def test_everything_else_is_text(prompt: str) -> None:
    assert parse(prompt) == Weighted(prompt)


def test_escaped_parentheses_are_parentheses() -> None:
    assert parse(r"cat \(toy:1.3\)") == Weighted("cat (toy:1.3)")


def test_a_weight_out_of_bounds_stays_text_and_is_told() -> None:
    parsed = parse("(cat:3)")
    assert (parsed.text, parsed.weights) == ("(cat:3)", ())
    assert parsed.warnings == ("weight 3 is not from 0 to 2: left as text",)


@given(NOTATION)
def test_it_never_fails_and_invents_nothing(prompt: str) -> None:
    parsed = parse(prompt)
    assert not parsed.weights or len(parsed.weights) == len(parsed.text)
    assert all(0 <= weight <= MAX_WEIGHT for weight in parsed.weights)
    left = iter(prompt)
    assert all(character in left for character in parsed.text)  # a subsequence of the prompt


@given(WORDS, WORDS)
def test_words_without_notation_come_out_as_they_are(one: str, two: str) -> None:
    assert parse(f"{one}({two})") == Weighted(f"{one}({two})")


@given(WORDS.filter(str.strip))
def test_weight_one_is_no_weight(words: str) -> None:
    parsed = parse(f"({words}:1.0)")
    assert parsed.weights == ()
    assert parsed.text == words.rstrip()


def test_tokens_weigh_what_their_first_character_weighs() -> None:
    parsed = parse("a (red:1.5) cat")
    assert parsed.of_tokens([(0, 0), (0, 1), (2, 5), (6, 9), (0, 0)]) == [1, 1, 1.5, 1, 1]


def test_weights_move_tokens_along_the_line_from_the_empty_prompt() -> None:
    encoded, empty = torch.rand(1, 4, 8), torch.rand(1, 4, 8)
    found = apply_weights(encoded, empty, [1.0, 0.0, 1.5, 1.0])
    assert torch.equal(found[:, [0, 3]], encoded[:, [0, 3]])
    assert torch.equal(found[:, 1], empty[:, 1])
    assert torch.allclose(found[:, 2] - encoded[:, 2], 0.5 * (encoded - empty)[:, 2])


# --- words that a model was never taught ----------------------------------------------------------


def test_only_unknown_words_are_named_once() -> None:
    known = frozenset({"red", "circle", "a"})
    assert unknown_words("A RED circle, a zebra; Zebra's red-ish zebra", known) == (
        "words that the model does not know: zebra, s, ish",
    )
    assert unknown_words("a red circle!", known) == ()


def test_a_model_without_a_fixed_vocabulary_knows_everything() -> None:
    assert unknown_words("anything at all", None) == ()


@given(st.text(max_size=60))
def test_any_text_can_be_looked_through(prompt: str) -> None:
    assert len(unknown_words(prompt, frozenset())) <= 1
