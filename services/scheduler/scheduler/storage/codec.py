"""How values are written in Redis and in jsonb: plain JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from easel_kit.ids import AttemptId, ImageId, JobId, ModelKey, UserId, WorkerId
from scheduler.domain.job import Image
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission, End, Progress
from scheduler.domain.policy import Share
from scheduler.domain.stream import Control, Drain, Park, Resume, Stop
from scheduler.domain.worker import Model, ModelDefaults, Worker

CLAIM_FIELDS = 7
_IMAGE = tuple(field.name for field in fields(Image))
_CONTROLS: dict[str, Callable[[AttemptId], Control]] = {
    "stop": Stop,
    "park": Park,
    "resume": Resume,
}


def from_ms(text: bytes | str | float) -> datetime:
    """Milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(float(text) / 1000, UTC)


def to_ms(time: datetime) -> str:
    """A time as milliseconds since 1970."""
    return str(int(time.timestamp() * 1000))


def images_to_json(images: Iterable[Image]) -> list[dict[str, Any]]:
    """For results and events."""
    return [{name: getattr(image, name) for name in _IMAGE} for image in images]


def images_from_json(found: Iterable[Mapping[str, Any]] | None) -> tuple[Image, ...]:
    """From results and events."""
    return tuple(Image(**{**image, "id": ImageId(image["id"])}) for image in found or ())


def claims_from_redis(answer: Sequence[bytes]) -> list[tuple[Claim, bool]]:
    """The flat list that scripts return; True for a lease that was made up after a loss."""
    found = []
    for start in range(0, len(answer), CLAIM_FIELDS):
        attempt, job, user, worker, number, at, restored = answer[start : start + CLAIM_FIELDS]
        claim = Claim(
            attempt_id=AttemptId(attempt.decode()),
            job_id=JobId(job.decode()),
            user_id=UserId(user.decode()),
            worker_id=WorkerId(worker.decode()),
            number=int(number),
            claimed_at=from_ms(at),
        )
        found.append((claim, restored == b"1"))
    return found


def share_to_redis(share: Share) -> list[str]:
    """The arguments of a user's numbers for the scripts."""
    return [str(share.version), str(share.priority), str(share.weight), str(share.max_running)]


def admission_to_redis(admission: Admission) -> list[str]:
    """The arguments of one job for `admit.lua` and `adopt.lua`."""
    claim = admission.claim
    return [
        admission.job_id,
        admission.user_id,
        admission.model_key,
        str(admission.cost_ms),
        str(admission.place),
        str(admission.order),
        str(claim.number if claim else admission.attempts),
        to_ms(admission.start_by),
        *share_to_redis(admission.share),
        claim.attempt_id if claim else "",
        claim.worker_id if claim else "",
        to_ms(claim.claimed_at) if claim else "",
        to_ms(admission.not_before) if admission.not_before else "0",
    ]


def control_from_redis(message: bytes) -> tuple[WorkerId, Control]:
    """An order to a worker, as scripts publish it: verb, worker, and the attempt for most."""
    verb, worker_id, *attempt = message.decode().split(" ")
    if verb == "drain":
        return WorkerId(worker_id), Drain()
    return WorkerId(worker_id), _CONTROLS[verb](AttemptId(*attempt))


def end_to_redis(end: End) -> tuple[str, str, str]:
    """The arguments of one job for `remove.lua`."""
    return end.job_id, end.by or "", "" if end.took_ms is None else str(end.took_ms)


def worker_to_json(worker: Worker) -> str:
    """What the worker says of itself, for the registry."""
    body = asdict(worker)
    del body["id"], body["session"]
    return json.dumps(body, separators=(",", ":"))


def worker_from_json(worker_id: str, session: str, text: bytes) -> Worker:
    """From the registry."""
    body = json.loads(text)
    models = tuple(
        Model(
            **{
                **model,
                "key": ModelKey(model["key"]),
                "defaults": ModelDefaults(**model["defaults"]),
                "sizes_px": tuple((width, height) for width, height in model["sizes_px"]),
                "samplers": tuple(model["samplers"]),
                "features": tuple(model.get("features", ())),
            }
        )
        for model in body.pop("models")
    )
    return Worker(id=WorkerId(worker_id), session=session, models=models, **body)


def progress_to_redis(progress: Progress) -> tuple[str, bytes]:
    """What is kept of a job's progress, and the message for its watchers."""
    kept = {
        "step": progress.step,
        "steps": progress.steps,
        "first": to_ms(progress.first_step_at),
    }
    head = json.dumps({**kept, "type": progress.preview_media_type}).encode()
    return json.dumps(kept), head + b"\n" + progress.preview


def progress_from_redis(job_id: JobId, message: bytes) -> Progress | None:
    """From either; None for the empty message that says only that the job changed."""
    if not message:
        return None
    head, _, preview = message.partition(b"\n")
    found = json.loads(head)
    return Progress(
        job_id=job_id,
        step=found["step"],
        steps=found["steps"],
        first_step_at=from_ms(found["first"]),
        preview=preview,
        preview_media_type=found.get("type", ""),
    )
