"""The stand-in's own time: it runs with the machine's, ahead of it as far as somebody moved it.

It can be stopped, for tests that want to know each second. It never goes back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any


class StandInClock:
    """Seconds since the epoch."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """Follow wall."""
        self._wall = wall
        self._offset_s = 0.0
        self._stopped_at: int | None = None
        self._acting_at: int | None = None

    def now(self) -> int:
        """The time, whole seconds."""
        if self._acting_at is not None:
            return self._acting_at
        if self._stopped_at is not None:
            return self._stopped_at
        return int(self._wall() + self._offset_s)

    @property
    def is_stopped(self) -> bool:
        """Whether it stands still until it is moved."""
        return self._stopped_at is not None

    def move_to(self, moment: int) -> None:
        """Jump ahead; a moment that is over changes nothing."""
        ahead_s = moment - self.now()
        if ahead_s > 0:
            self._offset_s += ahead_s
            if self._stopped_at is not None:
                self._stopped_at = moment

    def stop(self) -> None:
        """Stand still."""
        self._stopped_at = self.now()

    def run(self) -> None:
        """Go on from where it stands."""
        if self._stopped_at is not None:
            self._offset_s = self._stopped_at - self._wall()
            self._stopped_at = None

    @contextlib.contextmanager
    def acting_at(self, moment: int) -> Iterator[None]:
        """Inside the block it is that moment: for what was due then and is done now."""
        self._acting_at = moment
        try:
            yield
        finally:
            self._acting_at = None

    def dump(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"offset_s": self._offset_s, "stopped_at": self._stopped_at}

    def load(self, kept: dict[str, Any]) -> None:
        """Go on as it was when dumped."""
        self._offset_s = float(kept["offset_s"])
        self._stopped_at = kept["stopped_at"]
