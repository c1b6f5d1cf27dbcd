"""`easel.scheduler.v1.LeaseService`: one stream per worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from structlog.contextvars import bind_contextvars

from easel.scheduler.v1 import lease_pb2
from easel.scheduler.v1.lease_pb2_grpc import LeaseServiceServicer
from easel_kit import ids
from easel_kit.errors import DomainError, Internal, InvalidInput
from easel_kit.log import get_logger
from scheduler.ports import Spawn
from scheduler.rpc import lease_mapping
from scheduler.rpc.checks import within
from scheduler.service.session import Session
from scheduler.service.workers import Workers

_HELLO_S = 10.0
_MAX_SLOTS = 1_000

_log = get_logger(__name__)
_Requests = AsyncIterator[lease_pb2.WorkRequest]


class LeaseServicer(LeaseServiceServicer):
    """Reads a worker's messages in one task and writes its answers in another."""

    def __init__(self, workers: Workers, spawn: Spawn, *, lane: str) -> None:
        """`lane` is the one that is served here."""
        self._workers = workers
        self._spawn = spawn
        self._lane = lane

    async def Work(  # noqa: N802
        self, request_iterator: _Requests, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[lease_pb2.WorkResponse]:
        """Hello and Welcome, then work until either side ends the stream."""
        requests = aiter(request_iterator)
        hello = await self._hello(requests)
        bind_contextvars(worker_id=hello.worker_id)
        worker, held = lease_mapping.worker(hello, ids.new_id("ses"), self._lane)
        parked = lease_mapping.parked(hello)
        session = await self._workers.open(worker, held, parked=parked, returning=hello.returning)
        # A cancelled call does not always end a generator that waits at its yield: both do it.
        ended: Any = lambda _: self._workers.ended(session)  # noqa: E731 (typed as the stub wants)
        context.add_done_callback(ended)
        try:
            self._spawn(f"messages of {worker.id}", self._read(session, requests))
            async for message in session.messages():
                yield lease_mapping.to_wire(message)
                session.handed_over(message)
        finally:
            self._workers.ended(session)

    @staticmethod
    async def _hello(requests: _Requests) -> lease_pb2.Hello:
        try:
            async with asyncio.timeout(_HELLO_S):
                first = await anext(requests)
        except (StopAsyncIteration, TimeoutError):
            raise InvalidInput("message", "must be hello at first") from None
        if first.WhichOneof("message") != "hello":
            raise InvalidInput("message", "must be hello at first")
        return first.hello

    async def _read(self, session: Session, requests: _Requests) -> None:
        try:
            async for request in requests:
                await self._take(session, request)
            session.hang_up()
        except DomainError as error:
            session.close(error)
        except Exception as error:  # noqa: BLE001 (the stream's own supervisor)
            if not session.closed:  # the call's own end shows up here too
                _log.warning("stream.broken", exc_info=error)
            session.close(Internal("the stream broke"))
        finally:
            session.hang_up()

    async def _take(self, session: Session, request: lease_pb2.WorkRequest) -> None:
        match request.WhichOneof("message"):
            case "heartbeat":
                await self._workers.heartbeat(session)
            case "capacity":
                await self._capacity(session, request.capacity)
            case "progress":
                self._progress(session, request.progress)
            case "finished" | "failed" | "stopped" | "hand_back":
                self._workers.report(session, lease_mapping.ended(request))
            case "parked":
                await self._workers.parked(session, ids.attempt_id(request.parked.attempt_id))
            case "resumed":
                await self._workers.resumed(session, ids.attempt_id(request.resumed.attempt_id))
            case "models_changed":
                models = lease_mapping.models(request.models_changed.models, "models_changed")
                await self._workers.change(session, models=models, draining=session.draining)
            case "hello":
                raise InvalidInput("message", "must be hello only once")
            case _:  # something newer than this scheduler
                _log.warning("message.unknown")

    async def _capacity(self, session: Session, capacity: lease_pb2.Capacity) -> None:
        free_slots = within(capacity.free_slots, 0, _MAX_SLOTS, "capacity.free_slots")
        if capacity.draining != session.draining:
            await self._workers.change(session, draining=capacity.draining)
        session.offer(free_slots)

    def _progress(self, session: Session, progress: lease_pb2.AttemptProgress) -> None:
        if progress.step > 0:
            self._workers.progress(
                session,
                ids.attempt_id(progress.attempt_id),
                progress.step,
                preview=progress.preview,
                preview_media_type=progress.preview_media_type[:100],
            )
