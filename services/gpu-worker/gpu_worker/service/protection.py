"""Keeps the platform from stopping a busy worker only because there are too many."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from prometheus_client import Counter

from easel_kit.errors import DependencyDown
from easel_kit.log import get_logger
from gpu_worker.ports import Protection
from gpu_worker.service.bench import Bench

_log = get_logger(__name__)
_failures = Counter(
    "easel_worker_protection_failures", "Times that the platform did not take our wish."
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the platform is spoken to, in seconds.

    Attributes:
        expires_s: protection ends by itself after this, should this process hang.
        renew_s: it is asked for again after this, while there is work.
        retry_s: it is asked for again after this, where the platform did not take the wish.
        linger_s: of idleness, before protection is given up: jobs often follow one another.
    """

    expires_s: float = 900.0
    renew_s: float = 300.0
    retry_s: float = 20.0
    linger_s: float = 20.0


class ScaleInGuard:
    """Asks for protection while the bench has work, and gives it up when it has none."""

    def __init__(self, protection: Protection, bench: Bench, pace: Pace) -> None:
        """Asks for nothing yet."""
        self._protection = protection
        self._bench = bench
        self._pace = pace

    async def run(self) -> None:
        """Until cancelled. Whatever the platform says, work goes on."""
        while True:
            await self._bench.busy.wait()
            while True:
                taken = await self._say(self._pace.expires_s)
                if await self._turns_idle(self._pace.renew_s if taken else self._pace.retry_s):
                    break
            await self._say(None)

    async def _say(self, protect_for_s: float | None) -> bool:
        try:
            await self._protection.protect(protect_for_s)
        except DependencyDown as error:
            _failures.inc()
            _log.warning("protection.refused", wanted=protect_for_s or 0, reason=str(error))
            return False
        return True

    async def _turns_idle(self, within_s: float) -> bool:
        """Whether the bench becomes idle, and stays so for a while, within this time."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    await self._bench.idle.wait()
                    if await self._stays_idle():
                        return True
        except TimeoutError:
            return False

    async def _stays_idle(self) -> bool:
        try:
            async with asyncio.timeout(self._pace.linger_s):
                await self._bench.busy.wait()
        except TimeoutError:
            return True
        return False
