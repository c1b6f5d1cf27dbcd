"""DomainError to gRPC status and back: the only table of codes.

The class travels as `google.rpc.ErrorInfo.reason` with its details as metadata
(https://google.aip.dev/193); a delay travels as `google.rpc.RetryInfo` besides.
"""

from __future__ import annotations

from typing import cast

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from easel_kit import errors

_DOMAIN = "easel"

CODES: dict[type[errors.DomainError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.InvalidState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InsufficientCredits: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Overloaded: grpc.StatusCode.UNAVAILABLE,
    errors.DependencyDown: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Internal: grpc.StatusCode.INTERNAL,
}

# the first class of each code stands for a status that names no class
_BY_CODE = {code: kind for kind, code in reversed(CODES.items())}
_BY_REASON = {kind.__name__: kind for kind in CODES}


def to_status(error: errors.DomainError) -> grpc.Status:
    """The gRPC status for an error, with its details packed."""
    status = status_pb2.Status(code=CODES[type(error)].value[0], message=str(error))
    info = error_details_pb2.ErrorInfo(
        reason=type(error).__name__, domain=_DOMAIN, metadata=error.details()
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    status.details.append(packed)
    if isinstance(error, errors.RateLimited):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after_s * 1000))
        packed = any_pb2.Any()
        packed.Pack(retry)
        status.details.append(packed)
    return rpc_status.to_status(status)


def from_rpc_error(error: grpc.aio.AioRpcError) -> errors.DomainError:
    """The error that the other side raised; by its code alone where it names no class of ours."""
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:  # details that contradict the status: a proxy rewrote it
        status = None
    for packed in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info) and info.domain == _DOMAIN and info.reason in _BY_REASON:
            return _BY_REASON[info.reason].from_details(error.details() or "", dict(info.metadata))
    # no class of ours: gRPC itself speaks, and its text names addresses
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return errors.DependencyDown("a service that this needs does not answer")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded("a service that this needs took too long")
    kind = _BY_CODE.get(error.code(), errors.Internal)
    if kind is errors.Internal:
        return errors.Internal("another service failed")
    return kind.from_details(error.details() or "no reason given", {})
