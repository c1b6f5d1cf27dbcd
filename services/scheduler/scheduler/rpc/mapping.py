"""Jobs and events on the wire and in the domain; what callers send is checked here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from easel.common.v1 import generation_pb2, model_pb2
from easel.scheduler.v1 import events_pb2, jobs_pb2
from easel_kit import ids
from easel_kit.errors import InvalidInput
from easel_kit.ids import JobId, WorkerId
from scheduler.domain.job import (
    Cursor,
    Entitlements,
    Event,
    EventType,
    Image,
    Job,
    JobError,
    JobState,
    NewJob,
    Resolution,
    Submission,
)
from scheduler.domain.line import Live
from scheduler.domain.worker import Model, WorkerStatus
from scheduler.rpc.checks import within
from scheduler.rpc.generations import generation, generation_to_wire

_MAX_COST_MS = 2**40
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_WORKER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")

_STATES = {
    JobState.QUEUED: jobs_pb2.JOB_STATE_QUEUED,
    JobState.RUNNING: jobs_pb2.JOB_STATE_RUNNING,
    JobState.SUCCEEDED: jobs_pb2.JOB_STATE_SUCCEEDED,
    JobState.FAILED: jobs_pb2.JOB_STATE_FAILED,
    JobState.CANCELLED: jobs_pb2.JOB_STATE_CANCELLED,
}
_FROM_WIRE = {wire: state for state, wire in _STATES.items()}
_EVENTS = {
    EventType.QUEUED: events_pb2.EVENT_TYPE_QUEUED,
    EventType.SUCCEEDED: events_pb2.EVENT_TYPE_SUCCEEDED,
    EventType.FAILED: events_pb2.EVENT_TYPE_FAILED,
    EventType.CANCELLED: events_pb2.EVENT_TYPE_CANCELLED,
}


def repeats(request: jobs_pb2.SubmitJobsRequest) -> dict[JobId, JobId]:
    """For each new job that repeats another, by its id: which.

    Raises:
        InvalidInput: no id of a job.
    """
    return {
        ids.job_id(job.job_id, f"jobs.{n}.job_id"): ids.job_id(job.retry_of, f"jobs.{n}.retry_of")
        for n, job in enumerate(request.jobs)
        if job.retry_of
    }


def submission(
    request: jobs_pb2.SubmitJobsRequest, repeated: Mapping[JobId, Job], traceparent: str
) -> Submission:
    """A submit, checked; `repeated` by new id gives what a job does not say itself.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    return Submission(
        user_id=ids.user_id(request.user_id),
        entitlements=entitlements(request.entitlements),
        jobs=tuple(
            _new_job(job, repeated.get(JobId(job.job_id)), f"jobs.{n}")
            for n, job in enumerate(request.jobs)
        ),
        traceparent=traceparent,
        batch_id=ids.batch_id(request.batch_id) if request.batch_id else None,
        prepend=request.prepend,
    )


