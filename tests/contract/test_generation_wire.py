"""What a caller asks for is the same after the wire, the scheduler's row and the wire again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from easel.common.v1 import generation_pb2 as pb
from easel_kit.ids import ImageId, ModelKey
from gateway.clients import generations as gateway_side
from gateway.domain.generation import (
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
    Source,
    total_steps,
)
from scheduler.rpc import generations as scheduler_side
from scheduler.storage.generations import generation_from_json, generation_to_json

keys = st.sampled_from(["shapes-64", "hub/model-1.5", "a", "B@2:x"]).map(ModelKey)
images = st.integers(0, 2**128 - 1).map(lambda number: ImageId(f"img_{number:032x}"))
sources = images.map(lambda one: Source(one, f"users/alice/uploads/{one}.png"))
strengths = st.floats(0, 1, exclude_min=True)
shares = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda both: both[0] < both[1])
sides = st.integers(1, 256).map(lambda eighths: eighths * 8)
texts = st.sampled_from(["a red circle", "ein rötlicher Kreis ☀", "x" * 2000])


@st.composite
def controls(draw: st.DrawFn) -> Control:
    begin, end = draw(shares)
    return Control(draw(keys), draw(sources), draw(st.floats(0, 2)), begin, end)


orders = st.builds(
    Generation,
    model_key=keys,
    prompt=texts,
    negative_prompt=texts | st.just(""),
    width_px=sides,
    height_px=sides,
    steps=st.integers(1, 1000),
    guidance=st.floats(1, 50),
    seed=st.integers(0, 2**32 - 1),
    sampler=st.sampled_from(["ddim", "euler"]),
    image_count=st.integers(1, 16),
    loras=st.lists(
        st.builds(Lora, keys, st.floats(-4, 4)), max_size=3, unique_by=lambda one: one.model_key
    ).map(tuple),
    init_image=st.none() | st.builds(InitImage, sources, strengths, st.none() | sources),
    controls=st.lists(controls(), max_size=2).map(tuple),
    hires=st.none()
    | st.builds(Hires, st.floats(1, 4, exclude_min=True), st.integers(1, 1000), strengths),
    output=st.builds(
        Output, st.sampled_from(ImageFormat), st.none() | st.integers(1, 100), st.booleans()
    ),
    clip_skip=st.integers(0, 12),
)


def kept(wire: pb.Generation) -> dict[str, Any]:
    """The scheduler's row of it."""
    row = json.dumps(generation_to_json(scheduler_side.generation(wire, "generation")))
    found: dict[str, Any] = json.loads(row)
    return found


@given(orders)
def test_an_order_survives_its_way_and_back(order: Generation) -> None:
    sent = gateway_side.generation_to_wire(order)
    asked = generation_from_json(kept(pb.Generation.FromString(sent.SerializeToString())))
    assert asked.total_steps == total_steps(order)
    told = scheduler_side.generation_to_wire(asked)
    assert told == sent
    assert gateway_side.generation(told) == order
