"""What a forward costs by its rows, measured on this device, and how many rows are worth taking.

Rows are free as long as the device has room beside them and cost their own time from then on; past
that point a larger batch serves nobody faster and makes everybody's step longer. Pure.
"""

from __future__ import annotations

_SMOOTHING = 0.05
"""Weight of a measurement above what is known: whatever disturbs a forward makes it longer."""

_UNKNOWN_ROWS = 8
"""Rows to begin with where nothing was measured: enough to learn from, rarely too much."""

_TOLERANCE = 0.05
"""A smaller batch is as good if its rows cost this much more at most."""

_EXPLORE_EVERY = 32
"""Forwards between looks beyond the best size known, so that a noisy one is corrected."""

_FORGIVE_AFTER = 200
"""Forwards after which a limit that memory set is tried a little higher."""


class CostCurve:
    """Seconds of a forward by rows, for pictures of one `BatchKey`."""

    def __init__(self, max_rows: int) -> None:
        """`max_rows`: never more in one forward, at least 1."""
        self._max_rows = max_rows
        self._memory_rows = max_rows
        self._seconds: dict[int, float] = {}
        self._forwards = 0
        self._failed_at = 0

    @property
    def limit(self) -> int:
        """Rows that the next forward should not exceed, at least 1."""
        if not self._seconds:
            return min(_UNKNOWN_ROWS, self._max_rows, self._memory_rows)
        best = self._best()
        if best == max(self._seconds) or self._forwards % _EXPLORE_EVERY == 0:
            best = 2 * best  # as far as is known, nothing speaks against more
        return min(best, self._max_rows, self._memory_rows)

    def note(self, rows: int, seconds: float) -> None:
        """A forward of so many rows took so long."""
        self._forwards += 1
        known = self._seconds.get(rows, seconds)
        self._seconds[rows] = min(seconds, known + _SMOOTHING * (seconds - known))
        if self._memory_rows < self._max_rows and self._forwards - self._failed_at > _FORGIVE_AFTER:
            self._failed_at = self._forwards
            self._memory_rows += 1

    def ran_out_of_memory(self, rows: int) -> None:
        """A forward of so many rows did not fit: half of them from now on."""
        self._memory_rows = max(1, min(self._memory_rows, rows // 2))
        self._failed_at = self._forwards

    def seconds(self, rows: int) -> float | None:
        """What a forward of so many rows takes, interpolated; None while nothing is known."""
        if not self._seconds:
            return None
        if rows in self._seconds:
            return self._seconds[rows]
        below = max((size for size in self._seconds if size < rows), default=None)
        above = min((size for size in self._seconds if size > rows), default=None)
        if below is None or above is None:
            nearest = below if above is None else above
            assert nearest is not None  # noqa: S101 (there is at least one)
            return self._seconds[nearest] * max(1.0, rows / nearest)
        share = (rows - below) / (above - below)
        return self._seconds[below] + share * (self._seconds[above] - self._seconds[below])

    def _best(self) -> int:
        """The smallest batch whose rows cost as little as any's."""
        cheapest = min(seconds / rows for rows, seconds in self._seconds.items())
        return min(
            rows
            for rows, seconds in self._seconds.items()
            if seconds / rows <= cheapest * (1 + _TOLERANCE)
        )
