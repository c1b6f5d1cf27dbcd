"""Publishes the scaling signals to Amazon CloudWatch, where ECS autoscaling reads them.

One metric a signal, with the dimension Lane, and again for each model with Lane and Model.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from easel_kit.errors import DependencyDown
from scheduler.domain.load import Reading

# PutMetricData takes up to 1,000 metrics and 1 MB a call.
_METRICS_PER_CALL = 500


class CloudWatch:
    """`ports.Publisher` on PutMetricData."""

    def __init__(self, namespace: str, *, lane: str, region: str, endpoint: str) -> None:
        """Credentials come by boto3's own chain; empty `region` and `endpoint` are its choice."""
        self._namespace = namespace
        self._lane = lane
        self._client = boto3.client(
            "cloudwatch",
            region_name=region or None,
            endpoint_url=endpoint or None,
            config=Config(
                connect_timeout=3,
                read_timeout=10,
                retries={"mode": "standard", "total_max_attempts": 3},
            ),
        )

    async def publish(self, readings: Sequence[Reading]) -> None:
        """See `ports.Publisher`."""
        metrics = (metric for reading in readings for metric in self._metrics(reading))
        while batch := list(islice(metrics, _METRICS_PER_CALL)):
            try:
                await asyncio.to_thread(self._put, batch)
            except (BotoCoreError, ClientError) as error:
                raise DependencyDown(f"CloudWatch: {type(error).__name__}") from error

    def _put(self, batch: list[dict[str, Any]]) -> None:
        self._client.put_metric_data(Namespace=self._namespace, MetricData=batch)

    def _metrics(self, reading: Reading) -> Iterator[dict[str, Any]]:
        dimensions = [{"Name": "Lane", "Value": self._lane}]
        if reading.model_key is not None:
            dimensions.append({"Name": "Model", "Value": reading.model_key})
        for name, value, unit in (
            ("BacklogSecondsPerWorker", reading.backlog_s, "Seconds"),
            ("OldestWaitingAge", reading.oldest_waiting_s, "Seconds"),
            ("WaitingJobs", reading.waiting, "Count"),
            ("WaitingWork", reading.waiting_s, "Seconds"),
            ("RunningJobs", reading.running, "Count"),
            ("Workers", reading.workers, "Count"),
            ("BusyShare", 100 * reading.busy_share, "Percent"),
        ):
            yield {"MetricName": name, "Value": value, "Unit": unit, "Dimensions": dimensions}
