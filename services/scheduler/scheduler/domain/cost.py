"""What a job really cost, measured against its estimate."""

from __future__ import annotations

MAX_OVERRUN = 4.0
"""A job is charged at most this multiple of its estimate: beyond it the machine is to blame, or
the measurement, and the user's other jobs shall not wait for that."""

PACE_SMOOTHING = 0.1
"""Weight of the newest job in the lane's running averages."""


def averaged(average: float | None, value: float) -> float:
    """The running average after one more value."""
    if average is None:
        return value
    return average * (1 - PACE_SMOOTHING) + value * PACE_SMOOTHING


def actual_cost(
    cost_ms: int, *, took_ms: int | None, done: float, ms_per_cost: float | None
) -> float:
    """What an attempt cost, in reference GPU-milliseconds.

    A success is measured by its time, over what the lane's jobs take on average for each
    millisecond of estimate: a lane of slow machines charges no more than one of fast ones. Every
    other end is measured by the steps that were done.

    Args:
        cost_ms: the job's estimate.
        took_ms: how long a success took; 0 where nobody knows, None for any other end.
        done: of an attempt without success, the part of its steps that was done, 0 to 1.
        ms_per_cost: the lane's running average, None before its first success.
    """
    if took_ms is None:
        return cost_ms * done
    if took_ms == 0 or ms_per_cost is None:
        return float(cost_ms)
    return min(took_ms / ms_per_cost, cost_ms * MAX_OVERRUN)
