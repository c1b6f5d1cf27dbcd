"""Asks a process whether it is up to its work: ``python -m easel_kit.probe TARGET``.

A container's health check. TARGET is ``host:port`` of a gRPC server with the standard health
service, or a URL that answers 200.
"""

from __future__ import annotations

import sys
import urllib.request
from http import HTTPStatus

import grpc
from grpc_health.v1 import health_pb2

_DEADLINE_S = 3.0


def is_up(target: str, *, deadline_s: float = _DEADLINE_S) -> bool:
    """Whether a good answer came within the deadline. Blocks.

    Args:
        target: ``host:port`` of a gRPC server, or an ``http://`` URL.
        deadline_s: seconds to wait.
    """
    if target.startswith("http://"):
        return _http_is_up(target, deadline_s)
    return _grpc_is_up(target, deadline_s)


def _http_is_up(url: str, deadline_s: float) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=deadline_s) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:  # refused, too late, or an answer of 400 and above
        return False


def _grpc_is_up(address: str, deadline_s: float) -> bool:
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=deadline_s)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main(arguments: list[str]) -> int:
    """Exit code: 0 it is up, 1 it is not, 2 no target was named."""
    if len(arguments) != 1:
        print("usage: python -m easel_kit.probe HOST:PORT|URL", file=sys.stderr)  # noqa: T201
        return 2
    return 0 if is_up(arguments[0]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
