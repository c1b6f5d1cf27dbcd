"""What happens around every gRPC call, on both sides: context, deadline, errors, metrics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError
from prometheus_client import Counter, Histogram

from easel_kit import errors, ids
from easel_kit.log import get_logger
from easel_kit.rpc.errors import CODES, from_rpc_error, to_status

REQUEST_ID = "x-request-id"

_ANSWER_MARGIN_S = 0.05
_QUIET = ("/grpc.health.v1.", "/grpc.reflection.")

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_log = get_logger(__name__)
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
_calls = Counter("easel_rpc_calls", "Finished gRPC calls.", ["rpc", "code"])
_seconds = Histogram("easel_rpc_seconds", "Duration of gRPC calls in seconds.", ["rpc"])


def set_deadline(seconds: float | None) -> None:
    """Bounds every call made from this context to what remains of `seconds` from now."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def remaining_s(default: float) -> float:
    """Seconds that an outgoing call may take: the caller's rest less a margin, or `default`."""
    limit = _deadline.get()
    if limit is None:
        return default
    return max(0.001, min(default, limit - time.monotonic() - _ANSWER_MARGIN_S))


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Binds log context, passes the deadline on, answers errors, counts, writes one line a call."""

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails],
            Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None],
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Wraps the method's handler, whatever its kind."""
        found = await continuation(handler_call_details)
        method = handler_call_details.method
        if found is None or method.startswith(_QUIET):
            return found
        handler: Any = found
        metadata = dict(handler_call_details.invocation_metadata)
        request_id = str(metadata.get(REQUEST_ID) or ids.new_id("req"))
        edge = _Edge(method.removeprefix("/"), request_id)
        coders = (handler.request_deserializer, handler.response_serializer)
        one: Any = (_lenient(handler.request_deserializer), handler.response_serializer)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(edge.unary(handler.unary_unary), *one)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(edge.unary(handler.stream_unary), *coders)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(edge.stream(handler.unary_stream), *one)
        return grpc.stream_stream_rpc_method_handler(edge.stream(handler.stream_stream), *coders)


class _Garbled:
    """Bytes that are no message of the method."""


def _lenient(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    # gRPC itself would answer UNKNOWN with the name of a class of ours, and log nothing
    def decoded(sent: bytes) -> object:
        try:
            return decode(sent)
        except DecodeError:
            return _Garbled()

    return decoded


def _readable(request: object) -> object:
    if isinstance(request, _Garbled):
        raise errors.InvalidInput("request", "is no message of this method")
    return request


class _Edge:
    """One call's frame."""

    def __init__(self, rpc: str, request_id: str) -> None:
        self._rpc = rpc
        self._request_id = request_id

    def _enter(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(rpc=self._rpc, request_id=self._request_id)
        set_deadline(context.time_remaining())
        return time.monotonic()

    def _leave(self, began: float, code: str) -> None:
        duration_s = time.monotonic() - began
        _calls.labels(self._rpc, code).inc()
        _seconds.labels(self._rpc).observe(duration_s)
        _log.info("rpc.finished", code=code, duration_s=round(duration_s, 4))

    async def _abort(
        self, context: grpc.aio.ServicerContext[Any, Any], error: Exception
    ) -> NoReturn:
        if not isinstance(error, errors.DomainError):
            _log.error("rpc.failed", exc_info=error)
        status = to_status(_known(error))
        await context.abort(status.code, status.details, status.trailing_metadata or ())
        raise AssertionError("abort always raises")

    def unary(
        self, behaviour: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> object:
            began, code = self._enter(context), "CANCELLED"
            try:
                answer = await behaviour(_readable(request), context)
            except grpc.aio.AbortError:
                code = "ABORTED"
                raise
            except Exception as error:  # noqa: BLE001 (the edge answers every error)
                code = CODES[type(_known(error))].name
                await self._abort(context, error)
            else:
                code = "OK"
                return answer
            finally:
                self._leave(began, code)

        return call

    def stream(self, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def call(
            request: object, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            began, code = self._enter(context), "CANCELLED"
            try:
                async with contextlib.aclosing(behaviour(_readable(request), context)) as answers:
                    async for answer in answers:
                        yield answer
                code = "OK"
            except grpc.aio.AbortError:
                code = "ABORTED"
                raise
            except Exception as error:  # noqa: BLE001 (the edge answers every error)
                code = CODES[type(_known(error))].name
                await self._abort(context, error)
            finally:
                self._leave(began, code)

        return call


def _known(error: Exception) -> errors.DomainError:
    if isinstance(error, errors.DomainError):
        return error
    return errors.Internal("something went wrong here; it has been logged")


def _with_defaults(
    details: grpc.aio.ClientCallDetails, default_timeout_s: float | None
) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata() if details.metadata is None else details.metadata
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id and metadata.get(REQUEST_ID) is None:
        metadata.add(REQUEST_ID, str(request_id))
    timeout = details.timeout
    if timeout is None and default_timeout_s is not None:
        timeout = remaining_s(default_timeout_s)
    return grpc.aio.ClientCallDetails(
        details.method, timeout, metadata, details.credentials, details.wait_for_ready
    )


class UnaryClientInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives a call its deadline and request id, and raises the error that the server raised."""

    def __init__(self, default_timeout_s: float) -> None:
        """A call that names no deadline gets this one, or what remains of the caller's own."""
        self._default_timeout_s = default_timeout_s

    async def intercept_unary_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, _Request],
            Awaitable[grpc.aio.UnaryUnaryCall[_Request, _Response]],
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: _Request,
    ) -> _Response | grpc.aio.UnaryUnaryCall[_Request, _Response]:
        """One call."""
        details = _with_defaults(client_call_details, self._default_timeout_s)
        try:
            call = await continuation(details, request)
            return await call
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


class StreamClientInterceptor(grpc.aio.UnaryStreamClientInterceptor):
    """As `UnaryClientInterceptor` for server streams, which have no default deadline."""

    async def intercept_unary_stream(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, _Request],
            Awaitable[grpc.aio.UnaryStreamCall[_Request, _Response]],
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: _Request,
    ) -> AsyncIterator[_Response] | grpc.aio.UnaryStreamCall[_Request, _Response]:
        """One stream."""
        call = await continuation(_with_defaults(client_call_details, None), request)

        async def answers() -> AsyncIterator[_Response]:
            try:
                async for answer in call:
                    yield answer
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error
            finally:
                call.cancel()

        return answers()
