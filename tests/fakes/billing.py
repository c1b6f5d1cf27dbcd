"""What billing talks to, played by tests: the scheduler, in memory and over gRPC, and the clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from billing.domain.accounts import EntitlementsChange
from billing.domain.feed import Cursor, JobEvent
from billing.domain.holds import JobReport, JobStatus
from easel.scheduler.v1 import events_pb2, events_pb2_grpc, jobs_pb2
from easel_kit.errors import DependencyDown, OutOfRange
from easel_kit.ids import JobId, UserId
from easel_kit.rpc.server import build_server

_TYPES = {
    JobStatus.QUEUED: events_pb2.EVENT_TYPE_QUEUED,
    JobStatus.SUCCEEDED: events_pb2.EVENT_TYPE_SUCCEEDED,
    JobStatus.FAILED: events_pb2.EVENT_TYPE_FAILED,
    JobStatus.CANCELLED: events_pb2.EVENT_TYPE_CANCELLED,
}

STATES = {
    JobStatus.UNKNOWN: jobs_pb2.JOB_STATE_UNSPECIFIED,
    JobStatus.QUEUED: jobs_pb2.JOB_STATE_QUEUED,
    JobStatus.RUNNING: jobs_pb2.JOB_STATE_RUNNING,
    JobStatus.SUCCEEDED: jobs_pb2.JOB_STATE_SUCCEEDED,
    JobStatus.FAILED: jobs_pb2.JOB_STATE_FAILED,
    JobStatus.CANCELLED: jobs_pb2.JOB_STATE_CANCELLED,
}


class MovableClock:
    """A clock that stands until a test moves it."""

    def __init__(self, now: datetime = datetime(2026, 1, 31, 12, tzinfo=UTC)) -> None:
        self._now = now

    def now(self) -> datetime:
        """The time set."""
        return self._now

    def monotonic(self) -> float:
        """Seconds of the time set."""
        return self._now.timestamp()

    def move(self, **change: float) -> None:
        """Moves on by a timedelta's arguments."""
        self._now += timedelta(**change)

    def set(self, now: datetime) -> None:
        """Moves to a point in time."""
        self._now = now


@dataclass(frozen=True)
class Tier:
    """What the scheduler knows of a user's plan."""

    version: int
    priority: int
    weight: int
    max_running: int
    max_waiting: int
    queue_time_s: int


class MemoryScheduler:
    """The ports `EventFeed`, `JobResolver` and `Queue`; also what the gRPC fake answers from."""

    def __init__(self) -> None:
        self.log: list[JobEvent] = []
        self.reports: dict[JobId, JobReport] = {}
        self.resolved: list[JobId] = []
        self.subscriptions: list[Cursor] = []
        self.pruned_up_to = Cursor()
        self.generation = 1
        self.is_away = False
        self.tiers: dict[UserId, Tier] = {}
        self.told: list[tuple[UserId, int]] = []
        self.after_told: Callable[[], Awaitable[None]] | None = None
        self._changed = asyncio.Condition()
        self._cut = 0

    async def happen(
        self,
        job_id: JobId,
        user_id: UserId,
        report: JobReport | None,
        *,
        traceparent: str = "",
        again: JobEvent | None = None,
        cursor: Cursor | None = None,
    ) -> JobEvent:
        """Appends an event, or one that stands in the feed already `again`."""
        place = cursor or Cursor(self.generation, 700 + len(self.log), len(self.log) + 1)
        event = again or JobEvent(place, job_id, user_id, report, traceparent)
        async with self._changed:
            self.log.append(event)
            self._changed.notify_all()
        return event

    async def set_entitlements(self, change: EntitlementsChange) -> None:
        """Keeps the newest per user, as the scheduler does."""
        terms = change.plan.terms
        tier = Tier(
            change.version,
            terms.priority,
            terms.weight,
            terms.max_running,
            terms.max_waiting,
            terms.queue_time_s,
        )
        await self.keep(change.user_id, tier)

    async def keep(self, user_id: UserId, tier: Tier) -> None:
        """Hears of a user's plan; then does what a test has put into `after_told`."""
        if self.is_away:
            raise DependencyDown("the scheduler is away")
        self.told.append((user_id, tier.version))
        known = self.tiers.get(user_id)
        if known is None or known.version < tier.version:
            self.tiers[user_id] = tier
        if self.after_told is not None:
            await self.after_told()

    async def cut(self) -> None:
        """Ends every subscription."""
        async with self._changed:
            self._cut += 1
            self._changed.notify_all()

    async def subscribe(self, after: Cursor) -> AsyncIterator[Sequence[JobEvent]]:
        """All events after the cursor, then each as it happens, until cut."""
        self.subscriptions.append(after)
        if self.is_away:
            raise DependencyDown("the scheduler is away")
        if Cursor() < after < self.pruned_up_to or after.generation > self.generation:
            raise OutOfRange("those events are gone, or of another life")
        seen, cut = 0, self._cut
        while True:
            fresh = [event for event in self.log[seen:] if event.cursor > after]
            seen = len(self.log)
            if fresh:
                yield fresh
            async with self._changed:
                await self._changed.wait_for(
                    lambda: len(self.log) > seen or self._cut > cut  # noqa: B023 (awaited here)
                )
            if self._cut > cut:
                return

    async def resolve(self, job_id: JobId) -> JobReport:
        """The job's status; one never heard of stays unknown."""
        if self.is_away:
            raise DependencyDown("the scheduler is away")
        self.resolved.append(job_id)
        return self.reports.setdefault(job_id, JobReport(JobStatus.UNKNOWN))


