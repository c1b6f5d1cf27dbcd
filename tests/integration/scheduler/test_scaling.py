"""Scaling signals as CloudWatch gets them: a real scheduler, a real HTTP server with its API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from easel_kit.errors import DependencyDown
from scheduler.clients.cloudwatch import CloudWatch
from scheduler.domain.load import Reading
from tests.fakes.scheduler_stack import SHAPES, SchedulerStack

NAMESPACE = "Easel/Scheduler"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def latest(endpoint: str, name: str, **dimensions: str) -> float | None:
    client: Any = boto3.client("cloudwatch", endpoint_url=endpoint)
    now = datetime.now(UTC)
    found = client.get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=5),
        Period=600,
        Statistics=["Maximum"],
    )["Datapoints"]
    return float(found[-1]["Maximum"]) if found else None


async def test_a_waiting_lane_tells_cloudwatch(idle_stack: SchedulerStack, endpoint: str) -> None:
    stack = idle_stack
    async with stack.running(
        measure_every_s=0.1, cloudwatch_namespace=NAMESPACE, cloudwatch_endpoint_url=endpoint
    ):
        await stack.submit()

        async def told() -> bool:
            return latest(endpoint, "WaitingJobs", Lane="default") == 1

        await stack.eventually(told)
        cost_ms = await stack.row("SELECT cost_ms FROM jobs")
        backlog = latest(endpoint, "BacklogSecondsPerWorker", Lane="default", Model=SHAPES)
        assert backlog == pytest.approx(cost_ms / 1000)
        assert latest(endpoint, "Workers", Lane="default") == 0
        assert latest(endpoint, "OldestWaitingAge", Lane="default") is not None


async def test_a_service_that_does_not_answer_is_a_dependency_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    there = CloudWatch(NAMESPACE, lane="x", region="eu-central-1", endpoint="http://127.0.0.1:1")
    with pytest.raises(DependencyDown, match="CloudWatch"):
        await there.publish([Reading(None, 0, 0, 0, 0, 0, 0, 0, 0)])
