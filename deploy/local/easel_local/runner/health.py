"""Whether a service is up to its work, asked from outside with a short deadline."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import grpc
import httpx
from grpc_health.v1 import health_pb2

_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class Health:
    """A question: gRPC's own health service at host:port, or a URL that answers 200."""

    kind: Literal["grpc", "http"]
    target: str


async def answers(health: Health) -> bool:
    """Whether the answer came within two seconds and was good."""
    if not await _listens(health):
        return False
    if health.kind == "http":
        return await _http_answers(health.target)
    return await _grpc_answers(health.target)


async def _listens(health: Health) -> bool:
    """Whether anyone does: a plain socket tells at once and costs nothing.

    A gRPC channel would pause after a refusal, and an HTTP client takes a while to build.
    """
    place = urlsplit(health.target if health.kind == "http" else f"//{health.target}")
    try:
        async with asyncio.timeout(_DEADLINE_S):
            _reader, writer = await asyncio.open_connection(place.hostname, place.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _http_answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=_DEADLINE_S, trust_env=False) as client:
            answer = await client.get(url)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


async def _grpc_answers(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_DEADLINE_S)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
