"""What goes beyond a prompt: which models can do it, and what work it comes to."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_kit import ids
from easel_kit.errors import InvalidInput
from gateway.domain.catalogue import Feature, Model, Size
from gateway.domain.generation import (
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
    Pass,
    Source,
    cost_ms,
    enlarged,
    is_plain,
    passes,
    pixel_steps,
    total_steps,
)
from gateway.domain.wish import ControlWish, HiresWish, InitWish, LoraWish, Wish, settle
from tests.fakes.gateway_ports import generation, model

CAT, MASK, EDGES = (ids.new_image_id() for _ in range(3))
LIBRARY = {CAT: "users/alice/cat.png", MASK: "users/alice/mask.png", EDGES: "users/alice/e.png"}
MODELS = [
    model(features=tuple(Feature)),
    model("plain"),
    model("fine", type="lora"),
    model("broken", type="lora", unavailable_reason="its weights are missing"),
    model("foreign", type="lora", base="sd-1"),
    model("edges", type="controlnet"),
]


def settled(wish: Wish, models: list[Model] = MODELS) -> Generation:
    return settle(wish, models, fresh_seed=1, object_keys=LIBRARY)


def test_all_of_it_is_settled() -> None:
    order = settled(
        Wish(
            prompt="x",
            loras=(LoraWish("fine", 0.5),),
            init_image=InitWish(CAT, 0.6, MASK),
            controls=(ControlWish("edges", EDGES, 0.9, 0.1, 0.8),),
            hires=HiresWish(1.5),
            output=Output(ImageFormat.WEBP, 80, with_settings=False),
            clip_skip=2,
        )
    )
    assert order.loras == (Lora(MODELS[2].key, 0.5),)
    assert order.init_image == InitImage(
        Source(CAT, LIBRARY[CAT]), 0.6, Source(MASK, LIBRARY[MASK])
    )
    assert (order.controls[0].picture, order.controls[0].end) == (
        Source(EDGES, LIBRARY[EDGES]),
        0.8,
    )
    assert order.hires == Hires(1.5, 10, 0.5)
    assert (order.output.quality, order.clip_skip) == (80, 2)
    assert order.sources == {
        "controls.0.image": Source(EDGES, LIBRARY[EDGES]),
        "init_image.image": Source(CAT, LIBRARY[CAT]),
        "init_image.mask": Source(MASK, LIBRARY[MASK]),
    }
    unmasked = settled(Wish(prompt="x", init_image=InitWish(CAT, 1)))
    assert unmasked.sources == {"init_image.image": Source(CAT, LIBRARY[CAT])}
    assert settled(Wish(prompt="x", hires=HiresWish(2, 4, 1.0))).hires == Hires(2, 4, 1.0)


STRANGER = ids.new_image_id()


@pytest.mark.parametrize(
    ("wish", "field", "reason"),
    [
        (
            Wish(prompt="x", loras=(LoraWish("fine", 1), LoraWish("none", 1))),
            "loras.1.model",
            "fine",
        ),
        (Wish(prompt="x", loras=(LoraWish("fine", 1),) * 2), "loras.1.model", "twice"),
        (Wish(prompt="x", loras=(LoraWish("edges", 1),)), "loras.0.model", "type controlnet"),
        (Wish(prompt="x", loras=(LoraWish("foreign", 1),)), "loras.0.model", "sd-1"),
        (Wish(prompt="x", loras=(LoraWish("broken", 1),)), "loras.0.model", "weights are missing"),
        (Wish(prompt="x", init_image=InitWish(STRANGER, 1)), "init_image.image", "your library"),
        (Wish(prompt="x", init_image=InitWish(CAT, 1, STRANGER)), "init_image.mask", "library"),
        (
            Wish(prompt="x", controls=(ControlWish("edges", STRANGER, 1, 0, 1),)),
            "controls.0.image",
            "your library",
        ),
        (
            Wish(prompt="x", controls=(ControlWish("fine", EDGES, 1, 0, 1),)),
            "controls.0.model",
            "type lora",
        ),
        (
            Wish(prompt="x", controls=(ControlWish("edges", EDGES, 1, 0.5, 0.5),)),
            "controls.0.end",
            "after begin",
        ),
        (
            Wish(prompt="x", controls=(ControlWish("edges", EDGES, 1, 0, 1),) * 2),
            "controls.1.image",
            "twice",
        ),
        (Wish(prompt="x", hires=HiresWish(2, 51)), "hires.steps", "at most 50"),
        (Wish(prompt="x", output=Output(quality=5)), "output.quality", "webp"),
    ],
)
def test_what_does_not_fit_is_named(wish: Wish, field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        settled(wish)
    assert caught.value.field == field
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (Wish(prompt="x", loras=(LoraWish("fine", 1),)), "loras"),
        (Wish(prompt="x", init_image=InitWish(CAT, 1)), "init_image"),
        (Wish(prompt="x", init_image=InitWish(CAT, 1, MASK)), "init_image.mask"),
        (Wish(prompt="x", controls=(ControlWish("edges", EDGES, 1, 0, 1),)), "controls"),
        (Wish(prompt="x", hires=HiresWish(2)), "hires"),
        (Wish(prompt="x", clip_skip=1), "clip_skip"),
    ],
)
def test_what_the_model_does_not_offer_is_named(wish: Wish, field: str) -> None:
    settled(wish)
    with pytest.raises(InvalidInput) as caught:
        settled(replace(wish, model="plain"))
    assert caught.value.field == field
    assert "nothing beyond a prompt" in caught.value.reason


def test_a_finished_picture_has_a_largest_side() -> None:
    free = [model(sizes=(), features=tuple(Feature))]
    assert settled(Wish(prompt="x", width_px=1024, hires=HiresWish(4)), free).hires is not None
    with pytest.raises(InvalidInput) as caught:
        settled(Wish(prompt="x", width_px=1032, hires=HiresWish(4)), free)
    assert caught.value.field == "hires.scale"


def test_the_pictures_of_a_wish_are_those_it_names() -> None:
    assert Wish(prompt="x").image_ids == frozenset()
    controls = (ControlWish("edges", EDGES, 1, 0, 1), ControlWish("edges", CAT, 1, 0, 1))
    wish = Wish(prompt="x", init_image=InitWish(CAT, 1), controls=controls)
    assert wish.image_ids == {CAT, EDGES}
    assert replace(wish, init_image=InitWish(CAT, 1, MASK)).image_ids == {CAT, EDGES, MASK}


def beginning(strength: float, steps: int = 10) -> Generation:
    init = InitImage(Source(CAT, LIBRARY[CAT]), strength)
    return replace(generation(), steps=steps, init_image=init)


@pytest.mark.parametrize(
    ("steps", "strength", "run"),
    [(10, 1.0, 10), (10, 0.6, 6), (10, 0.05, 1), (30, 0.75, 22), (100, 0.29, 28), (1, 0.5, 1)],
)
def test_a_picture_begun_with_takes_a_part_of_the_steps(
    steps: int, strength: float, run: int
) -> None:
    # int(steps * strength) as diffusers' get_timesteps has it, in floating point
    order = replace(beginning(strength, steps), image_count=3)
    assert passes(order) == (Pass(64, 64, run),)
    assert total_steps(order) == 3 * run
    assert pixel_steps(order) == 3 * run * 64 * 64


@pytest.mark.parametrize(
    ("steps", "strength", "run"), [(10, 1.0, 10), (10, 0.6, 6), (10, 0.05, 1), (30, 0.75, 23)]
)
def test_flow_matching_rounds_a_part_of_a_step_up(steps: int, strength: float, run: int) -> None:
    order = replace(beginning(strength, steps), sampler="flow_euler")
    assert passes(order) == (Pass(64, 64, run),)


def test_a_second_pass_adds_its_own_pixels_and_steps() -> None:
    order = replace(beginning(0.5), hires=Hires(1.5, 8, 0.5), image_count=2)
    assert passes(order) == (Pass(64, 64, 5), Pass(96, 96, 4))
    assert total_steps(order) == 18
    assert pixel_steps(order) == 2 * (5 * 64 * 64 + 4 * 96 * 96)
    assert cost_ms(order) == round(pixel_steps(order) * 2 * 100 / 1e6)


@given(st.integers(1, 50), st.integers(1, 512), st.integers(1, 512), st.integers(1, 16))
def test_plain_work_is_the_product(steps: int, width: int, height: int, count: int) -> None:
    size = Size(width * 8, height * 8)
    order = replace(
        generation(),
        steps=steps,
        width_px=size.width_px,
        height_px=size.height_px,
        image_count=count,
    )
    assert is_plain(order)
    assert total_steps(order) == steps * count
    assert pixel_steps(order) == steps * count * size.width_px * size.height_px


@given(st.integers(1, 512), st.floats(1, 4))
def test_a_side_is_enlarged_to_the_nearest_multiple_of_eight(eighths: int, scale: float) -> None:
    side = enlarged(eighths * 8, scale)
    assert side % 8 == 0
    assert abs(side - eighths * 8 * scale) <= 4
    assert side >= eighths * 8
