"""Rounds in which each way has one turn, in an order that rotates."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.billing.ways import WAYS, Way
from billing.storage.check import LedgerCheck
from easel_kit.db import Pool


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done."""

    rounds: int = 7
    holds: int = 2_000
    connections: int = 64
    share: float = 0.6
    """Of the holds that the credits suffice for."""


QUICK = Plan(rounds=2, holds=400)


@dataclass(slots=True)
class Result:
    """Of one way; one value a round."""

    holds_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    granted: list[int] = field(default_factory=list)
    wrong_by: list[int] = field(default_factory=list)
    """Millicredits that the balance differs by from what was granted, or that it is below zero."""

    @property
    def rate(self) -> float:
        """Median holds a second."""
        return statistics.median(self.holds_per_s)


class Campaign:
    """All rounds."""

    def __init__(self, pool: Pool, plan: Plan, say: Callable[[str], None]) -> None:
        """`pool` has `plan.connections` connections to a migrated billing schema."""
        self._pool = pool
        self._plan = plan
        self._say = say
        self.results = {way.name: Result() for way in WAYS}
        self.breaches = 0

    async def run(self) -> None:
        """Does all rounds, then asks ledger-check."""
        ways = [way(self._pool) for way in WAYS]
        for round_ in range(self._plan.rounds):
            turn = round_ % len(ways)
            for way in ways[turn:] + ways[:turn]:
                await self._turn(way)
            self._say(f"round {round_ + 1} of {self._plan.rounds}")
        self.breaches = len(await LedgerCheck(self._pool).run())

    async def _turn(self, way: Way) -> None:
        plan, available = self._plan, await way.open()
        each = max(1, int(available / (plan.holds * plan.share)))
        left, granted = plan.holds, 0
        took_s: list[float] = []

        async def worker() -> None:
            nonlocal left, granted
            while left:
                left -= 1
                began_s = time.perf_counter()
                is_granted = await way.reserve(each)
                granted += is_granted
                took_s.append(time.perf_counter() - began_s)

        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.connections):
                group.create_task(worker())
        whole_s = time.perf_counter() - began_s
        now, held = await way.balance()
        expected = min(plan.holds, available // each) * each
        result = self.results[way.name]
        result.holds_per_s.append(plan.holds / whole_s)
        result.p50_ms.append(_percentile_ms(took_s, 0.5))
        result.p99_ms.append(_percentile_ms(took_s, 0.99))
        result.granted.append(granted)
        result.wrong_by.append(
            max(abs(held - expected), abs(granted * each - held), abs(available - held - now))
        )


def _percentile_ms(values_s: list[float], share: float) -> float:
    ordered = sorted(values_s)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000
