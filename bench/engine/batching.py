"""Static batching by equal settings: which of the waiting requests are drawn together, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bench.engine.trace import Arrival, Settings

T = TypeVar("T")


def next_batch(
    waiting: Sequence[Arrival], now_s: float, *, most: int, window_s: float
) -> tuple[list[int], float]:
    """The oldest request and those that are equal to it but for prompt and seed.

    Args:
        waiting: those that have come, oldest first; at least one.
        now_s: on the clock of the arrivals.
        most: requests of a batch.
        window_s: a batch that is not full waits until its oldest request has waited so long.

    Returns:
        Places in `waiting`, and until when to wait for more; not later than now: draw them.
    """
    oldest = waiting[0]
    chosen = [
        place
        for place, arrival in enumerate(waiting)
        if arrival.request.settings == oldest.request.settings
    ][:most]
    return chosen, now_s if len(chosen) == most else oldest.at_s + window_s


def groups(asked: Sequence[T], settings: Callable[[T], Settings]) -> list[list[int]]:
    """Places of those with equal settings, in the order of each group's first."""
    found: dict[Settings, list[int]] = {}
    for place, one in enumerate(asked):
        found.setdefault(settings(one), []).append(place)
    return list(found.values())
