"""A gRPC channel as every client opens it: deadline, retry policy, errors, tracing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from opentelemetry.instrumentation.grpc import aio_client_interceptors

from easel_kit.rpc.interceptors import StreamClientInterceptor, UnaryClientInterceptor

# Retries belong to gRPC alone. UNAVAILABLE only: all our RPCs are idempotent, and gRPC retries
# only while no answer has begun (https://grpc.io/docs/guides/retry/).
_RETRIES = {
    "name": [{}],
    "retryPolicy": {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    },
}


@asynccontextmanager
async def open_channel(
    address: str, *, default_timeout_s: float = 5.0
) -> AsyncIterator[grpc.aio.Channel]:
    """Opens a channel that connects at first use and again after losses (at most 1 s apart).

    Args:
        address: `host:port`, or several replicas: `ip:port,ip:port` of one IP version, or
            `dns:///name:port`. Calls and streams go round those that answer; a replica that came
            back is among them again, and a name is looked up anew when one is lost.
        default_timeout_s: deadline of unary calls that name none, cut to what remains of the
            call being served.
    """
    target, policy = _balanced(address)
    config = {"loadBalancingConfig": [{policy: {}}], "methodConfig": [_RETRIES]}
    channel = grpc.aio.insecure_channel(
        target,
        options=(
            ("grpc.service_config", json.dumps(config)),
            ("grpc.enable_retries", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.dns_min_time_between_resolutions_ms", 1_000),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.max_receive_message_length", 8 * 1024 * 1024),
        ),
        interceptors=[
            UnaryClientInterceptor(default_timeout_s),
            StreamClientInterceptor(),
            *aio_client_interceptors(),
        ],
    )
    try:
        yield channel
    finally:
        await channel.close(grace=None)


def _balanced(address: str) -> tuple[str, str]:
    """The target in words of gRPC, and the policy that chooses among what it leads to.

    https://github.com/grpc/grpc/blob/master/doc/naming.md, …/doc/load-balancing.md
    """
    if "," in address:
        return f"{'ipv6' if address.startswith('[') else 'ipv4'}:{address}", "round_robin"
    # a plain host is one server: of the addresses that its name has, the first that answers will do
    return address, "round_robin" if address.startswith("dns:") else "pick_first"