class _EventServicer(events_pb2_grpc.EventServiceServicer):
    def __init__(self, scheduler: MemoryScheduler) -> None:
        self._scheduler = scheduler

    async def Subscribe(  # noqa: N802
        self,
        request: events_pb2.SubscribeRequest,
        context: grpc.aio.ServicerContext[
            events_pb2.SubscribeRequest, AsyncIterator[events_pb2.SubscribeResponse]
        ],
    ) -> AsyncIterator[events_pb2.SubscribeResponse]:
        """Streams the memory's events."""
        del context
        after = Cursor(
            request.after.generation, request.after.transaction_id, request.after.sequence
        )
        async for batch in self._scheduler.subscribe(after):
            yield events_pb2.SubscribeResponse(events=[_wire(event) for event in batch])


@asynccontextmanager
async def serve_scheduler(scheduler: MemoryScheduler, port: int = 0) -> AsyncIterator[str]:
    """Answers for `scheduler` over gRPC on loopback; gives the address."""

    async def resolve(
        request: jobs_pb2.ResolveJobRequest, context: object
    ) -> jobs_pb2.ResolveJobResponse:
        del context
        report = await scheduler.resolve(JobId(request.job_id))
        return jobs_pb2.ResolveJobResponse(
            state=STATES[report.status],
            progress=jobs_pb2.Progress(step=report.steps_done, steps=report.steps_total),
        )

    async def set_entitlements(
        request: jobs_pb2.SetEntitlementsRequest, context: object
    ) -> jobs_pb2.SetEntitlementsResponse:
        del context
        numbers = request.entitlements
        tier = Tier(
            numbers.version,
            numbers.priority,
            numbers.weight,
            numbers.max_running,
            numbers.max_waiting,
            numbers.queue_time_s,
        )
        await scheduler.keep(UserId(request.user_id), tier)
        return jobs_pb2.SetEntitlementsResponse(entitlements=numbers)

    server = build_server()
    events_pb2_grpc.add_EventServiceServicer_to_server(_EventServicer(scheduler), server.grpc)
    # of the job service billing calls these methods
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ResolveJob": grpc.unary_unary_rpc_method_handler(
            resolve,
            request_deserializer=jobs_pb2.ResolveJobRequest.FromString,
            response_serializer=jobs_pb2.ResolveJobResponse.SerializeToString,
        ),
        "SetEntitlements": grpc.unary_unary_rpc_method_handler(
            set_entitlements,
            request_deserializer=jobs_pb2.SetEntitlementsRequest.FromString,
            response_serializer=jobs_pb2.SetEntitlementsResponse.SerializeToString,
        ),
    }
    server.grpc.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("easel.scheduler.v1.JobService", handlers)]
    )
    async with server.serving(f"127.0.0.1:{port}", [], grace_s=0):
        yield f"127.0.0.1:{server.port}"


def _wire(event: JobEvent) -> events_pb2.Event:
    report = event.report
    return events_pb2.Event(
        cursor=events_pb2.Cursor(
            generation=event.cursor.generation,
            transaction_id=event.cursor.transaction_id,
            sequence=event.cursor.sequence,
        ),
        type=events_pb2.EVENT_TYPE_UNSPECIFIED if report is None else _TYPES[report.status],
        job_id=event.job_id,
        user_id=event.user_id,
        progress=None
        if report is None
        else jobs_pb2.Progress(step=report.steps_done, steps=report.steps_total),
        traceparent=event.traceparent,
    )
