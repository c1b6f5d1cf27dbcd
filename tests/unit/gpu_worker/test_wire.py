"""Work messages to the wire and back: nothing lost, nothing trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from easel.common.v1 import model_pb2
from easel.scheduler.v1 import lease_pb2
from easel_kit.errors import InvalidInput
from easel_kit.ids import AttemptId, ImageId, ModelKey
from gpu_worker.clients.mapping import (
    command_from_wire,
    model_to_wire,
    to_wire,
    welcome_from_wire,
)
from gpu_worker.domain.drawing import FailureKind
from gpu_worker.domain.generation import Control, Hires, ImageFormat, InitImage, Lora, Output
from gpu_worker.domain.work import (
    Acknowledged,
    Assign,
    AttemptFailed,
    AttemptFinished,
    AttemptParked,
    AttemptProgress,
    AttemptResumed,
    AttemptStopped,
    Cancel,
    Capacity,
    Command,
    Drain,
    HandBack,
    Heartbeat,
    Hello,
    Malformed,
    Message,
    ModelsChanged,
    Park,
    Resume,
    StoredImage,
)
from tests.fakes.gpu_worker import (
    ABLE,
    CARD,
    PROFILE,
    assign,
    assign_to_wire,
    command_to_wire,
    generation,
)

ID = AttemptId("att_1")
IMAGE = StoredImage(
    ImageId("img_1"),
    "users/a/0.png",
    64,
    32,
    "image/png",
    99,
    "ab",
    2**32 - 1,
    "users/a/0.thumb.webp",
)


def test_a_model_keeps_all_its_fields() -> None:
    assert model_to_wire(CARD) == model_pb2.Model(
        key="shapes-64",
        name="Shapes 64",
        base="sd-1",
        type="main",
        description="Draws shapes.",
        licence="MIT",
        defaults=model_pb2.ModelDefaults(
            steps=10, guidance=2.5, width_px=64, height_px=64, sampler="ddim"
        ),
        sizes=[model_pb2.PictureSize(width_px=64, height_px=64)],
        max_steps=100,
        max_prompt_tokens=22,
        samplers=["ddim", "euler"],
        loaded=True,
    )


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Hello(PROFILE, "here:1", "cpu", (CARD,), (ID,)), "hello"),
        (Heartbeat(), "heartbeat"),
        (Capacity(1, draining=True), "capacity"),
        (AttemptProgress(ID, 1, 10, b"x", "image/png"), "progress"),
        (AttemptFinished(ID, (IMAGE,), 10, 5, 50, ("cut",)), "finished"),
        (AttemptFailed(ID, FailureKind.WORKER, "code", "words", 3), "failed"),
        (AttemptStopped(ID, 3), "stopped"),
        (HandBack(ID), "hand_back"),
        (AttemptParked(ID, 3), "parked"),
        (AttemptResumed(ID), "resumed"),
        (ModelsChanged((CARD,)), "models_changed"),
    ],
)
def test_every_message_has_its_wire_form(said: Message, kind: str) -> None:
    wire = to_wire(said)
    assert wire.WhichOneof("message") == kind
    inner = getattr(wire, kind)
    if hasattr(said, "attempt_id"):
        assert inner.attempt_id == ID


def test_a_model_says_what_it_can_do_and_how_large_it_is() -> None:
    wire = model_to_wire(replace(ABLE, size_bytes=2**40))
    assert tuple(wire.features) == ABLE.features
    assert wire.size_bytes == 2**40


def test_a_greeting_says_what_is_held_and_what_of_it_is_parked() -> None:
    hello = to_wire(Hello(PROFILE, "here:1", "cpu", (), (ID, AttemptId("two")), (ID,))).hello
    assert list(hello.held_attempt_ids) == [ID, "two"]
    assert list(hello.parked_attempt_ids) == [ID]
    assert hello.can_park


def test_what_was_done_before_it_was_parked_or_stopped_is_said() -> None:
    assert to_wire(AttemptParked(ID, 3)).parked.steps_done == 3
    assert to_wire(AttemptStopped(ID, 4)).stopped.steps_done == 4


def test_a_finished_attempt_keeps_all_its_fields() -> None:
    finished = to_wire(AttemptFinished(ID, (IMAGE,), 10, 5, 50, ("cut",))).finished
    assert (finished.steps_done, finished.first_step_ms, finished.total_ms) == (10, 5, 50)
    assert list(finished.warnings) == ["cut"]
    (image,) = finished.images
    assert (image.id, image.object_key, image.seed) == ("img_1", "users/a/0.png", 2**32 - 1)
    assert (image.width_px, image.height_px, image.size_bytes) == (64, 32, 99)
    assert (image.media_type, image.sha256) == ("image/png", "ab")
    assert image.thumbnail_object_key == "users/a/0.thumb.webp"


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        (FailureKind.CALLER, lease_pb2.FAILURE_KIND_CALLER),
        (FailureKind.TRANSIENT, lease_pb2.FAILURE_KIND_TRANSIENT),
        (FailureKind.WORKER, lease_pb2.FAILURE_KIND_WORKER),
    ],
)
def test_every_kind_of_failure_has_its_wire_form(
    kind: FailureKind, wire: lease_pb2.FailureKind.ValueType
) -> None:
    failed = to_wire(AttemptFailed(ID, kind, "code", "words", 3)).failed
    assert failed == lease_pb2.AttemptFailed(
        attempt_id=ID, kind=wire, code="code", message="words", steps_done=3
    )


def test_an_assignment_comes_as_it_was_sent() -> None:
    work = assign(prompt="ü", negative_prompt="n", guidance=2.25, seed=2**32 - 1, image_count=3)
    assert command_from_wire(command_to_wire(work)) == work


@pytest.mark.parametrize(
    ("field", "value"), [("job_id", ""), ("job_id", "job_x"), ("user_id", "../etc")]
)
def test_ids_that_make_no_sense_make_work_malformed(field: str, value: str) -> None:
    sent = assign_to_wire(assign())
    setattr(sent, field, value)
    command = command_from_wire(lease_pb2.WorkResponse(assign=sent))
    assert isinstance(command, Malformed)
    assert command.attempt_id == sent.attempt_id
    assert command.reason.startswith(f"{field}: ")


EVERYTHING = {
    "loras": (Lora(ModelKey("ink"), -4.0), Lora(ModelKey("wax"), 4.0)),
    "init_image": InitImage("users/alice/a.png", 1.0, "users/alice/b.webp"),
    "controls": (
        Control(ModelKey("edges"), "users/alice/c.jpg", 2.0, 0.25, 0.75),
        Control(ModelKey("edges"), "users/alice/d.jpg", 0.0, 0.0, 1.0),
    ),
    "hires": Hires(4.0, 12, 0.5),
    "output": Output(ImageFormat.JPEG, 100, with_settings=False),
    "clip_skip": 2,
}


def test_all_that_may_be_asked_for_comes_as_it_was_sent() -> None:
    work = assign(**EVERYTHING)
    assert command_from_wire(command_to_wire(work)) == work


@pytest.mark.parametrize("file_format", list(ImageFormat))
def test_each_kind_of_file_comes_as_it_was_sent(file_format: ImageFormat) -> None:
    work = assign(output=Output(file_format))
    assert command_from_wire(command_to_wire(work)) == work


def test_a_generation_of_before_asks_for_a_png_and_no_more() -> None:
    sent = assign_to_wire(assign())
    sent.generation.ClearField("output")
    command = command_from_wire(lease_pb2.WorkResponse(assign=sent))
    assert isinstance(command, Assign)
    assert command.generation == generation()
    assert command.generation.output == Output(ImageFormat.PNG, 0, with_settings=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("loras.0.weight", 4.01),
        ("loras.1.weight", math.nan),
        ("init_image.strength", 0.0),
        ("init_image.strength", 1.01),
        ("init_image.object_key", ""),
        ("init_image.object_key", "users/../x.png"),
        ("init_image.mask_object_key", "/x.png"),
        ("controls.0.weight", -0.01),
        ("controls.1.weight", math.inf),
        ("controls.0.begin", 0.75),
        ("controls.0.end", 1.01),
        ("controls.1.object_key", "a b"),
        ("hires.scale", 1.0),
        ("hires.scale", math.inf),
        ("hires.steps", 0),
        ("hires.strength", math.nan),
        ("output.format", 4),
        ("output.quality", -1),
        ("output.quality", 101),
        ("clip_skip", -1),
        ("guidance", math.nan),
    ],
)
def test_a_number_outside_the_contract_makes_work_malformed(path: str, value: object) -> None:
    sent = assign_to_wire(assign(**EVERYTHING))
    *way, last = path.split(".")
    part: Any = sent.generation
    for step in way:
        part = part[int(step)] if step.isdigit() else getattr(part, step)
    setattr(part, last, value)
    command = command_from_wire(lease_pb2.WorkResponse(assign=sent))
    assert isinstance(command, Malformed)
    assert command.attempt_id == sent.attempt_id
    assert command.reason.startswith(f"{path}: ")


def test_an_adapter_named_twice_makes_work_malformed() -> None:
    lora = Lora(ModelKey("ink"), 1.0)
    command = command_from_wire(command_to_wire(assign(loras=(lora, lora))))
    assert isinstance(command, Malformed)
    assert command.reason == "loras.1.model_key: ink is named twice"


@pytest.mark.parametrize(
    "command", [Cancel(ID), Park(ID), Resume(ID), Acknowledged(ID, accepted=True), Drain()]
)
def test_other_commands_come_as_they_were_sent(command: Command) -> None:
    assert command_from_wire(command_to_wire(command)) == command


def test_what_means_nothing_is_passed_over() -> None:
    assert command_from_wire(lease_pb2.WorkResponse()) is None
    nameless = lease_pb2.Assign(attempt_id="att_x")
    assert command_from_wire(lease_pb2.WorkResponse(assign=nameless)) is None


def test_a_greeting_must_be_one() -> None:
    with pytest.raises(InvalidInput, match="welcome"):
        welcome_from_wire(lease_pb2.WorkResponse(drain=lease_pb2.Drain()))
    with pytest.raises(InvalidInput, match="positive"):
        welcome_from_wire(lease_pb2.WorkResponse(welcome=lease_pb2.Welcome()))


def test_a_greeting_comes_in_seconds() -> None:
    welcome = welcome_from_wire(
        lease_pb2.WorkResponse(
            welcome=lease_pb2.Welcome(
                heartbeat_interval_ms=5000,
                lease_ttl_ms=15000,
                kept_attempt_ids=["a", "b"],
                cancelled_attempt_ids=["b"],
            )
        )
    )
    assert (welcome.heartbeat_interval_s, welcome.lease_ttl_s) == (5.0, 15.0)
    assert sorted(welcome.kept) == ["a", "b"]
    assert sorted(welcome.cancelled) == ["b"]
