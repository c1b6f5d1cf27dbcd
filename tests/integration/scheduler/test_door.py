"""Whatever comes in at callers' door, it is answered or refused by name: never an error of ours."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easel.scheduler.v1 import jobs_pb2, privacy_pb2
from easel_kit.erasure import hash_of
from easel_kit.ids import UserId, new_job_id
from tests.fakes.scheduler_stack import ALICE, BOB, SchedulerStack, within

_SERVICES = (
    jobs_pb2.DESCRIPTOR.services_by_name["JobService"],
    privacy_pb2.DESCRIPTOR.services_by_name["PrivacyService"],
)
_METHODS: list[MethodDescriptor] = [one for service in _SERVICES for one in service.methods]
_KNOWN = [new_job_id() for _ in range(4)]
_TEXTS = st.sampled_from(["", "\0", "no spaces", "9" * 18 + "-1", *_KNOWN]) | st.text(max_size=20)
_EDGES = st.sampled_from([-1, 0, 1, 2**31 - 1])
_WILD: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: _TEXTS,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=40),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_ENUM: st.integers(-1, 7),
    FieldDescriptor.TYPE_INT32: _EDGES | st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: _EDGES | st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
}
_CHOICES = st.sampled_from(["sensible"] * 28 + ["leave out", "anything"])
_JOBS = st.sampled_from(_KNOWN)
_SENSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "user_id": st.sampled_from([ALICE, BOB]),
    "user_hashes": st.sampled_from([hash_of(UserId(one)) for one in (ALICE, BOB, "nobody")]),
    "job_id": _JOBS | st.builds(new_job_id),
    "job_ids": _JOBS,
    "retry_of": st.sampled_from(["", "", "", _KNOWN[0]]),
    "batch_id": st.just("b-1"),
    "batch_ids": st.just("b-1"),
    "model_key": st.just("shapes-64"),
    "model_keys": st.just("shapes-64"),
    "guidance": st.just(7.5),
    "negative_prompt": st.just(""),
    "seed": st.just(1),
    "priority": st.just(10),
    "prompt": st.just("a red circle"),
    "sampler": st.just("ddim"),
    "page_token": st.just("") | st.just("1767225600000000-7"),
    "page_size": st.just(10),
    "states": st.integers(1, 5),
    "seconds": st.just(1_767_225_600),
    "width_px": st.just(64),
    "height_px": st.just(64),
    "steps": st.just(10),
    "image_count": st.just(1),
    "cost_ms": st.just(100),
    "version": st.integers(0, 3),
    "weight": st.just(1),
    "max_running": st.just(2),
    "max_waiting": st.just(50),
    "queue_time_s": st.just(600),
    "worker_id": st.just("worker-1"),
}


@st.composite
def messages(draw: st.DrawFn, kind: Descriptor) -> Message:
    """A message with most fields set, most of them to sensible values."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        choice = draw(_CHOICES)
        if choice == "leave out":
            continue
        most = 3 if field.is_repeated else 1
        if field.message_type is not None:
            inner = messages(field.message_type)
            for value in draw(st.lists(inner, min_size=1, max_size=most)):
                target = getattr(message, field.name)
                (target.add() if field.is_repeated else target).CopyFrom(value)
            continue
        wild = _WILD[field.type]
        values = wild if choice == "anything" else _SENSIBLE.get(field.name, wild)
        if field.is_repeated:
            found = draw(st.lists(values, min_size=1, max_size=most))
            getattr(message, field.name).extend(found)
        else:
            setattr(message, field.name, draw(values))
    return message


def requests(method: MethodDescriptor) -> st.SearchStrategy[bytes]:
    """What is sent: a message of the method, mostly, or any bytes."""
    good = messages(method.input_type).map(lambda one: one.SerializeToString())
    return st.sampled_from([good] * 9 + [st.binary(max_size=60)]).flatmap(lambda one: one)


async def answer(stack: SchedulerStack, method: MethodDescriptor, sent: bytes) -> grpc.StatusCode:
    """The status that a call ends with; a stream is left after its first message."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.port}") as channel:
        try:
            if method.server_streaming:
                call: Any = channel.unary_stream(path)(sent)  # type: ignore[arg-type]
                await within(call.read())
                return await call.code() if call.done() else grpc.StatusCode.OK
            unary: Any = channel.unary_unary(path)
            await within(unary(sent))
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@settings(
    max_examples=350,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(method=st.sampled_from(_METHODS), data=st.data())
async def test_nothing_that_is_sent_breaks_the_door(
    stack: SchedulerStack, method: MethodDescriptor, data: st.DataObject
) -> None:
    status = await answer(stack, method, data.draw(requests(method)))
    assert status not in {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNAVAILABLE,
    }
