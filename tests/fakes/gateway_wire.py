"""What the gateway's fakes of other services share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

Context = Any
Fault = Callable[[], Awaitable[None]]


def now() -> Timestamp:
    """The time, as the wire has it."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC))
    return stamp
