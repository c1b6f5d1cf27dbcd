"""Asking services for their health from outside."""

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from easel_local.runner.health import Health, answers

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def service(free_port: int) -> AsyncIterator[tuple[Health, health.aio.HealthServicer]]:
    """A gRPC service and the question for it."""
    server, checks = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    address = f"127.0.0.1:{free_port}"
    server.add_insecure_port(address)
    await server.start()
    yield Health("grpc", address), checks
    await server.stop(None)


async def test_a_grpc_service_is_believed(
    service: tuple[Health, health.aio.HealthServicer],
) -> None:
    question, checks = service
    await checks.set("", SERVING)
    assert await answers(question)
    await checks.set("", NOT_SERVING)
    assert not await answers(question)


async def test_a_service_that_speaks_something_else_is_not_well(
    service: tuple[Health, health.aio.HealthServicer],
) -> None:
    assert not await answers(Health("http", f"http://{service[0].target}/readyz"))


@pytest.mark.parametrize("kind", ["grpc", "http"])
async def test_nobody_is_not_well(kind: str, free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    question = Health("grpc", address) if kind == "grpc" else Health("http", f"http://{address}/")
    assert not await answers(question)