def entitlements(wire: jobs_pb2.Entitlements) -> Entitlements:
    """Numbers of a plan.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    field = "entitlements"
    return Entitlements(
        version=within(wire.version, 0, _MAX_INT64, f"{field}.version"),
        priority=within(wire.priority, 0, _MAX_INT32, f"{field}.priority"),
        weight=within(wire.weight, 1, 1_000_000, f"{field}.weight"),
        max_running=within(wire.max_running, 1, 100_000, f"{field}.max_running"),
        max_waiting=within(wire.max_waiting, 0, 1_000_000, f"{field}.max_waiting"),
        queue_time_s=within(wire.queue_time_s, 1, _MAX_INT32, f"{field}.queue_time_s"),
    )


def entitlements_to_wire(plan: Entitlements) -> jobs_pb2.Entitlements:
    """Numbers of a plan."""
    return jobs_pb2.Entitlements(
        version=plan.version,
        priority=plan.priority,
        weight=plan.weight,
        max_running=plan.max_running,
        max_waiting=plan.max_waiting,
        queue_time_s=plan.queue_time_s,
    )


def cost(cost_ms: int, field: str = "cost_ms") -> int:
    """Estimated work in reference GPU-milliseconds.

    Raises:
        InvalidInput: out of range.
    """
    return within(cost_ms, 1, _MAX_COST_MS, field)


def estimate_to_wire(live: Live | None) -> jobs_pb2.EstimateJobResponse:
    """Where a job would stand; None: nobody can say."""
    if live is None:
        return jobs_pb2.EstimateJobResponse()
    return jobs_pb2.EstimateJobResponse(position=live.position, eta_seconds=live.eta_s)


def _new_job(wire: jobs_pb2.JobSubmission, repeated: Job | None, field: str) -> NewJob:
    asked = None if repeated is None or wire.HasField("generation") else repeated.generation
    cost_ms = wire.cost_ms or (repeated.cost_ms if repeated is not None else 0)
    return NewJob(
        id=ids.job_id(wire.job_id, f"{field}.job_id"),
        generation=asked or generation(wire.generation, f"{field}.generation"),
        cost_ms=cost(cost_ms, f"{field}.cost_ms"),
        retry_of=ids.job_id(wire.retry_of, f"{field}.retry_of") if wire.retry_of else None,
    )


def state_from_wire(wire: jobs_pb2.JobState.ValueType, field: str) -> JobState:
    """A state asked for.

    Raises:
        InvalidInput: it is not known.
    """
    if wire not in _FROM_WIRE:
        raise InvalidInput(field, "must be a known state")
    return _FROM_WIRE[wire]


def state_to_wire(state: JobState) -> jobs_pb2.JobState.ValueType:
    """A state."""
    return _STATES[state]


def cursor(wire: events_pb2.Cursor) -> Cursor:
    """A place in the feed.

    Raises:
        InvalidInput: no place that there can be.
    """
    return Cursor(
        within(wire.generation, 0, _MAX_INT64, "after.generation"),
        within(wire.transaction_id, 0, _MAX_INT64, "after.transaction_id"),
        within(wire.sequence, 0, _MAX_INT64, "after.sequence"),
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    wire = Timestamp()
    wire.FromDatetime(time)
    return wire


def job_to_wire(job: Job) -> jobs_pb2.Job:
    """A job for its owner."""
    return jobs_pb2.Job(
        id=job.id,
        user_id=job.user_id,
        state=_STATES[job.state],
        generation=generation_to_wire(job.generation),
        position=job.position,
        eta_seconds=job.eta_s,
        progress=jobs_pb2.Progress(step=job.steps_done, steps=job.steps),
        timeline=jobs_pb2.Timeline(
            queued_at=_timestamp(job.queued_at),
            claimed_at=_timestamp(job.claimed_at),
            first_step_at=_timestamp(job.first_step_at),
            finished_at=_timestamp(job.finished_at),
        ),
        images=[image_to_wire(image) for image in job.images],
        error=_error(job.error),
        attempts=job.attempts,
        cancel_requested=job.cancel_requested,
        warnings=job.warnings,
        batch_id=job.batch_id or "",
        retry_of=job.retry_of or "",
        parked=job.parked,
    )


def image_to_wire(image: Image) -> generation_pb2.Image:
    """A finished picture."""
    return generation_pb2.Image(
        id=image.id,
        object_key=image.object_key,
        width_px=image.width_px,
        height_px=image.height_px,
        media_type=image.media_type,
        size_bytes=image.size_bytes,
        sha256=image.sha256,
        seed=image.seed,
        thumbnail_object_key=image.thumbnail_object_key,
    )


def _error(error: JobError | None) -> jobs_pb2.JobError | None:
    return None if error is None else jobs_pb2.JobError(code=error.code, message=error.message)


def resolution_to_wire(found: Resolution) -> jobs_pb2.ResolveJobResponse:
    """What became of a job id."""
    return jobs_pb2.ResolveJobResponse(
        state=jobs_pb2.JOB_STATE_UNSPECIFIED if found.state is None else _STATES[found.state],
        progress=jobs_pb2.Progress(step=found.steps_done, steps=found.steps),
    )


def event_to_wire(event: Event) -> events_pb2.Event:
    """One change of a job's state."""
    return events_pb2.Event(
        cursor=events_pb2.Cursor(
            generation=event.cursor.generation,
            transaction_id=event.cursor.transaction_id,
            sequence=event.cursor.sequence,
        ),
        type=_EVENTS[event.type],
        job_id=event.job_id,
        user_id=event.user_id,
        occurred_at=_timestamp(event.occurred_at),
        progress=jobs_pb2.Progress(step=event.steps_done, steps=event.steps),
        images=[image_to_wire(image) for image in event.images],
        error=_error(event.error),
        traceparent=event.traceparent,
    )


def model_to_wire(model: Model) -> model_pb2.Model:
    """A model of the catalogue."""
    return model_pb2.Model(
        key=model.key,
        name=model.name,
        base=model.base,
        type=model.type,
        description=model.description,
        licence=model.licence,
        defaults=model_pb2.ModelDefaults(
            steps=model.defaults.steps,
            guidance=model.defaults.guidance,
            width_px=model.defaults.width_px,
            height_px=model.defaults.height_px,
            sampler=model.defaults.sampler,
        ),
        sizes=[
            model_pb2.PictureSize(width_px=width, height_px=height)
            for width, height in model.sizes_px
        ],
        max_steps=model.max_steps,
        max_prompt_tokens=model.max_prompt_tokens,
        samplers=model.samplers,
        loaded=model.loaded,
        unavailable_reason=model.unavailable_reason,
        features=model.features,
        size_bytes=model.size_bytes,
    )


def worker_id(value: str, field: str = "worker_id") -> WorkerId:
    """A worker's name.

    Raises:
        InvalidInput: it cannot be one.
    """
    if not _WORKER_ID.fullmatch(value):
        raise InvalidInput(field, "must be 1 to 128 letters, digits or ._:/-")
    return WorkerId(value)


def worker_to_wire(status: WorkerStatus) -> jobs_pb2.Worker:
    """A connected worker."""
    worker = status.worker
    return jobs_pb2.Worker(
        id=worker.id,
        address=worker.address,
        device=worker.device,
        slots=worker.slots,
        running=status.running,
        parked=status.parked,
        draining=worker.draining,
        model_keys=[model.key for model in worker.models],
    )
