"""The work stream's messages on the wire and in the domain; what workers send is checked here."""

from __future__ import annotations

from collections.abc import Sequence

from easel.common.v1 import generation_pb2, model_pb2
from easel.scheduler.v1 import lease_pb2
from easel_kit import ids
from easel_kit.errors import InvalidInput
from easel_kit.ids import AttemptId
from scheduler.domain.job import Image, JobError
from scheduler.domain.lease import Ended, Outcome
from scheduler.domain.stream import (
    Acknowledged,
    Assign,
    Control,
    Drain,
    Park,
    Resume,
    Stop,
    ToWorker,
    Welcome,
)
from scheduler.domain.worker import Model, ModelDefaults, Worker
from scheduler.rpc.checks import model_key, object_key, text, within
from scheduler.rpc.generations import generation_to_wire
from scheduler.rpc.mapping import worker_id

_MAX_HELD = 1_000
_MAX_MODELS = 500
_MAX_SLOTS = 1_000
_MAX_NAME = 200
_MAX_TEXT = 2_000
_MAX_IMAGES = 100
_MAX_WARNINGS = 20
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_DAY_MS = 24 * 3600 * 1000

_KINDS = {
    lease_pb2.FAILURE_KIND_CALLER: Outcome.REFUSED,
    lease_pb2.FAILURE_KIND_TRANSIENT: Outcome.FAILED,
    lease_pb2.FAILURE_KIND_WORKER: Outcome.UNFIT,
}


