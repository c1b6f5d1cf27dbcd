"""The time that an attempt takes, with and without what it was set aside."""

from __future__ import annotations

from easel_kit.clock import Clock


class Stopwatch:
    """Runs from the start; stands still between `pause` and `go_on`, which may be said twice."""

    def __init__(self, clock: Clock) -> None:
        """Starts now."""
        self._clock = clock
        self._began_s = clock.monotonic()
        self._paused_s = 0.0
        self._paused_at_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, all of them."""
        return self._clock.monotonic() - self._began_s

    @property
    def paused_s(self) -> float:
        """Seconds that it stood still."""
        if self._paused_at_s is None:
            return self._paused_s
        return self._paused_s + self._clock.monotonic() - self._paused_at_s

    @property
    def running_s(self) -> float:
        """Seconds that it did not stand still."""
        return self.elapsed_s - self.paused_s

    def pause(self) -> None:
        """Stands still from now on."""
        if self._paused_at_s is None:
            self._paused_at_s = self._clock.monotonic()

    def go_on(self) -> None:
        """Runs from now on."""
        self._paused_s, self._paused_at_s = self.paused_s, None
