"""How long to wait before dialling again, and what still fits before leaving."""

from __future__ import annotations

FIRST_REDIAL_S = 0.05
MAX_REDIAL_S = 1.0


def redial_delay_s(failures: int, jitter: float) -> float:
    """Seconds until the next try: doubling with each failure, at most 1 s, half of it jitter.

    Args:
        failures: tries in a row that failed, at least 1.
        jitter: 0 to 1, drawn anew each time so that workers do not return in step.
    """
    ceiling = min(MAX_REDIAL_S, FIRST_REDIAL_S * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + 0.5 * jitter)


def fits(*, step: int, steps: int, elapsed_s: float, left_s: float) -> bool:
    """Whether work at its pace so far ends within `left_s`; without a pace it may try."""
    if step <= 0:
        return True
    return elapsed_s / step * (steps - step) <= left_s
