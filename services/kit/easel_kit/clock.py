"""Time as a dependency: services ask a `Clock`, tests give one that they move."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where a service reads the time."""

    def now(self) -> datetime:
        """The time of day, aware and in UTC; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since an unknown point; never goes back."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The time of day, aware and in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an unknown point."""
        return time.monotonic()
