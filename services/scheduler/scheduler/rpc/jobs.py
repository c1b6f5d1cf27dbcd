"""`easel.scheduler.v1.JobService`: callers' face."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from structlog.contextvars import bind_contextvars

from easel.scheduler.v1 import jobs_pb2
from easel.scheduler.v1.jobs_pb2_grpc import JobServiceServicer
from easel_kit import ids
from easel_kit.ids import JobId, UserId
from easel_kit.telemetry import current_traceparent
from scheduler.rpc import mapping, selection
from scheduler.service.jobs import Jobs
from scheduler.service.load import Overview
from scheduler.service.operations import Operations
from scheduler.service.plans import Plans
from scheduler.service.submits import Submits
from scheduler.service.watch import Watches

_Context = grpc.aio.ServicerContext[Any, Any]


def _user(user_id: str) -> UserId:
    bind_contextvars(user_id=user_id)
    return ids.user_id(user_id)


def _named(user_id: str, job_id: str) -> tuple[UserId, JobId]:
    bind_contextvars(user_id=user_id, job_id=job_id)
    return ids.user_id(user_id), ids.job_id(job_id)


class JobServicer(JobServiceServicer):
    """Thin: checks, calls, maps."""

    def __init__(
        self,
        *,
        submits: Submits,
        jobs: Jobs,
        operations: Operations,
        plans: Plans,
        overview: Overview,
        watches: Watches,
    ) -> None:
        """Use cases behind the methods."""
        self._submits = submits
        self._jobs = jobs
        self._operations = operations
        self._plans = plans
        self._overview = overview
        self._watches = watches

    async def SubmitJobs(  # noqa: N802
        self, request: jobs_pb2.SubmitJobsRequest, context: _Context
    ) -> jobs_pb2.SubmitJobsResponse:
        """Accepts all jobs of the request or none."""
        del context
        user_id = _user(request.user_id)
        if len(request.jobs) == 1:
            bind_contextvars(job_id=request.jobs[0].job_id)
        repeated = await self._jobs.repeated(user_id, mapping.repeats(request))
        wanted = mapping.submission(request, repeated, current_traceparent())
        jobs = await self._submits.submit(wanted)
        return jobs_pb2.SubmitJobsResponse(jobs=[mapping.job_to_wire(job) for job in jobs])

    async def GetJob(  # noqa: N802
        self, request: jobs_pb2.GetJobRequest, context: _Context
    ) -> jobs_pb2.GetJobResponse:
        """One job of the user."""
        del context
        job = await self._jobs.get(*_named(request.user_id, request.job_id))
        return jobs_pb2.GetJobResponse(job=mapping.job_to_wire(job))

    async def ListJobs(  # noqa: N802
        self, request: jobs_pb2.ListJobsRequest, context: _Context
    ) -> jobs_pb2.ListJobsResponse:
        """The user's jobs, newest first."""
        del context
        page = await self._jobs.page(
            _user(request.user_id),
            selection.wanted(request),
            before=selection.page_before(request.page_token),
            size=selection.page_size(request.page_size),
        )
        return jobs_pb2.ListJobsResponse(
            jobs=[mapping.job_to_wire(job) for job in page.jobs],
            next_page_token=selection.page_token(page.before),
        )

    async def CancelJob(  # noqa: N802
        self, request: jobs_pb2.CancelJobRequest, context: _Context
    ) -> jobs_pb2.CancelJobResponse:
        """Ends a waiting job, asks the worker of a running one to stop."""
        del context
        job = await self._operations.cancel(*_named(request.user_id, request.job_id))
        return jobs_pb2.CancelJobResponse(job=mapping.job_to_wire(job))

    async def CancelJobs(  # noqa: N802
        self, request: jobs_pb2.CancelJobsRequest, context: _Context
    ) -> jobs_pb2.CancelJobsResponse:
        """Cancels many of the user's jobs."""
        del context
        found = await self._operations.cancel_many(
            _user(request.user_id),
            selection.selection(request),
            waiting_only=request.waiting_only,
        )
        return selection.cancellation_to_wire(found)

    async def PrependJobs(  # noqa: N802
        self, request: jobs_pb2.PrependJobsRequest, context: _Context
    ) -> jobs_pb2.PrependJobsResponse:
        """Moves waiting jobs to the front of the user's line."""
        del context
        moved = await self._operations.prepend(
            _user(request.user_id), selection.job_ids(request.job_ids, least=1)
        )
        return jobs_pb2.PrependJobsResponse(moved_job_ids=moved)

    async def PruneJobs(  # noqa: N802
        self, request: jobs_pb2.PruneJobsRequest, context: _Context
    ) -> jobs_pb2.PruneJobsResponse:
        """Takes ended jobs out of sight."""
        del context
        pruned = await self._operations.prune(_user(request.user_id), selection.pruned(request))
        return jobs_pb2.PruneJobsResponse(pruned=pruned)

    async def ClearJobs(  # noqa: N802
        self, request: jobs_pb2.ClearJobsRequest, context: _Context
    ) -> jobs_pb2.ClearJobsResponse:
        """Cancels what is open, takes everything out of sight."""
        del context
        cancelled, pruned = await self._operations.clear(_user(request.user_id))
        return jobs_pb2.ClearJobsResponse(cancelled=cancelled, pruned=pruned)

    async def CountJobs(  # noqa: N802
        self, request: jobs_pb2.CountJobsRequest, context: _Context
    ) -> jobs_pb2.CountJobsResponse:
        """The user's jobs by state."""
        del context
        counts = await self._jobs.counts(
            _user(request.user_id), selection.batch_ids(request.batch_ids)
        )
        return selection.counts_to_wire(counts)

    async def WatchJob(  # noqa: N802
        self, request: jobs_pb2.WatchJobRequest, context: _Context
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        """The job now, then each change until its end."""
        del context
        async for seen in self._watches.watch(*_named(request.user_id, request.job_id)):
            yield jobs_pb2.WatchJobResponse(
                job=mapping.job_to_wire(seen.job),
                preview=seen.preview,
                preview_media_type=seen.preview_media_type,
            )

    async def ResolveJob(  # noqa: N802
        self, request: jobs_pb2.ResolveJobRequest, context: _Context
    ) -> jobs_pb2.ResolveJobResponse:
        """The job's state, or a tombstone."""
        del context
        bind_contextvars(job_id=request.job_id)
        return mapping.resolution_to_wire(await self._jobs.resolve(ids.job_id(request.job_id)))

    async def SetEntitlements(  # noqa: N802
        self, request: jobs_pb2.SetEntitlementsRequest, context: _Context
    ) -> jobs_pb2.SetEntitlementsResponse:
        """Keeps the user's plan; waiting jobs move to its tier."""
        del context
        holds = await self._plans.entitle(
            _user(request.user_id), mapping.entitlements(request.entitlements)
        )
        return jobs_pb2.SetEntitlementsResponse(entitlements=mapping.entitlements_to_wire(holds))

    async def EstimateJob(  # noqa: N802
        self, request: jobs_pb2.EstimateJobRequest, context: _Context
    ) -> jobs_pb2.EstimateJobResponse:
        """Where a job would stand."""
        del context
        user_id, plan = _user(request.user_id), mapping.entitlements(request.entitlements)
        live = await self._jobs.foresee(user_id, plan, mapping.cost(request.cost_ms))
        return mapping.estimate_to_wire(live)

    async def GetQueue(  # noqa: N802
        self, request: jobs_pb2.GetQueueRequest, context: _Context
    ) -> jobs_pb2.GetQueueResponse:
        """The lane's line as a whole."""
        del request, context
        seen = await self._overview.look()
        return selection.queue_to_wire(seen.load, workers=seen.workers, slots=seen.slots)

    async def ListModels(  # noqa: N802
        self, request: jobs_pb2.ListModelsRequest, context: _Context
    ) -> jobs_pb2.ListModelsResponse:
        """Models that connected workers report."""
        del request, context
        models = await self._jobs.models()
        return jobs_pb2.ListModelsResponse(models=[mapping.model_to_wire(one) for one in models])

    async def ListWorkers(  # noqa: N802
        self, request: jobs_pb2.ListWorkersRequest, context: _Context
    ) -> jobs_pb2.ListWorkersResponse:
        """Connected workers."""
        del request, context
        workers = await self._jobs.workers()
        return jobs_pb2.ListWorkersResponse(
            workers=[mapping.worker_to_wire(one) for one in workers]
        )

    async def DrainWorker(  # noqa: N802
        self, request: jobs_pb2.DrainWorkerRequest, context: _Context
    ) -> jobs_pb2.DrainWorkerResponse:
        """Has a worker told to drain."""
        del context
        bind_contextvars(worker_id=request.worker_id)
        await self._jobs.drain(mapping.worker_id(request.worker_id))
        return jobs_pb2.DrainWorkerResponse()
