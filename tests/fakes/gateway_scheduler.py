"""The scheduler as the gateway sees it over gRPC: in memory, moved by tests."""

# ruff: noqa: ARG002, N802 (the names and arguments are the stubs')

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from easel.common.v1 import generation_pb2, model_pb2
from easel.scheduler.v1 import events_pb2, jobs_pb2
from easel.scheduler.v1.events_pb2_grpc import EventServiceServicer
from easel.scheduler.v1.jobs_pb2_grpc import JobServiceServicer
from easel_kit import ids
from easel_kit.errors import InvalidInput, NotFound
from tests.fakes.gateway_wire import Context, Fault, now

# the open ones first
STATES = (
    jobs_pb2.JOB_STATE_QUEUED,
    jobs_pb2.JOB_STATE_RUNNING,
    jobs_pb2.JOB_STATE_SUCCEEDED,
    jobs_pb2.JOB_STATE_FAILED,
    jobs_pb2.JOB_STATE_CANCELLED,
)
MODELS = (
    model_pb2.Model(
        key="shapes-64",
        name="Shapes",
        base="shapes",
        type="main",
        description="Draws coloured shapes.",
        licence="MIT",
        defaults=model_pb2.ModelDefaults(
            steps=10, guidance=2.5, width_px=64, height_px=64, sampler="ddim"
        ),
        sizes=[model_pb2.PictureSize(width_px=64, height_px=64)],
        max_steps=50,
        max_prompt_tokens=32,
        samplers=["ddim", "euler"],
        loaded=True,
        features=["image_to_image", "inpaint", "hires", "loras", "controls", "clip_skip"],
        size_bytes=5_000_000,
    ),
    model_pb2.Model(key="fine", name="Fine", base="shapes", type="lora", licence="MIT"),
    model_pb2.Model(key="edges", name="Edges", base="shapes", type="controlnet", licence="MIT"),
)


