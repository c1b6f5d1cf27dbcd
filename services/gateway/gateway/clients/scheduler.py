"""The scheduler over gRPC: all of its ports, from `Jobs` to `JobPrivacy`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from easel.common.v1 import model_pb2
from easel.scheduler.v1 import events_pb2, jobs_pb2, privacy_pb2
from easel.scheduler.v1.events_pb2_grpc import EventServiceStub
from easel.scheduler.v1.jobs_pb2_grpc import JobServiceStub
from easel.scheduler.v1.privacy_pb2_grpc import PrivacyServiceStub
from easel_kit.erasure import UserHash
from easel_kit.errors import DependencyDown, InvalidInput
from easel_kit.ids import JobId, ModelKey, UserId
from gateway.clients.generations import generation, generation_to_wire, image
from gateway.domain.account import Entitlements
from gateway.domain.catalogue import Model, ModelDefaults, Size
from gateway.domain.generation import Generation, cost_ms
from gateway.domain.job import (
    Batch,
    Job,
    JobFailure,
    JobFilter,
    JobPage,
    JobState,
    JobUpdate,
    Outlook,
    Progress,
    Stopped,
    Timeline,
)
from gateway.domain.library import Cursor, JobEvent

_STATES = {
    jobs_pb2.JOB_STATE_QUEUED: JobState.QUEUED,
    jobs_pb2.JOB_STATE_RUNNING: JobState.RUNNING,
    jobs_pb2.JOB_STATE_SUCCEEDED: JobState.SUCCEEDED,
    jobs_pb2.JOB_STATE_FAILED: JobState.FAILED,
    jobs_pb2.JOB_STATE_CANCELLED: JobState.CANCELLED,
}
_WIRE_STATES = {state: wire for wire, state in _STATES.items()}
_EVENT_STATES = {
    events_pb2.EVENT_TYPE_QUEUED: JobState.QUEUED,
    events_pb2.EVENT_TYPE_SUCCEEDED: JobState.SUCCEEDED,
    events_pb2.EVENT_TYPE_FAILED: JobState.FAILED,
    events_pb2.EVENT_TYPE_CANCELLED: JobState.CANCELLED,
}
# Of a whole export: every job that is kept, and a slow reader.
_EXPORT_TIMEOUT_S = 600.0
# Of an erasure, or of looking for whom a backup has brought back; what was done by then stays done.
_ERASE_TIMEOUT_S = 60.0


class SchedulerClient:
    """Calls the scheduler on a channel of `easel_kit.rpc.channel` (deadlines, retries, errors)."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """The channel stays its opener's."""
        self._jobs = JobServiceStub(channel)
        self._events = EventServiceStub(channel)
        self._privacy = PrivacyServiceStub(channel)

    async def submit(
        self, user_id: UserId, batch: Batch, entitlements: Entitlements
    ) -> tuple[Job, ...]:
        """See `gateway.ports.Jobs`."""
        request = jobs_pb2.SubmitJobsRequest(
            user_id=user_id,
            entitlements=_entitlements(entitlements),
            jobs=[
                jobs_pb2.JobSubmission(
                    job_id=order.job_id,
                    generation=generation_to_wire(order.generation),
                    cost_ms=cost_ms(order.generation),
                    retry_of=order.retry_of or "",
                )
                for order in batch.orders
            ],
            batch_id=batch.id,
            prepend=batch.prepend,
        )
        answer = await self._jobs.SubmitJobs(request)
        return tuple(_job(job) for job in answer.jobs)

    async def get(self, user_id: UserId, job_id: JobId) -> Job:
        """See `gateway.ports.Jobs`."""
        request = jobs_pb2.GetJobRequest(user_id=user_id, job_id=job_id)
        return _job((await self._jobs.GetJob(request)).job)

    async def list(
        self, user_id: UserId, wanted: JobFilter, *, page_size: int, page_token: str
    ) -> JobPage:
        """See `gateway.ports.Jobs`."""
        request = jobs_pb2.ListJobsRequest(
            user_id=user_id,
            states=[_WIRE_STATES[state] for state in wanted.states],
            page_size=page_size,
            page_token=page_token,
            batch_ids=wanted.batch_ids,
            model_keys=wanted.models,
        )
        if wanted.queued_from is not None:
            request.queued_from.FromDatetime(wanted.queued_from)
        if wanted.queued_before is not None:
            request.queued_before.FromDatetime(wanted.queued_before)
        try:
            answer = await self._jobs.ListJobs(request)
        except InvalidInput as error:
            if error.field == "page_token":
                raise InvalidInput("cursor", error.reason) from error
            raise
        return JobPage(tuple(_job(job) for job in answer.jobs), answer.next_page_token)

    async def cancel(self, user_id: UserId, job_id: JobId) -> Job:
        """See `gateway.ports.Jobs`."""
        request = jobs_pb2.CancelJobRequest(user_id=user_id, job_id=job_id)
        return _job((await self._jobs.CancelJob(request)).job)

    async def watch(self, user_id: UserId, job_id: JobId) -> AsyncGenerator[JobUpdate, None]:
        """See `gateway.ports.Jobs`."""
        call = self._jobs.WatchJob(jobs_pb2.WatchJobRequest(user_id=user_id, job_id=job_id))
        try:
            async for answer in call:
                yield JobUpdate(_job(answer.job), answer.preview, answer.preview_media_type)
        finally:
            call.cancel()

    async def count(self, user_id: UserId, batch_ids: Sequence[str]) -> dict[JobState, int]:
        """See `gateway.ports.Line`."""
        request = jobs_pb2.CountJobsRequest(user_id=user_id, batch_ids=batch_ids)
        answer = await self._jobs.CountJobs(request)
        return {_STATES[one.state]: one.jobs for one in answer.counts}

    async def cancel_many(
        self,
        user_id: UserId,
        *,
        job_ids: Sequence[JobId],
        batch_ids: Sequence[str],
        waiting_only: bool,
    ) -> Stopped:
        """See `gateway.ports.Line`."""
        answer = await self._jobs.CancelJobs(
            jobs_pb2.CancelJobsRequest(
                user_id=user_id, job_ids=job_ids, batch_ids=batch_ids, waiting_only=waiting_only
            )
        )
        return Stopped(
            tuple(JobId(job_id) for job_id in answer.cancelled_job_ids),
            tuple(JobId(job_id) for job_id in answer.stopping_job_ids),
        )

    async def prepend(self, user_id: UserId, job_ids: Sequence[JobId]) -> tuple[JobId, ...]:
        """See `gateway.ports.Line`."""
        request = jobs_pb2.PrependJobsRequest(user_id=user_id, job_ids=job_ids)
        answer = await self._jobs.PrependJobs(request)
        return tuple(JobId(job_id) for job_id in answer.moved_job_ids)

    async def prune(
        self, user_id: UserId, *, states: Sequence[JobState], batch_ids: Sequence[str]
    ) -> int:
        """See `gateway.ports.Line`."""
        answer = await self._jobs.PruneJobs(
            jobs_pb2.PruneJobsRequest(
                user_id=user_id,
                states=[_WIRE_STATES[state] for state in states],
                batch_ids=batch_ids,
            )
        )
        return answer.pruned

    async def clear(self, user_id: UserId) -> tuple[int, int]:
        """See `gateway.ports.Line`."""
        answer = await self._jobs.ClearJobs(jobs_pb2.ClearJobsRequest(user_id=user_id))
        return answer.cancelled, answer.pruned

    async def foresee(
        self, user_id: UserId, entitlements: Entitlements, generation: Generation
    ) -> Outlook:
        """See `gateway.ports.Forecast`."""
        request = jobs_pb2.EstimateJobRequest(
            user_id=user_id,
            entitlements=_entitlements(entitlements),
            cost_ms=cost_ms(generation),
        )
        answer = await self._jobs.EstimateJob(request)
        if not answer.position:
            raise DependencyDown("the queue does not answer")
        return Outlook(
            answer.position, answer.eta_seconds if answer.HasField("eta_seconds") else None
        )

    async def list_models(self) -> tuple[Model, ...]:
        """See `gateway.ports.Models`."""
        answer = await self._jobs.ListModels(jobs_pb2.ListModelsRequest())
        return tuple(_model(model) for model in answer.models)

    async def subscribe(self, after: Cursor) -> AsyncGenerator[tuple[JobEvent, ...], None]:
        """See `gateway.ports.JobFeed`."""
        cursor = events_pb2.Cursor(
            generation=after.generation,
            transaction_id=after.transaction_id,
            sequence=after.sequence,
        )
        call = self._events.Subscribe(events_pb2.SubscribeRequest(after=cursor))
        try:
            async for answer in call:
                yield tuple(_event(event) for event in answer.events)
        finally:
            call.cancel()

    async def export_jobs(self, user_id: UserId) -> AsyncGenerator[tuple[Job, ...], None]:
        """See `gateway.ports.JobPrivacy`."""
        request = privacy_pb2.ExportJobsRequest(user_id=user_id)
        call = self._privacy.ExportJobs(request, timeout=_EXPORT_TIMEOUT_S)
        try:
            async for answer in call:
                yield tuple(_job(job) for job in answer.jobs)
        finally:
            call.cancel()

    async def erase_users(self, user_hashes: Sequence[UserHash]) -> int:
        """See `gateway.ports.JobPrivacy`."""
        request = privacy_pb2.EraseUsersRequest(user_hashes=user_hashes)
        answer = await self._privacy.EraseUsers(request, timeout=_ERASE_TIMEOUT_S)
        return answer.busy


