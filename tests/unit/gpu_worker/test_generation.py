"""Whether a model of this worker can draw what is asked."""

import math
from dataclasses import replace

import pytest

from easel_kit.errors import InvalidInput
from gpu_worker.domain.generation import Limits, check_generation
from tests.fakes.gpu_worker import CARD, generation

LIMITS = Limits(max_pixels=128 * 128, max_images=4)
ANY_SIZE = replace(CARD, sizes=())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 1},
        {"steps": 100},
        {"guidance": 0.0},
        {"guidance": 100.0},
        {"image_count": 4},
        {"seed": 2**32 - 1},
        {"negative_prompt": "x" * 2000},
        {"sampler": "euler"},
    ],
)
def test_what_the_model_can_draw_passes(changes: dict[str, object]) -> None:
    check_generation(generation(**changes), CARD, LIMITS)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"negative_prompt": "x" * 2001}, "negative_prompt"),
        ({"steps": 0}, "steps"),
        ({"steps": 101}, "steps"),
        ({"guidance": -0.1}, "guidance"),
        ({"guidance": 100.1}, "guidance"),
        ({"guidance": math.nan}, "guidance"),
        ({"guidance": math.inf}, "guidance"),
        ({"sampler": "lcm"}, "sampler"),
        ({"image_count": 0}, "image_count"),
        ({"image_count": 5}, "image_count"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"width_px": 0}, "width_px"),
        ({"width_px": 63}, "width_px"),
        ({"height_px": 65}, "height_px"),
        ({"width_px": 72}, "width_px"),
    ],
)
def test_what_it_cannot_draw_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_generation(generation(**changes), CARD, LIMITS)
    assert refused.value.field == field


def test_a_model_without_sizes_draws_any_up_to_the_workers_limit() -> None:
    check_generation(generation(width_px=256, height_px=64), ANY_SIZE, LIMITS)
    with pytest.raises(InvalidInput, match="must be at most 16384"):
        check_generation(generation(width_px=264, height_px=64), ANY_SIZE, LIMITS)


def test_seeds_of_further_pictures_count_on_and_wrap() -> None:
    asked = generation(seed=2**32 - 1)
    assert [asked.seed_of(index) for index in range(3)] == [2**32 - 1, 0, 1]
