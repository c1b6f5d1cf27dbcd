"""The work stream over gRPC: one bidirectional call of `LeaseService.Work`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc

from easel.scheduler.v1 import lease_pb2, lease_pb2_grpc
from easel_kit.errors import DependencyDown, InvalidInput
from easel_kit.log import get_logger
from easel_kit.rpc.errors import from_rpc_error
from gpu_worker.clients.mapping import command_from_wire, to_wire, welcome_from_wire
from gpu_worker.domain.work import Command, Message, Welcome

_log = get_logger(__name__)

_GREETING_S = 5.0
_SEND_S = 10.0
_FAREWELL_S = 1.0


class GrpcScheduler:
    """Port `Scheduler` over a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """The channel stays its owner's."""
        self._stub = lease_pb2_grpc.LeaseServiceStub(channel)

    @asynccontextmanager
    async def connect(self, hello: Message) -> AsyncIterator[GrpcWorkStream]:
        """See the port."""
        outgoing: asyncio.Queue[Message | None] = asyncio.Queue(1)
        call = self._stub.Work(_requests(outgoing))
        try:
            answers = aiter(call)
            await outgoing.put(hello)
            try:
                async with asyncio.timeout(_GREETING_S):
                    welcome = welcome_from_wire(await _next(answers))
            except TimeoutError:
                raise DependencyDown("the scheduler does not greet") from None
            except InvalidInput as error:
                raise DependencyDown("the scheduler does not greet as agreed") from error
            yield GrpcWorkStream(welcome, outgoing, answers)
        finally:
            call.cancel()
            with suppress(asyncio.QueueFull):
                outgoing.put_nowait(None)


class GrpcWorkStream:
    """Port `WorkStream`."""

    def __init__(
        self,
        welcome: Welcome,
        outgoing: asyncio.Queue[Message | None],
        answers: AsyncIterator[lease_pb2.WorkResponse],
    ) -> None:
        """Takes a greeted call's two halves."""
        self._welcome = welcome
        self._outgoing = outgoing
        self._answers = answers
        self._ended = asyncio.Event()

    @property
    def welcome(self) -> Welcome:
        """See the port."""
        return self._welcome

    async def send(self, message: Message) -> None:
        """See the port."""
        try:
            async with asyncio.timeout(_SEND_S):
                await self._outgoing.put(message)
        except TimeoutError:
            raise DependencyDown("the scheduler's stream takes nothing") from None

    async def receive(self) -> Command:
        """See the port."""
        while True:
            try:
                answer = await _next(self._answers)
            except DependencyDown:
                self._ended.set()
                raise
            command = command_from_wire(answer)
            if command is not None:
                return command
            _log.warning("command.ignored", kind=answer.WhichOneof("message"))

    async def finish(self) -> None:
        """See the port."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._outgoing.put(None)
                await self._ended.wait()


async def _requests(
    outgoing: asyncio.Queue[Message | None],
) -> AsyncIterator[lease_pb2.WorkRequest]:
    while (message := await outgoing.get()) is not None:
        yield to_wire(message)


async def _next(answers: AsyncIterator[lease_pb2.WorkResponse]) -> lease_pb2.WorkResponse:
    try:
        return await anext(answers)
    except StopAsyncIteration:
        raise DependencyDown("the scheduler ended the stream") from None
    except grpc.aio.AioRpcError as error:
        raise DependencyDown(str(from_rpc_error(error))) from error
    except asyncio.CancelledError:
        # gRPC raises this also when the other side cancelled the call
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise DependencyDown("the scheduler dropped the stream") from None
