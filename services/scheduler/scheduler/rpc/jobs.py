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
from scheduler.rpc import mapping
from scheduler.service.jobs import Jobs
from scheduler.service.submits import Submits
from scheduler.service.watch import Watches

_Context = grpc.aio.ServicerContext[Any, Any]


def _named(user_id: str, job_id: str) -> tuple[UserId, JobId]:
    bind_contextvars(user_id=user_id, job_id=job_id)
    return ids.user_id(user_id), ids.job_id(job_id)


class JobServicer(JobServiceServicer):
    """Thin: checks, calls, maps."""

    def __init__(self, submits: Submits, jobs: Jobs, watches: Watches) -> None:
        """Use cases behind the methods."""
        self._submits = submits
        self._jobs = jobs
        self._watches = watches

    async def SubmitJobs(  # noqa: N802
        self, request: jobs_pb2.SubmitJobsRequest, context: _Context
    ) -> jobs_pb2.SubmitJobsResponse:
        """Accepts all jobs of the request or none."""
        del context
        bind_contextvars(user_id=request.user_id)
        if len(request.jobs) == 1:
            bind_contextvars(job_id=request.jobs[0].job_id)
        jobs = await self._submits.submit(mapping.submission(request, current_traceparent()))
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
        bind_contextvars(user_id=request.user_id)
        page = await self._jobs.page(
            ids.user_id(request.user_id),
            mapping.states(list(request.states)),
            before=mapping.page_before(request.page_token),
            size=mapping.page_size(request.page_size),
        )
        return jobs_pb2.ListJobsResponse(
            jobs=[mapping.job_to_wire(job) for job in page.jobs],
            next_page_token="" if page.before is None else str(page.before),
        )

    async def CancelJob(  # noqa: N802
        self, request: jobs_pb2.CancelJobRequest, context: _Context
    ) -> jobs_pb2.CancelJobResponse:
        """Ends a waiting job, asks the worker of a running one to stop."""
        del context
        job = await self._jobs.cancel(*_named(request.user_id, request.job_id))
        return jobs_pb2.CancelJobResponse(job=mapping.job_to_wire(job))

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