def _entitlements(entitlements: Entitlements) -> jobs_pb2.Entitlements:
    plan = entitlements.plan
    return jobs_pb2.Entitlements(
        version=entitlements.version,
        priority=plan.priority,
        weight=plan.weight,
        max_running=plan.max_running,
        max_waiting=plan.max_waiting,
        queue_time_s=plan.queue_time_s,
    )


def _job(job: jobs_pb2.Job) -> Job:
    return Job(
        id=JobId(job.id),
        user_id=UserId(job.user_id),
        state=_STATES[job.state],
        generation=generation(job.generation),
        position=job.position,
        eta_seconds=job.eta_seconds if job.HasField("eta_seconds") else None,
        progress=Progress(job.progress.step, job.progress.steps),
        timeline=_timeline(job.timeline),
        images=tuple(image(one) for one in job.images),
        error=JobFailure(job.error.code, job.error.message) if job.HasField("error") else None,
        attempts=job.attempts,
        cancel_requested=job.cancel_requested,
        warnings=tuple(job.warnings),
        batch_id=job.batch_id,
        retry_of=JobId(job.retry_of) if job.retry_of else None,
    )


def _timeline(timeline: jobs_pb2.Timeline) -> Timeline:
    def at(name: str) -> datetime | None:
        stamp: Timestamp = getattr(timeline, name)
        return stamp.ToDatetime(tzinfo=UTC) if timeline.HasField(name) else None  # type: ignore[arg-type]

    return Timeline(
        queued_at=at("queued_at"),
        claimed_at=at("claimed_at"),
        first_step_at=at("first_step_at"),
        finished_at=at("finished_at"),
    )


