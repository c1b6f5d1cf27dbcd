"""A gRPC server as every service runs it: health, reflection, interceptors, drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.instrumentation.grpc import aio_server_interceptor

from easel_kit.log import get_logger
from easel_kit.rpc.interceptors import EdgeInterceptor

_log = get_logger(__name__)

# Detects a peer that vanished without a word; gRPC's own floor for servers is 10 s.
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    ("grpc.so_reuseport", 0),
)


class RpcServer:
    """Built by `build_server`; register servicers on `grpc`, then enter `serving`."""

    def __init__(self, server: grpc.aio.Server, checks: health.aio.HealthServicer) -> None:
        """Takes the parts; use `build_server`."""
        self.grpc = server
        self._checks = checks
        self.port = 0

    @asynccontextmanager
    async def serving(
        self, listen: str, services: Sequence[str], *, grace_s: float
    ) -> AsyncIterator[RpcServer]:
        """Answers on `host:port` inside the block; on leaving, drains for at most `grace_s`.

        Args:
            listen: `host:port`; port 0 lets the system choose, `port` then says which.
            services: full names, for reflection and health.
            grace_s: seconds that running calls may still take.

        Raises:
            RuntimeError: the port is taken.
        """
        reflection.enable_server_reflection(
            [*services, health.SERVICE_NAME, reflection.SERVICE_NAME], self.grpc
        )
        self.port = self.grpc.add_insecure_port(listen)
        await self.grpc.start()
        for name in ("", *services):
            await self._checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        _log.info("rpc.serving", port=self.port)
        try:
            yield self
        finally:
            await self._checks.enter_graceful_shutdown()
            await self.grpc.stop(grace_s)

    async def set_health(self, *, serving: bool) -> None:
        """Says whether the service as a whole is up to its work."""
        states = health_pb2.HealthCheckResponse
        await self._checks.set("", states.SERVING if serving else states.NOT_SERVING)


def build_server() -> RpcServer:
    """A server with health (NOT_SERVING until it serves), tracing, errors and metrics."""
    server = grpc.aio.server(
        interceptors=[aio_server_interceptor(), EdgeInterceptor()], options=_OPTIONS
    )
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    return RpcServer(server, checks)
