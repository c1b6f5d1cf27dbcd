"""Work messages between the domain and the wire; what the scheduler sends is checked here."""

from __future__ import annotations

from dataclasses import asdict

from easel.common.v1 import generation_pb2, model_pb2
from easel.scheduler.v1 import lease_pb2
from easel_kit.errors import InvalidInput
from easel_kit.ids import AttemptId, attempt_id, job_id, user_id
from gpu_worker.clients.wishes import generation_from_wire
from gpu_worker.domain.drawing import FailureKind
from gpu_worker.domain.model import ModelCard
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
    Report,
    Resume,
    StoredImage,
    Welcome,
)

_KINDS = {
    FailureKind.CALLER: lease_pb2.FAILURE_KIND_CALLER,
    FailureKind.TRANSIENT: lease_pb2.FAILURE_KIND_TRANSIENT,
    FailureKind.WORKER: lease_pb2.FAILURE_KIND_WORKER,
}

_Turn = Report | HandBack | AttemptParked | AttemptResumed


def to_wire(message: Message) -> lease_pb2.WorkRequest:
    """The wire form of anything that the worker says."""
    request = lease_pb2.WorkRequest
    match message:
        case Hello():
            return request(hello=_hello(message))
        case Heartbeat():
            return request(heartbeat=lease_pb2.Heartbeat())
        case Capacity(free_slots, draining):
            return request(capacity=lease_pb2.Capacity(free_slots=free_slots, draining=draining))
        case AttemptProgress():
            return request(progress=lease_pb2.AttemptProgress(**asdict(message)))
        case ModelsChanged(models):
            changed = lease_pb2.ModelsChanged(models=[model_to_wire(card) for card in models])
            return request(models_changed=changed)
        case _:
            return _turn_to_wire(message)


def _turn_to_wire(message: _Turn) -> lease_pb2.WorkRequest:
    request = lease_pb2.WorkRequest
    match message:
        case AttemptFinished():
            return request(finished=_finished(message))
        case AttemptFailed():
            return request(failed=_failed(message))
        case AttemptStopped():
            return request(stopped=lease_pb2.AttemptStopped(**asdict(message)))
        case HandBack():
            return request(hand_back=lease_pb2.HandBack(**asdict(message)))
        case AttemptParked():
            return request(parked=lease_pb2.AttemptParked(**asdict(message)))
        case AttemptResumed():
            return request(resumed=lease_pb2.AttemptResumed(**asdict(message)))


def model_to_wire(card: ModelCard) -> model_pb2.Model:
    """A catalogue entry, whose fields have the contract's names."""
    return model_pb2.Model(**asdict(card))


def welcome_from_wire(response: lease_pb2.WorkResponse) -> Welcome:
    """The scheduler's first answer.

    Raises:
        InvalidInput: it is something else, or its interval is not positive.
    """
    if response.WhichOneof("message") != "welcome":
        raise InvalidInput("message", "must be welcome at first")
    welcome = response.welcome
    if welcome.heartbeat_interval_ms <= 0:
        raise InvalidInput("welcome.heartbeat_interval_ms", "must be positive")
    return Welcome(
        heartbeat_interval_s=welcome.heartbeat_interval_ms / 1000,
        lease_ttl_s=welcome.lease_ttl_ms / 1000,
        kept=frozenset(AttemptId(kept) for kept in welcome.kept_attempt_ids),
        cancelled=frozenset(AttemptId(gone) for gone in welcome.cancelled_attempt_ids),
    )


def command_from_wire(  # noqa: PLR0911 (one a command)
    response: lease_pb2.WorkResponse,
) -> Command | None:
    """A command; None for one that means nothing here, e.g. of a newer scheduler."""
    match response.WhichOneof("message"):
        case "assign":
            return _assign(response.assign)
        case "cancel":
            return Cancel(AttemptId(response.cancel.attempt_id))
        case "park":
            return Park(AttemptId(response.park.attempt_id))
        case "resume":
            return Resume(AttemptId(response.resume.attempt_id))
        case "acknowledged":
            known = response.acknowledged
            return Acknowledged(AttemptId(known.attempt_id), known.accepted)
        case "drain":
            return Drain()
        case _:
            return None


def _assign(assign: lease_pb2.Assign) -> Assign | Malformed | None:
    try:
        named = attempt_id(assign.attempt_id)
    except InvalidInput:
        return None  # without a name there is nothing to answer
    try:
        return Assign(
            attempt_id=named,
            job_id=job_id(assign.job_id),
            user_id=user_id(assign.user_id),
            generation=generation_from_wire(assign.generation),
            attempt_number=assign.attempt_number,
            traceparent=assign.traceparent,
        )
    except InvalidInput as error:
        return Malformed(named, str(error))


def _hello(hello: Hello) -> lease_pb2.Hello:
    profile = hello.profile
    return lease_pb2.Hello(
        worker_id=profile.worker_id,
        address=hello.address,
        lane=profile.lane,
        device=hello.device,
        slots=profile.slots,
        models=[model_to_wire(card) for card in hello.models],
        held_attempt_ids=hello.held,
        can_park=True,
        parked_attempt_ids=hello.parked,
        returning=hello.returning,
    )


def _finished(report: AttemptFinished) -> lease_pb2.AttemptFinished:
    return lease_pb2.AttemptFinished(
        attempt_id=report.attempt_id,
        images=[_image(image) for image in report.images],
        steps_done=report.steps_done,
        first_step_ms=report.first_step_ms,
        total_ms=report.total_ms,
        warnings=report.warnings,
    )


def _image(image: StoredImage) -> generation_pb2.Image:
    return generation_pb2.Image(**asdict(image))


def _failed(report: AttemptFailed) -> lease_pb2.AttemptFailed:
    return lease_pb2.AttemptFailed(
        attempt_id=report.attempt_id,
        kind=_KINDS[report.kind],
        code=report.code,
        message=report.message,
        steps_done=report.steps_done,
    )