def _model(model: model_pb2.Model) -> Model:
    defaults = model.defaults
    return Model(
        key=ModelKey(model.key),
        name=model.name,
        base=model.base,
        type=model.type,
        description=model.description,
        licence=model.licence,
        defaults=ModelDefaults(
            steps=defaults.steps,
            guidance=defaults.guidance,
            size=Size(defaults.width_px, defaults.height_px),
            sampler=defaults.sampler,
        ),
        sizes=tuple(Size(size.width_px, size.height_px) for size in model.sizes),
        max_steps=model.max_steps,
        max_prompt_tokens=model.max_prompt_tokens,
        samplers=tuple(model.samplers),
        loaded=model.loaded,
        unavailable_reason=model.unavailable_reason,
        features=tuple(model.features),
        size_bytes=model.size_bytes,
    )


def _event(event: events_pb2.Event) -> JobEvent:
    cursor = event.cursor
    return JobEvent(
        cursor=Cursor(cursor.generation, cursor.transaction_id, cursor.sequence),
        state=_EVENT_STATES[event.type],
        job_id=JobId(event.job_id),
        user_id=UserId(event.user_id),
        occurred_at=event.occurred_at.ToDatetime(tzinfo=UTC),
        images=tuple(image(one) for one in event.images),
        traceparent=event.traceparent,
    )
