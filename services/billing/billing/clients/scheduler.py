"""The scheduler: its event feed, its word on a job, and what it is told of plans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc

from billing.domain.accounts import EntitlementsChange
from billing.domain.feed import Cursor, JobEvent
from billing.domain.holds import JobReport, JobStatus
from easel.scheduler.v1 import events_pb2, events_pb2_grpc, jobs_pb2, jobs_pb2_grpc
from easel_kit.errors import DependencyDown
from easel_kit.ids import JobId, UserId

_STATUS_OF_EVENT = {
    events_pb2.EVENT_TYPE_QUEUED: JobStatus.QUEUED,
    events_pb2.EVENT_TYPE_SUCCEEDED: JobStatus.SUCCEEDED,
    events_pb2.EVENT_TYPE_FAILED: JobStatus.FAILED,
    events_pb2.EVENT_TYPE_CANCELLED: JobStatus.CANCELLED,
}

_STATUS_OF_STATE = {
    jobs_pb2.JOB_STATE_UNSPECIFIED: JobStatus.UNKNOWN,
    jobs_pb2.JOB_STATE_QUEUED: JobStatus.QUEUED,
    jobs_pb2.JOB_STATE_RUNNING: JobStatus.RUNNING,
    jobs_pb2.JOB_STATE_SUCCEEDED: JobStatus.SUCCEEDED,
    jobs_pb2.JOB_STATE_FAILED: JobStatus.FAILED,
    jobs_pb2.JOB_STATE_CANCELLED: JobStatus.CANCELLED,
}


class SchedulerEvents:
    """The port `EventFeed` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """`channel` leads to the scheduler and raises our errors."""
        self._stub = events_pb2_grpc.EventServiceStub(channel)

    async def subscribe(self, after: Cursor) -> AsyncIterator[Sequence[JobEvent]]:
        """Events after the cursor in order, then new ones as they come.

        Raises:
            OutOfRange: events after the cursor have been pruned.
            DependencyDown: the scheduler is away.
        """
        request = events_pb2.SubscribeRequest(
            after=events_pb2.Cursor(
                generation=after.generation,
                transaction_id=after.transaction_id,
                sequence=after.sequence,
            )
        )
        # a stream without an end has no deadline: keep-alive notices a peer that is gone
        async for answer in self._stub.Subscribe(request):
            yield [_event(event) for event in answer.events]


class SchedulerJobs:
    """The port `JobResolver` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        """`timeout_s` is the deadline of one question."""
        self._stub = jobs_pb2_grpc.JobServiceStub(channel)
        self._timeout_s = timeout_s

    async def resolve(self, job_id: JobId) -> JobReport:
        """The job's status; UNKNOWN makes the scheduler refuse the job from then on.

        Raises:
            DependencyDown: the scheduler is away, or says something newer than this client.
            DeadlineExceeded: it did not answer in time.
        """
        answer = await self._stub.ResolveJob(
            jobs_pb2.ResolveJobRequest(job_id=job_id), timeout=self._timeout_s
        )
        status = _STATUS_OF_STATE.get(answer.state)
        if status is None:
            raise DependencyDown(f"the scheduler answers with an unknown state {answer.state}")
        return JobReport(status, answer.progress.step, answer.progress.steps)


class SchedulerQueue:
    """The port `Queue` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        """`timeout_s` is the deadline of one call."""
        self._stub = jobs_pb2_grpc.JobServiceStub(channel)
        self._timeout_s = timeout_s

    async def set_entitlements(self, change: EntitlementsChange) -> None:
        """Makes them hold, for waiting jobs too; an older version changes nothing.

        Raises:
            DependencyDown: the scheduler is away.
            DeadlineExceeded: it did not answer in time.
        """
        terms = change.plan.terms
        await self._stub.SetEntitlements(
            jobs_pb2.SetEntitlementsRequest(
                user_id=change.user_id,
                entitlements=jobs_pb2.Entitlements(
                    version=change.version,
                    priority=terms.priority,
                    weight=terms.weight,
                    max_running=terms.max_running,
                    max_waiting=terms.max_waiting,
                    queue_time_s=terms.queue_time_s,
                ),
            ),
            timeout=self._timeout_s,
        )


def _event(event: events_pb2.Event) -> JobEvent:
    status = _STATUS_OF_EVENT.get(event.type)
    report = None
    if status is not None:
        report = JobReport(status, event.progress.step, event.progress.steps)
    return JobEvent(
        cursor=Cursor(event.cursor.generation, event.cursor.transaction_id, event.cursor.sequence),
        job_id=JobId(event.job_id),
        user_id=UserId(event.user_id),
        report=report,
        traceparent=event.traceparent,
    )
