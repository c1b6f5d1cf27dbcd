"""The judge accepts pictures that fit their caption and no others."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from tests.shapes import Caption, Wanted, check, look, parse_caption
from tests.shapes.__main__ import main
from tests.shapes.lexicon import COLOURS, POSITIONS, RELATIONS, SHAPES, SIZES
from training.scenes import COLOURS as DRAWN_COLOURS
from training.scenes import Figure, Kind, Scene, draw_scene, sample_scene

if TYPE_CHECKING:
    from collections.abc import Iterator

RED_CIRCLE = "a red circle on a white background"


def scenes(count: int, seed: int) -> Iterator[tuple[Scene, Image.Image]]:
    rng = random.Random(seed)
    for index in range(count):
        scene = sample_scene(rng, held_out=index % 3 == 0)
        yield scene, draw_scene(scene, rng)


def draw(background: str, *figures: Figure, kind: Kind = "one") -> Image.Image:
    return draw_scene(Scene(kind, background, figures), random.Random(0))


def circle(colour: str, x_px: float = 32, y_px: float = 32, radius_px: float = 14) -> Figure:
    return Figure("circle", colour, None, x_px, y_px, radius_px)


def contrary(relation: str) -> list[str]:
    """The relations that do not hold where this one does."""
    sideways = {"to the left of", "to the right of"}
    also = {relation, *(sideways if relation == "next to" else ())}
    also |= {"next to"} if relation in sideways else set()
    return [other for other in RELATIONS if other not in also]


def changed(caption: Caption, rng: random.Random) -> Iterator[tuple[str, Caption]]:
    """The caption with one thing in it made wrong, for each thing that it says."""

    def other(words: tuple[str, ...], *, than: str | None) -> str:
        return rng.choice([word for word in words if word != than])

    first, *rest = caption.figures
    interchangeable = any(
        (figure.shape, figure.colour) == (first.shape, first.colour)
        and (figure.size == first.size or None in {figure.size, first.size})
        for figure in rest
    )

    def with_first(figure: Wanted) -> Caption:
        is_row = set(caption.figures) == {first} and caption.relation is None
        figures = (figure,) * len(caption.figures) if is_row else (figure, *rest)
        return replace(caption, figures=figures)

    if caption.background:
        yield "background", replace(caption, background=other(COLOURS, than=caption.background))
    yield "colour", with_first(replace(first, colour=other(COLOURS, than=first.colour)))
    yield "shape", with_first(replace(first, shape=other(SHAPES, than=first.shape)))
    if first.size:
        yield "size", with_first(replace(first, size=other(SIZES, than=first.size)))
    if caption.position:
        yield "position", replace(caption, position=other(POSITIONS, than=caption.position))
    if caption.relation:
        if not interchangeable:
            yield "relation", replace(caption, relation=rng.choice(contrary(caption.relation)))
    elif not rest or set(rest) == {first}:
        count = 1 + len(caption.figures) % 3
        yield "count", replace(caption, figures=(first,) * count, position=None)


def test_true_scenes_are_accepted() -> None:
    refused = [
        scene.caption
        for scene, picture in scenes(300, seed=11)
        if not check(picture, scene.caption).all_right
    ]
    assert refused == []


def test_scenes_with_one_thing_changed_are_rejected() -> None:
    rng = random.Random(13)
    accepted, tried = (
        [],
        dict.fromkeys(
            ("background", "colour", "shape", "size", "position", "relation", "count"), 0
        ),
    )
    for scene, picture in scenes(300, seed=12):
        for field, caption in changed(parse_caption(scene.caption), rng):
            tried[field] += 1
            verdict = check(picture, str(caption))
            if verdict.all_right or getattr(verdict, field) is not False:
                accepted.append((scene.caption, str(caption), verdict))
    assert accepted == []
    assert min(tried.values()) > 30


def test_flat_pictures_are_rejected() -> None:
    for scene, _ in scenes(50, seed=14):
        picture = Image.new("RGB", (64, 64), DRAWN_COLOURS[scene.background])
        verdict = check(picture, scene.caption)
        assert verdict.background
        assert not verdict.count
        assert not verdict.all_right


@pytest.mark.parametrize("caption", [RED_CIRCLE, "a gray square on gray"])
def test_noise_is_rejected_in_every_respect(caption: str) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    verdict = check(picture, caption)
    assert not verdict.background
    assert not verdict.colour
    assert not verdict.all_right


def test_the_fields_are_told_apart() -> None:
    verdict = check(draw("white", circle("blue")), RED_CIRCLE)
    assert (verdict.background, verdict.count, verdict.shape) == (True, True, True)
    assert (verdict.colour, verdict.colour_right, verdict.shape_right) == (False, False, True)
    assert (verdict.size, verdict.position, verdict.relation) == (None, None, None)


def test_colours_swapped_between_shapes_are_no_binding() -> None:
    square = Figure("square", "red", None, 48, 32, 9)
    picture = draw("white", circle("blue", x_px=16, radius_px=9), square)
    verdict = check(picture, "a red circle to the left of a blue square on white")
    assert verdict.colour_right
    assert verdict.shape_right
    assert not verdict.binding
    assert not verdict.all_right


def test_an_unnamed_background_is_any_known_colour_that_contrasts() -> None:
    for background in ("white", "black", "yellow"):
        assert check(draw(background, circle("red")), "a red circle").all_right
    unknown = draw("white", circle("red"))
    unknown.paste(
        (150, 90, 40), mask=unknown.getchannel("G").point(lambda green: 255 * (green > 150))
    )
    verdict = check(unknown, "a red circle")
    assert (verdict.background, verdict.shape) == (False, True)
    assert not check(draw("red", circle("white")), "a red circle").background
    noisy = draw("white", circle("red"))
    noisy.paste((0, 0, 0), (0, 0, 64, 8))
    assert not check(noisy, "a red circle").all_right


def test_two_figures_without_a_relation_may_lie_anyhow() -> None:
    square = Figure("square", "blue", None, 48, 32, 9)
    for x_px, y_px in ((16, 32), (48, 10), (20, 54)):
        picture = draw("white", circle("red", x_px, y_px, 9), square)
        assert check(picture, "a red circle and a blue square").all_right
        assert check(picture, "a blue square and a red circle").all_right
        assert not check(picture, "a red circle and a green square").all_right
        assert not check(picture, "a red square and a blue circle").all_right
    assert not check(draw("white", square), "a red circle and a blue square").count


def test_next_to_is_left_or_right_but_not_above() -> None:
    beside = draw("white", circle("red", 16, 32, 9), Figure("square", "blue", None, 48, 32, 9))
    above = draw("white", circle("red", 32, 16, 9), Figure("square", "blue", None, 32, 48, 9))
    for caption in ("a red circle next to a blue square", "a blue box beside a red ball"):
        assert check(beside, caption).all_right
        assert check(above, caption).relation is False


def test_figures_alike_but_for_their_size_are_matched_by_place() -> None:
    small, large = circle("red", 16, 32, 8), circle("red", 48, 32, 12)
    picture = draw("white", large, small)
    assert check(picture, "a small red circle to the left of a large red circle on white").all_right
    verdict = check(picture, "a large red circle to the left of a small red circle on white")
    assert not verdict.all_right
    assert (verdict.size, verdict.relation).count(False) == 1


def test_what_a_missing_figure_leaves_open_is_wrong() -> None:
    picture = draw("white", circle("red"))
    pair = check(picture, "a small red circle above a red star on white")
    assert (pair.count, pair.size, pair.relation) == (False, False, False)
    placed = check(Image.new("RGB", (64, 64), "white"), "a red circle on the left on white")
    assert (placed.count, placed.position) == (False, False)


def test_an_ellipse_is_no_circle() -> None:
    picture = draw("white", circle("red", radius_px=10)).resize((64, 128)).crop((0, 32, 64, 96))
    verdict = check(picture, RED_CIRCLE)
    assert verdict.colour
    assert not verdict.shape


def test_specks_are_no_figures() -> None:
    picture = draw("white", circle("red"))
    picture.paste((0, 0, 255), (3, 3, 7, 7))  # too little area
    picture.paste((0, 0, 255), (10, 60, 40, 61))  # too thin
    assert check(picture, RED_CIRCLE).all_right


def test_a_blurred_and_noisy_picture_still_fits() -> None:
    rng = np.random.default_rng(0)
    pixels = np.asarray(draw("white", circle("red"))).astype(float) + rng.normal(0, 6, (64, 64, 3))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    assert check(picture, RED_CIRCLE).all_right


def test_bytes_and_larger_pictures_are_judged_alike() -> None:
    picture = draw("white", circle("red"))
    file = io.BytesIO()
    picture.resize((256, 256)).convert("RGBA").save(file, "PNG")
    assert check(file.getvalue(), RED_CIRCLE) == check(picture, RED_CIRCLE)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="128 x 64 is not square"):
        look(Image.new("RGB", (128, 64)))
    with pytest.raises(UnidentifiedImageError):
        check(b"no picture", RED_CIRCLE)
    with pytest.raises(ValueError, match="zebra"):
        check(Image.new("RGB", (64, 64)), "a zebra")


def test_the_command_line_prints_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "picture.png"
    draw("white", circle("red")).save(file)
    assert main([str(file), RED_CIRCLE]) == 0
    assert "all right  yes" in capsys.readouterr().out
    assert main([str(file), "a blue circle on a white background"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert "colour     wrong" in shown
    assert "size       not asked" in shown
    assert main([str(file), "a zebra"]) == 2
    assert "zebra" in capsys.readouterr().err
    assert main([str(tmp_path / "absent.png"), RED_CIRCLE]) == 2
