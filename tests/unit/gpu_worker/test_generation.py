"""Whether a model of this worker can draw what is asked."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easel_kit.errors import InvalidInput
from easel_kit.ids import ModelKey
from gpu_worker.domain.admission import check_generation, final_size, find_missing_model
from gpu_worker.domain.generation import (
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Limits,
    Lora,
    Output,
)
from tests.fakes.gpu_worker import ABLE, CARD, EDGES, INK, generation

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
    check_generation(generation(**changes), [CARD], LIMITS)


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
        check_generation(generation(**changes), [CARD], LIMITS)
    assert refused.value.field == field


def test_a_model_without_sizes_draws_any_up_to_the_workers_limit() -> None:
    check_generation(generation(width_px=256, height_px=64), [ANY_SIZE], LIMITS)
    with pytest.raises(InvalidInput, match="must be at most 16384"):
        check_generation(generation(width_px=264, height_px=64), [ANY_SIZE], LIMITS)


# --- beyond a prompt --------------------------------------------------------------------------

BEGUN = InitImage("users/a/in.png", 0.5)
MASKED = replace(BEGUN, mask_object_key="users/a/mask.png")
CONTROL = Control(ModelKey("edges"), "users/a/edges.png")
HIRES = Hires(1.5, 10, 0.5)
LORA = Lora(ModelKey("ink"), 1.0)
CATALOGUE = [replace(ABLE, sizes=()), INK, EDGES]


@pytest.mark.parametrize(
    "changes",
    [
        {"loras": (LORA,)},
        {"loras": (replace(LORA, weight=-4.0),)},
        {"init_image": BEGUN},
        {"init_image": replace(MASKED, strength=1.0)},
        {"init_image": MASKED, "hires": HIRES},
        {"controls": (CONTROL, replace(CONTROL, object_key="users/a/more.png"))},
        {"controls": (replace(CONTROL, weight=0.0, begin=0.5, end=0.51),)},
        {"hires": replace(HIRES, scale=2.0, strength=1.0, steps=100)},
        {"clip_skip": 12},
        {"output": Output(ImageFormat.WEBP, 100)},
    ],
)
def test_what_goes_beyond_a_prompt_passes(changes: dict[str, object]) -> None:
    check_generation(generation(**changes), CATALOGUE, LIMITS)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"loras": (replace(LORA, weight=4.1),)}, "loras.0.weight"),
        ({"loras": (LORA, LORA)}, "loras.1.model_key"),
        ({"loras": (LORA, replace(LORA, model_key=ModelKey("x")))}, "loras.1.model_key"),
        ({"loras": (replace(LORA, model_key=ModelKey("edges")),)}, "loras.0.model_key"),
        (
            {"loras": tuple(Lora(ModelKey(f"x{index}"), 1.0) for index in range(17))},
            "loras",
        ),
        ({"init_image": replace(BEGUN, strength=0.0)}, "init_image.strength"),
        ({"init_image": replace(BEGUN, strength=math.nan)}, "init_image.strength"),
        ({"init_image": replace(MASKED, object_key="")}, "init_image.object_key"),
        ({"controls": (CONTROL, CONTROL)}, "controls.1.model_key"),
        ({"controls": (replace(CONTROL, model_key=ModelKey("ink")),)}, "controls.0.model_key"),
        ({"controls": (replace(CONTROL, object_key=""),)}, "controls.0.object_key"),
        ({"controls": (replace(CONTROL, weight=2.1),)}, "controls.0.weight"),
        ({"controls": (replace(CONTROL, begin=-0.1),)}, "controls.0.begin"),
        ({"controls": (replace(CONTROL, end=1.1),)}, "controls.0.end"),
        ({"controls": (replace(CONTROL, begin=0.5, end=0.5),)}, "controls.0.begin"),
        (
            {"controls": tuple(replace(CONTROL, object_key=f"{index}") for index in range(9))},
            "controls",
        ),
        ({"hires": replace(HIRES, scale=1.0)}, "hires.scale"),
        ({"hires": replace(HIRES, scale=2.1)}, "hires.scale"),  # 136 x 136: too many pixels
        ({"hires": replace(HIRES, steps=0)}, "hires.steps"),
        ({"hires": replace(HIRES, steps=101)}, "hires.steps"),
        ({"hires": replace(HIRES, strength=1.1)}, "hires.strength"),
        ({"clip_skip": 13}, "clip_skip"),
        ({"output": Output(quality=101)}, "output.quality"),
    ],
)
def test_what_goes_too_far_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_generation(generation(**changes), CATALOGUE, LIMITS)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("changes", "feature", "field"),
    [
        ({"loras": (LORA,)}, "loras", "loras"),
        ({"init_image": BEGUN}, "image_to_image", "init_image"),
        ({"init_image": MASKED}, "inpaint", "init_image.mask_object_key"),
        ({"controls": (CONTROL,)}, "controls", "controls"),
        ({"hires": HIRES}, "hires", "hires"),
        ({"clip_skip": 1}, "clip_skip", "clip_skip"),
    ],
)
def test_a_model_is_asked_only_for_what_it_offers(
    changes: dict[str, object], feature: str, field: str
) -> None:
    asked = generation(**changes)
    only = replace(CATALOGUE[0], features=(feature,))
    check_generation(asked, [only, INK, EDGES], LIMITS)
    with pytest.raises(InvalidInput, match="does not offer this") as refused:
        check_generation(asked, [ANY_SIZE, INK, EDGES], LIMITS)
    assert refused.value.field == field


def test_an_adapter_must_be_made_for_the_model() -> None:
    other = replace(INK, base="sdxl")
    with pytest.raises(InvalidInput, match="ink is made for sdxl, not for sd-1"):
        check_generation(generation(loras=(LORA,)), [ABLE, other], LIMITS)
    check_generation(generation(loras=(LORA,)), [ABLE, replace(INK, base="")], LIMITS)


def test_only_a_main_model_draws() -> None:
    with pytest.raises(InvalidInput, match="model_key: ink is of type lora, not main"):
        check_generation(generation(model_key=ModelKey("ink")), CATALOGUE, LIMITS)


def test_a_model_that_is_not_here_may_be_elsewhere() -> None:
    asked = generation(loras=(LORA,), controls=(CONTROL,))
    damaged = replace(EDGES, unavailable_reason="unet is damaged")
    assert find_missing_model(asked, CATALOGUE) == ""
    assert find_missing_model(asked, [INK, EDGES]) == "model shapes-64: is not in the catalogue"
    assert find_missing_model(asked, [ABLE, EDGES]) == "model ink: is not in the catalogue"
    assert find_missing_model(asked, [ABLE, INK, damaged]) == "model edges: unet is damaged"
    with pytest.raises(InvalidInput, match="edges is unavailable: unet is damaged"):
        check_generation(asked, [ABLE, INK, damaged], LIMITS)


@pytest.mark.parametrize(
    ("scale", "size"), [(1.5, (96, 96)), (1.1, (72, 72)), (1.01, (64, 64)), (2.0, (128, 128))]
)
def test_a_second_pass_rounds_to_whole_cells(scale: float, size: tuple[int, int]) -> None:
    found = final_size(generation(hires=replace(HIRES, scale=scale)))
    assert (found.width_px, found.height_px) == size
    assert final_size(generation(width_px=72)).width_px == 72


def test_a_file_must_have_room_for_the_picture() -> None:
    wide = Limits(max_pixels=2**20, max_images=1)
    asked = generation(width_px=16_384, height_px=8)
    check_generation(asked, [ANY_SIZE], wide)
    webp = replace(asked, output=Output(ImageFormat.WEBP))
    with pytest.raises(InvalidInput, match="webp has at most 16383 pixels a side"):
        check_generation(webp, [ANY_SIZE], wide)
    jpeg = replace(asked, output=Output(ImageFormat.JPEG))
    check_generation(jpeg, [ANY_SIZE], wide)
    with pytest.raises(InvalidInput, match="jpeg has at most 65500 pixels"):
        check_generation(replace(jpeg, width_px=65_504), [ANY_SIZE], wide)


_FLOATS = st.one_of(st.floats(-5, 5), st.floats())
_INTS = st.one_of(st.integers(-2, 130), st.integers(-(2**31), 2**31 - 1))
_KEYS = st.sampled_from(["", "users/a/0.png", "users/a/1.png"])
_MODELS = st.sampled_from([ModelKey(key) for key in ("shapes-64", "ink", "edges", "none")])
_GENERATIONS = st.builds(
    Generation,
    model_key=_MODELS,
    prompt=st.sampled_from(["", "a", "x" * 2001]),
    negative_prompt=st.sampled_from(["", "x" * 2001]),
    width_px=st.one_of(st.sampled_from([8, 64, 128]), _INTS),
    height_px=st.one_of(st.sampled_from([8, 64, 128]), _INTS),
    steps=_INTS,
    guidance=_FLOATS,
    seed=st.integers(-1, 2**32),
    sampler=st.sampled_from(["ddim", "magic"]),
    image_count=_INTS,
    loras=st.lists(st.builds(Lora, _MODELS, _FLOATS), max_size=2).map(tuple),
    init_image=st.none() | st.builds(InitImage, _KEYS, _FLOATS, _KEYS),
    controls=st.lists(
        st.builds(Control, _MODELS, _KEYS, _FLOATS, _FLOATS, _FLOATS), max_size=2
    ).map(tuple),
    hires=st.none() | st.builds(Hires, _FLOATS, _INTS, _FLOATS),
    output=st.builds(Output, st.sampled_from(ImageFormat), _INTS),
    clip_skip=_INTS,
)


_FIT = generation(loras=(LORA,), init_image=MASKED, controls=(CONTROL,), hires=HIRES, clip_skip=1)


@given(wild=_GENERATIONS, taken=st.sets(st.sampled_from(_FIT.__slots__)))
@settings(max_examples=300)
def test_whatever_is_accepted_has_sane_numbers(wild: Generation, taken: set[str]) -> None:
    asked = replace(_FIT, **{name: getattr(wild, name) for name in taken})
    try:
        check_generation(asked, CATALOGUE, LIMITS)
    except InvalidInput as error:
        field, _, _ = error.field.partition(".")
        assert field in _FIT.__slots__
        return
    assert 1 <= asked.steps <= 100
    assert 1 <= asked.image_count <= LIMITS.max_images
    assert 0 <= asked.guidance <= 100
    assert 0 <= asked.clip_skip <= 12
    assert 0 <= asked.output.quality <= 100
    assert all(-4 <= lora.weight <= 4 for lora in asked.loras)
    assert all(lora.model_key == "ink" for lora in asked.loras)
    assert len({lora.model_key for lora in asked.loras}) == len(asked.loras)
    assert all(0 <= one.begin < one.end <= 1 for one in asked.controls)
    assert all(0 <= one.weight <= 2 for one in asked.controls)
    assert asked.init_image is None or 0 < asked.init_image.strength <= 1
    assert asked.hires is None or (1 <= asked.hires.steps <= 100 and 0 < asked.hires.strength <= 1)
    assert all(asked.input_keys)
    size = final_size(asked)
    assert size.width_px % 8 == size.height_px % 8 == 0
    assert 64 <= size.width_px * size.height_px <= LIMITS.max_pixels


def test_seeds_of_further_pictures_count_on_and_wrap() -> None:
    asked = generation(seed=2**32 - 1)
    assert [asked.seed_of(index) for index in range(3)] == [2**32 - 1, 0, 1]