def worker(hello: lease_pb2.Hello, session: str, lane: str) -> tuple[Worker, list[AttemptId]]:
    """A worker's introduction, and the attempts that it names.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    if (hello.lane or "default") != lane:
        raise InvalidInput("hello.lane", f"must be {lane}: no other lane is served here")
    within(len(hello.held_attempt_ids), 0, _MAX_HELD, "hello.held_attempt_ids")
    held = [ids.attempt_id(held, "hello.held_attempt_ids") for held in hello.held_attempt_ids]
    return Worker(
        id=worker_id(hello.worker_id, "hello.worker_id"),
        session=session,
        address=text(hello.address, 0, _MAX_NAME, "hello.address"),
        device=text(hello.device, 0, _MAX_NAME, "hello.device"),
        slots=within(hello.slots, 1, _MAX_SLOTS, "hello.slots"),
        models=models(hello.models, "hello.models"),
        can_park=hello.can_park,
    ), list(dict.fromkeys(held))


def parked(hello: lease_pb2.Hello) -> frozenset[AttemptId]:
    """Of the attempts that the worker holds, those that it has set aside.

    Raises:
        InvalidInput: too many, or an id that is none.
    """
    field = "hello.parked_attempt_ids"
    within(len(hello.parked_attempt_ids), 0, _MAX_HELD, field)
    return frozenset(ids.attempt_id(one, field) for one in hello.parked_attempt_ids)


def models(wire: Sequence[model_pb2.Model], field: str) -> tuple[Model, ...]:
    """The models that a worker reports.

    Raises:
        InvalidInput: too many, or a key that is none.
    """
    within(len(wire), 0, _MAX_MODELS, field)
    return tuple(_model(model, field) for model in wire)


def _model(wire: model_pb2.Model, field: str) -> Model:
    return Model(
        key=model_key(wire.key, f"{field}.key"),
        name=_cut(wire.name),
        base=_cut(wire.base),
        type=_cut(wire.type),
        description=_cut(wire.description),
        licence=_cut(wire.licence),
        defaults=ModelDefaults(
            steps=wire.defaults.steps,
            guidance=wire.defaults.guidance,
            width_px=wire.defaults.width_px,
            height_px=wire.defaults.height_px,
            sampler=_cut(wire.defaults.sampler),
        ),
        sizes_px=tuple((size.width_px, size.height_px) for size in wire.sizes[:_MAX_IMAGES]),
        max_steps=wire.max_steps,
        max_prompt_tokens=wire.max_prompt_tokens,
        samplers=tuple(_cut(sampler) for sampler in wire.samplers[:_MAX_IMAGES]),
        loaded=wire.loaded,
        unavailable_reason=_cut(wire.unavailable_reason),
        features=tuple(_cut(feature) for feature in wire.features[:_MAX_IMAGES]),
        size_bytes=max(0, wire.size_bytes),
    )


def _cut(value: str) -> str:
    return value.replace("\0", "")[:_MAX_TEXT]


def _finished(wire: lease_pb2.AttemptFinished) -> Ended:
    """A success.

    Raises:
        InvalidInput: names the field that is wrong.
    """
    within(len(wire.images), 1, _MAX_IMAGES, "finished.images")
    return Ended(
        attempt_id=ids.attempt_id(wire.attempt_id),
        outcome=Outcome.SUCCEEDED,
        steps_done=within(wire.steps_done, 0, _MAX_INT32, "finished.steps_done"),
        images=tuple(_image(image) for image in wire.images),
        warnings=tuple(_cut(warning) for warning in wire.warnings[:_MAX_WARNINGS]),
        first_step_ms=within(wire.first_step_ms, 0, _DAY_MS, "finished.first_step_ms"),
        total_ms=within(wire.total_ms, 0, _DAY_MS, "finished.total_ms"),
    )


def _image(wire: generation_pb2.Image) -> Image:
    thumbnail = wire.thumbnail_object_key
    return Image(
        id=ids.image_id(wire.id, "finished.images.id"),
        object_key=object_key(wire.object_key, "finished.images.object_key"),
        width_px=within(wire.width_px, 1, _MAX_INT32, "finished.images.width_px"),
        height_px=within(wire.height_px, 1, _MAX_INT32, "finished.images.height_px"),
        media_type=text(wire.media_type, 1, _MAX_NAME, "finished.images.media_type"),
        size_bytes=within(wire.size_bytes, 0, _MAX_INT64, "finished.images.size_bytes"),
        sha256=text(wire.sha256, 0, 64, "finished.images.sha256"),
        seed=wire.seed,
        thumbnail_object_key=object_key(thumbnail, "finished.images.thumbnail_object_key")
        if thumbnail
        else "",
    )


def _failed(wire: lease_pb2.AttemptFailed) -> Ended:
    """A failure.

    Raises:
        InvalidInput: names the field that is wrong.
    """
    if wire.kind not in _KINDS:
        raise InvalidInput("failed.kind", "must be a known kind")
    return Ended(
        attempt_id=ids.attempt_id(wire.attempt_id),
        outcome=_KINDS[wire.kind],
        steps_done=within(wire.steps_done, 0, _MAX_INT32, "failed.steps_done"),
        error=JobError(
            text(wire.code, 1, _MAX_NAME, "failed.code"),
            _cut(wire.message) or "the picture could not be drawn",
        ),
    )


def _stopped(wire: lease_pb2.AttemptStopped) -> Ended:
    """An end because of a cancel.

    Raises:
        InvalidInput: names the field that is wrong.
    """
    return Ended(
        attempt_id=ids.attempt_id(wire.attempt_id),
        outcome=Outcome.STOPPED,
        steps_done=within(wire.steps_done, 0, _MAX_INT32, "stopped.steps_done"),
    )


def _handed_back(wire: lease_pb2.HandBack) -> Ended:
    """An attempt that the worker gives back.

    Raises:
        InvalidInput: no attempt id.
    """
    return Ended(attempt_id=ids.attempt_id(wire.attempt_id), outcome=Outcome.HANDED_BACK)


def ended(request: lease_pb2.WorkRequest) -> Ended:
    """The end of an attempt, in whichever way.

    Raises:
        InvalidInput: names the field that is wrong.
    """
    match request.WhichOneof("message"):
        case "finished":
            return _finished(request.finished)
        case "failed":
            return _failed(request.failed)
        case "stopped":
            return _stopped(request.stopped)
        case _:
            return _handed_back(request.hand_back)


def to_wire(message: ToWorker) -> lease_pb2.WorkResponse:
    """What goes to a worker."""
    response = lease_pb2.WorkResponse
    match message:
        case Welcome():
            return response(
                welcome=lease_pb2.Welcome(
                    heartbeat_interval_ms=int(message.heartbeat_s * 1000),
                    lease_ttl_ms=int(message.lease_ttl_s * 1000),
                    kept_attempt_ids=message.kept,
                    cancelled_attempt_ids=message.cancelled,
                )
            )
        case Assign(claim, job):
            return response(
                assign=lease_pb2.Assign(
                    attempt_id=claim.attempt_id,
                    job_id=claim.job_id,
                    user_id=claim.user_id,
                    generation=generation_to_wire(job.generation),
                    attempt_number=claim.number,
                    traceparent=job.traceparent,
                )
            )
        case Acknowledged(attempt_id, accepted):
            return response(
                acknowledged=lease_pb2.Acknowledged(attempt_id=attempt_id, accepted=accepted)
            )
        case _:
            return _control_to_wire(message)


def _control_to_wire(message: Control) -> lease_pb2.WorkResponse:
    response = lease_pb2.WorkResponse
    match message:
        case Stop(attempt_id):
            return response(cancel=lease_pb2.Cancel(attempt_id=attempt_id))
        case Drain():
            return response(drain=lease_pb2.Drain())
        case Park(attempt_id):
            return response(park=lease_pb2.Park(attempt_id=attempt_id))
        case Resume(attempt_id):
            return response(resume=lease_pb2.Resume(attempt_id=attempt_id))