@dataclass
class FakeScheduler(JobServiceServicer, EventServiceServicer):
    """Jobs that do nothing by themselves: a test moves them."""

    jobs: dict[str, jobs_pb2.Job] = field(default_factory=dict)
    submissions: list[jobs_pb2.SubmitJobsRequest] = field(default_factory=list)
    models: list[model_pb2.Model] = field(default_factory=lambda: deepcopy([*MODELS]))
    events: list[events_pb2.Event] = field(default_factory=list)
    feeding: bool = True
    before_submit: Fault | None = None
    after_submit: Fault | None = None
    fault: Fault | None = None
    watchers: int = 0
    model_lists: int = 0
    subscriptions: list[events_pb2.Cursor] = field(default_factory=list)
    previews: dict[str, bytes] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def SubmitJobs(
        self, request: jobs_pb2.SubmitJobsRequest, context: Context
    ) -> jobs_pb2.SubmitJobsResponse:
        self.submissions.append(request)
        if self.before_submit is not None:
            await self.before_submit()
        for submission in request.jobs:
            if submission.job_id not in self.jobs:
                self.jobs[submission.job_id] = jobs_pb2.Job(
                    id=submission.job_id,
                    user_id=request.user_id,
                    state=jobs_pb2.JOB_STATE_QUEUED,
                    generation=submission.generation,
                    position=1,
                    eta_seconds=2.5,
                    progress=jobs_pb2.Progress(
                        steps=submission.generation.total_steps
                        or submission.generation.steps * submission.generation.image_count
                    ),
                    timeline=jobs_pb2.Timeline(queued_at=now()),
                    batch_id=request.batch_id,
                    retry_of=submission.retry_of,
                )
        await self._notify()
        if self.after_submit is not None:
            await self.after_submit()
        return jobs_pb2.SubmitJobsResponse(jobs=[self.jobs[job.job_id] for job in request.jobs])

    def _own(self, user: str, job: str) -> jobs_pb2.Job:
        found = self.jobs.get(job)
        if found is None or found.user_id != user:
            raise NotFound("job", job)
        return found

    async def GetJob(
        self, request: jobs_pb2.GetJobRequest, context: Context
    ) -> jobs_pb2.GetJobResponse:
        if self.fault is not None:
            await self.fault()
        return jobs_pb2.GetJobResponse(job=self._own(request.user_id, request.job_id))

    async def ListJobs(
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> jobs_pb2.ListJobsResponse:
        if request.page_token and not request.page_token.isdecimal():
            raise InvalidInput("page_token", "is not one of ours")
        own = [
            job
            for job in reversed(self.jobs.values())
            if job.user_id == request.user_id
            and job.id not in self.hidden
            and (not request.states or job.state in request.states)
            and (not request.batch_ids or job.batch_id in request.batch_ids)
            and (not request.model_keys or job.generation.model_key in request.model_keys)
            and not (
                request.HasField("queued_from")
                and job.timeline.queued_at.ToNanoseconds() < request.queued_from.ToNanoseconds()
            )
            and not (
                request.HasField("queued_before")
                and job.timeline.queued_at.ToNanoseconds() >= request.queued_before.ToNanoseconds()
            )
        ]
        begin = int(request.page_token or "0")
        end = begin + (request.page_size or 20)
        return jobs_pb2.ListJobsResponse(
            jobs=own[begin:end], next_page_token=str(end) if end < len(own) else ""
        )

    async def CancelJob(
        self, request: jobs_pb2.CancelJobRequest, context: Context
    ) -> jobs_pb2.CancelJobResponse:
        job = self._own(request.user_id, request.job_id)
        job.cancel_requested = True
        if job.state == jobs_pb2.JOB_STATE_QUEUED:
            await self.end(job.id, jobs_pb2.JOB_STATE_CANCELLED)
        return jobs_pb2.CancelJobResponse(job=job)

    def _shown(self, user: str, batches: Sequence[str] = ()) -> list[jobs_pb2.Job]:
        return [
            job
            for job in self.jobs.values()
            if job.user_id == user
            and job.id not in self.hidden
            and (not batches or job.batch_id in batches)
        ]

    async def CountJobs(
        self, request: jobs_pb2.CountJobsRequest, context: Context
    ) -> jobs_pb2.CountJobsResponse:
        found = Counter(job.state for job in self._shown(request.user_id, request.batch_ids))
        return jobs_pb2.CountJobsResponse(
            counts=[jobs_pb2.JobCount(state=state, jobs=found[state]) for state in STATES]
        )

    async def CancelJobs(
        self, request: jobs_pb2.CancelJobsRequest, context: Context
    ) -> jobs_pb2.CancelJobsResponse:
        named = request.job_ids or request.batch_ids
        answer = jobs_pb2.CancelJobsResponse()
        for job in self._shown(request.user_id):
            if named and not (job.id in request.job_ids or job.batch_id in request.batch_ids):
                continue
            if job.state == jobs_pb2.JOB_STATE_QUEUED:
                await self.end(job.id, jobs_pb2.JOB_STATE_CANCELLED)
                answer.cancelled_job_ids.append(job.id)
            elif job.state == jobs_pb2.JOB_STATE_RUNNING and not request.waiting_only:
                job.cancel_requested = True
                answer.stopping_job_ids.append(job.id)
        return answer

    async def PrependJobs(
        self, request: jobs_pb2.PrependJobsRequest, context: Context
    ) -> jobs_pb2.PrependJobsResponse:
        waiting = {
            job.id for job in self._shown(request.user_id) if job.state == jobs_pb2.JOB_STATE_QUEUED
        }
        moved = [job for job in request.job_ids if job in waiting]
        return jobs_pb2.PrependJobsResponse(moved_job_ids=moved)

    async def PruneJobs(
        self, request: jobs_pb2.PruneJobsRequest, context: Context
    ) -> jobs_pb2.PruneJobsResponse:
        ended = {
            job.id
            for job in self._shown(request.user_id, request.batch_ids)
            if job.state in (request.states or STATES[2:])
        }
        self.hidden |= ended
        return jobs_pb2.PruneJobsResponse(pruned=len(ended))

    async def ClearJobs(
        self, request: jobs_pb2.ClearJobsRequest, context: Context
    ) -> jobs_pb2.ClearJobsResponse:
        shown = self._shown(request.user_id)
        is_open = [job for job in shown if job.state in STATES[:2]]
        for job in is_open:
            job.cancel_requested = True
        self.hidden |= {job.id for job in shown}
        return jobs_pb2.ClearJobsResponse(cancelled=len(is_open), pruned=len(shown))

    async def SetEntitlements(
        self, request: jobs_pb2.SetEntitlementsRequest, context: Context
    ) -> jobs_pb2.SetEntitlementsResponse:
        raise NotImplementedError

    async def EstimateJob(
        self, request: jobs_pb2.EstimateJobRequest, context: Context
    ) -> jobs_pb2.EstimateJobResponse:
        if self.fault is not None:
            await self.fault()
        waiting = sum(job.state == jobs_pb2.JOB_STATE_QUEUED for job in self.jobs.values())
        return jobs_pb2.EstimateJobResponse(
            position=waiting + 1, eta_seconds=waiting + request.cost_ms / 1_000
        )

    async def GetQueue(
        self, request: jobs_pb2.GetQueueRequest, context: Context
    ) -> jobs_pb2.GetQueueResponse:
        raise NotImplementedError

    async def DrainWorker(
        self, request: jobs_pb2.DrainWorkerRequest, context: Context
    ) -> jobs_pb2.DrainWorkerResponse:
        raise NotImplementedError

    async def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        job = self._own(request.user_id, request.job_id)
        del context
        self.watchers += 1
        told = b""
        try:
            while True:
                if self.fault is not None:
                    await self.fault()
                preview = self.previews.get(job.id, b"")
                answer = jobs_pb2.WatchJobResponse(
                    job=job, preview=preview, preview_media_type="image/png" if preview else ""
                )
                if answer.SerializeToString(deterministic=True) != told:
                    told = answer.SerializeToString(deterministic=True)
                    yield answer
                if job.state > jobs_pb2.JOB_STATE_RUNNING:
                    return
                async with self._changed:
                    await self._changed.wait()
        finally:
            self.watchers -= 1

    async def ResolveJob(
        self, request: jobs_pb2.ResolveJobRequest, context: Context
    ) -> jobs_pb2.ResolveJobResponse:
        return jobs_pb2.ResolveJobResponse()

    async def ListModels(
        self, request: jobs_pb2.ListModelsRequest, context: Context
    ) -> jobs_pb2.ListModelsResponse:
        self.model_lists += 1
        return jobs_pb2.ListModelsResponse(models=self.models)

    async def ListWorkers(
        self, request: jobs_pb2.ListWorkersRequest, context: Context
    ) -> jobs_pb2.ListWorkersResponse:
        return jobs_pb2.ListWorkersResponse()

    async def Subscribe(
        self, request: events_pb2.SubscribeRequest, context: Context
    ) -> AsyncIterator[events_pb2.SubscribeResponse]:
        self.subscriptions.append(request.after)
        position = request.after.sequence
        while True:
            fresh = self.events[position:] if self.feeding else []
            if fresh:
                position += len(fresh)
                yield events_pb2.SubscribeResponse(events=fresh)
            async with self._changed:
                await self._changed.wait()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def start(self, job: str) -> None:
        """A worker has the job."""
        found = self.jobs[job]
        found.state = jobs_pb2.JOB_STATE_RUNNING
        found.position = 0
        found.attempts += 1
        found.timeline.claimed_at.CopyFrom(now())
        await self._notify()

    async def step(self, job: str, step: int, preview: bytes = b"") -> None:
        """A step is done."""
        self.jobs[job].progress.step = step
        self.previews[job] = preview
        await self._notify()

    async def succeed(self, job: str, data: bytes = b"picture") -> generation_pb2.Image:
        """The job ends with one picture."""
        found = self.jobs[job]
        folder = f"users/{found.user_id}/jobs/{job}/{ids.new_attempt_id()}"
        image = generation_pb2.Image(
            id=ids.new_image_id(),
            object_key=f"{folder}/0.png",
            thumbnail_object_key=f"{folder}/0.t.webp",
            width_px=found.generation.width_px,
            height_px=found.generation.height_px,
            media_type="image/png",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            seed=found.generation.seed,
        )
        found.images.append(image)
        found.progress.step = found.progress.steps
        await self.end(job, jobs_pb2.JOB_STATE_SUCCEEDED)
        return image

    async def end(self, job: str, state: jobs_pb2.JobState.ValueType) -> None:
        """The job ends, and the feed says so."""
        found = self.jobs[job]
        found.state = state
        found.position = 0
        found.ClearField("eta_seconds")
        found.timeline.finished_at.CopyFrom(now())
        types = {
            jobs_pb2.JOB_STATE_SUCCEEDED: events_pb2.EVENT_TYPE_SUCCEEDED,
            jobs_pb2.JOB_STATE_FAILED: events_pb2.EVENT_TYPE_FAILED,
            jobs_pb2.JOB_STATE_CANCELLED: events_pb2.EVENT_TYPE_CANCELLED,
        }
        self.events.append(
            events_pb2.Event(
                cursor=events_pb2.Cursor(
                    generation=1, transaction_id=700, sequence=len(self.events) + 1
                ),
                type=types[state],
                job_id=job,
                user_id=found.user_id,
                occurred_at=now(),
                progress=found.progress,
                images=found.images,
            )
        )
        await self._notify()

    async def resume_feed(self) -> None:
        """Lets the feed flow again."""
        self.feeding = True
        await self._notify()
