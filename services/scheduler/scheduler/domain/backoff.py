"""How long to wait before something is tried again.

Exponential growth with equal jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture
Blog, 2015. Half of the wait is certain, so that what was wrong has time to pass; the other half is
chance, so that those who failed together do not come back together.
"""

from __future__ import annotations

from dataclasses import dataclass

# Beyond this the cap has long been reached, and powers stay small.
_MAX_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between `base_s / 2` and `cap_s`."""

    base_s: float
    cap_s: float

    def delay_s(self, failures: int, luck: float) -> float:
        """Seconds to wait after this many failures in a row, at least 1; `luck` is in [0, 1)."""
        doublings = min(failures - 1, _MAX_DOUBLINGS)
        most_s = min(self.cap_s, self.base_s * 2.0**doublings)
        return most_s * (1 + luck) / 2
