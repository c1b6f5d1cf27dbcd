"""Takes the erasures of users on."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from easel_kit.erasing import take_on
from gateway.service.erasing import Eraser

_erased = Counter("easel_erasures", "Erasures of users finished.")
_failing = Gauge("easel_erasures_failing", "Erasures of users whose last try failed, of one round.")


async def erase_users(eraser: Eraser, *, interval_s: float) -> None:
    """Takes every erasure on, for ever."""
    await take_on(eraser, interval_s=interval_s, erased=_erased, failing=_failing)
