"""Rules of the gateway that need nothing else: wishes, money, progress, waiting, events."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_kit.errors import InvalidInput, Overloaded
from gateway.domain.account import Hold, HoldState
from gateway.domain.catalogue import Size
from gateway.domain.generation import cost_ms
from gateway.domain.job import JobState, JobUpdate, Progress
from gateway.domain.library import pictures_of_job
from gateway.domain.wish import Wish, settle
from gateway.web.events import Narrator
from gateway.web.generations import wait_s
from gateway.web.schemas.base import credits_text
from tests.fakes.gateway_ports import finished, generation, job, model


def test_a_bare_wish_gets_the_models_defaults() -> None:
    order = settle(Wish(prompt="x"), [model(), model("other")], fresh_seed=9)
    assert (order.model_key, order.width_px, order.height_px) == ("shapes-64", 64, 64)
    assert (order.steps, order.guidance, order.sampler, order.seed) == (10, 2.5, "ddim", 9)


def test_a_full_wish_is_kept() -> None:
    wish = Wish(
        prompt="x",
        negative_prompt="y",
        model="other",
        width_px=64,
        height_px=128,
        steps=50,
        guidance=1.0,
        seed=3,
        sampler="euler",
        image_count=4,
    )
    order = settle(wish, [model(), model("other")], fresh_seed=9)
    assert (order.model_key, order.width_px, order.height_px) == ("other", 64, 128)
    assert (order.steps, order.guidance, order.sampler, order.seed) == (50, 1.0, "euler", 3)
    assert (order.negative_prompt, order.image_count) == ("y", 4)


@pytest.mark.parametrize(
    ("wish", "field", "reason"),
    [
        (Wish(prompt="x", model="sdxl"), "model", "on offer: shapes-64"),
        (Wish(prompt="x", model="broken"), "model", "weights are missing"),
        (Wish(prompt="x", model="lora"), "model", "unknown"),
        (Wish(prompt="x", width_px=72), "width", "64x64, 64x128"),
        (Wish(prompt="x", height_px=72), "height", "64x64, 64x128"),
        (Wish(prompt="x", steps=51), "steps", "at most 50"),
        (Wish(prompt="x", sampler="magic"), "sampler", "ddim, euler"),
    ],
)
def test_what_does_not_fit_is_named(wish: Wish, field: str, reason: str) -> None:
    models = [
        model("broken", unavailable_reason="its weights are missing"),
        model("lora", type="lora"),
        model(),
    ]
    with pytest.raises(InvalidInput) as caught:
        settle(wish, models, fresh_seed=0)
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_a_model_without_sizes_draws_multiples_of_eight() -> None:
    free = [model(sizes=(), samplers=())]
    order = settle(Wish(prompt="x", width_px=512, height_px=72), free, fresh_seed=0)
    assert Size(order.width_px, order.height_px) == Size(512, 72)
    for wish, field in (
        (Wish(prompt="x", width_px=12), "width"),
        (Wish(prompt="x", height_px=12), "height"),
        (Wish(prompt="x", sampler="euler"), "sampler"),
    ):
        with pytest.raises(InvalidInput) as caught:
            settle(wish, free, fresh_seed=0)
        assert caught.value.field == field


def test_no_model_at_all_is_no_fault_of_the_caller() -> None:
    for models in ([], [model(unavailable_reason="loading")], [model(type="lora")]):
        with pytest.raises(Overloaded):
            settle(Wish(prompt="x"), models, fresh_seed=0)
    with pytest.raises(InvalidInput, match="nothing at this moment"):
        settle(Wish(prompt="x", model="any"), [], fresh_seed=0)


def test_work_is_at_least_one_and_doubles_with_guidance() -> None:
    order = generation()
    assert cost_ms(order) == 8
    assert cost_ms(replace(order, guidance=1.0)) == 4
    assert cost_ms(replace(order, steps=1, width_px=8, height_px=8)) == 1


@given(st.integers(-(10**12), 10**12))
def test_credits_read_back_as_millicredits(millicredits: int) -> None:
    text = credits_text(millicredits)
    assert int(text.replace(".", "")) == millicredits
    assert len(text.rpartition(".")[2]) == 3


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_percent_is_a_percentage(step: int, steps: int) -> None:
    assert 0 <= Progress(step, steps).percent <= 100


@pytest.mark.parametrize(
    ("state", "charged"),
    [(HoldState.OPEN, None), (HoldState.CAPTURED, 30), (HoldState.RELEASED, 0)],
)
def test_a_charge_is_known_once_it_is_settled(state: HoldState, charged: int | None) -> None:
    hold = Hold(job_id=job().id, state=state, amount_millicredits=40, captured_millicredits=30)
    assert hold.charged_millicredits == charged


def test_prompts_are_in_no_repr() -> None:
    assert "red circle" not in repr(job())
    assert "secret" not in repr(Wish(prompt="secret", negative_prompt="secret"))
    assert "bytes" not in repr(JobUpdate(job(), b"bytes"))


def test_only_a_finished_job_has_pictures() -> None:
    done = finished()
    assert [picture.image for picture in pictures_of_job(done)] == list(done.images)
    assert pictures_of_job(job()) == ()


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=30", 30),
        ("respond-async, wait=5", 5),
        ("WAIT=5; x=y", 5),
        ("wait=100000", 60),
        ("wait=0", 0),
        ("await=5", 0),
        ("wait=x", 0),
        ("", 0),
    ],
)
def test_prefer_is_read_as_rfc_7240_says(prefer: str, seconds: int) -> None:
    assert wait_s(prefer) == seconds


def told(narrator: Narrator, update: JobUpdate) -> list[str | None]:
    return [event.id for event in narrator.tell(update)]


def test_an_update_that_says_nothing_new_is_not_told() -> None:
    narrator = Narrator()
    waiting = job(position=2)
    assert told(narrator, JobUpdate(waiting)) == ["queued-2"]
    assert told(narrator, JobUpdate(waiting)) == []
    running = job(JobState.RUNNING, attempts=1, progress=Progress(0, 10))
    assert told(narrator, JobUpdate(running)) == ["started-1"]
    stepped = job(JobState.RUNNING, attempts=1, progress=Progress(3, 10))
    assert told(narrator, JobUpdate(stepped)) == ["progress-1-3"]
    assert told(narrator, JobUpdate(stepped)) == []
    assert told(narrator, JobUpdate(stepped, b"png", "image/png")) == ["progress-1-3"]
    assert told(narrator, JobUpdate(finished())) == []


def test_what_was_told_before_the_cut_is_not_told_again() -> None:
    stepped = job(JobState.RUNNING, attempts=1, progress=Progress(3, 10))
    assert told(Narrator("started-1"), JobUpdate(stepped)) == ["progress-1-3"]
    assert told(Narrator("queued-2"), JobUpdate(job(position=2))) == []
    assert told(Narrator("queued-2"), JobUpdate(job(position=1))) == ["queued-1"]
