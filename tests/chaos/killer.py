"""Who is hurt when: a plan drawn from the seed, and the hand that carries it out."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import Literal

from tests.chaos.house import LEASE_TTL_S, House, Part
from tests.chaos.records import Back, Book, Kill
from tests.chaos.watch import Watch

What = Literal["worker", "hang", "scheduler", "redis", "flush", "postgres", "backend"]
_WEIGHTS: dict[What, int] = {
    "worker": 38,
    "hang": 10,
    "scheduler": 22,
    "redis": 10,
    "flush": 8,
    "postgres": 8,
    "backend": 4,
}
_FIRST: tuple[What, ...] = ("worker", "scheduler", "redis", "postgres", "hang", "flush", "backend")
"""However few kills a run has, these come before chance decides."""
_TWO_AT_ONCE = 0.2
_CALM, _CALM_S = 0.4, 4.0
"""So often nothing else happens for a while after a hang, so that it is seen alone."""
_HANG_S = (0.3, 2.5 * LEASE_TTL_S)
_ALIVE_S = (0.0, 2.0)
_PATIENCE_S = 60.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Strike:
    """One kill of the plan; `pick` in [0, 1) chooses among those that can be hit."""

    number: int
    pause_s: float
    what: What
    pick: float
    hang_s: float
    alive_s: float
    """What is hit has been up for so long, so that some work is done between two kills."""


def draw_plan(kills: int, seed: int, *, pause_s: float) -> list[Strike]:
    """The same for the same arguments; a pause of 0 makes two at once; `pause_s` is the mean of
    the others."""
    chance = random.Random(f"{seed}/kills")
    first = list(_FIRST)
    chance.shuffle(first)
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    plan: list[Strike] = []
    for number in range(1, kills + 1):
        what = first.pop() if first else chance.choices(kinds, weights)[0]
        wait_s = 0.0 if chance.random() < _TWO_AT_ONCE else chance.uniform(0.1, 1.9) * pause_s
        if plan and plan[-1].what == "hang" and chance.random() < _CALM:
            wait_s += _CALM_S
        plan.append(
            Strike(
                number,
                wait_s,
                what,
                chance.random(),
                chance.uniform(*_HANG_S),
                chance.uniform(*_ALIVE_S),
            )
        )
    return plan


class Killer:
    """Carries out a plan on a house."""

    def __init__(self, house: House, watch: Watch, book: Book) -> None:
        """Writes each kill down before it happens."""
        self._house = house
        self._watch = watch
        self._book = book
        self._hangs: set[asyncio.Task[None]] = set()
        self.done = 0
        self.last: str = "nothing yet"

    async def run(self, plan: list[Strike]) -> None:
        """To the end of the plan; then nothing hangs any more.

        Raises:
            TimeoutError: something that was killed did not come back.
        """
        for strike in plan:
            await asyncio.sleep(strike.pause_s)
            async with asyncio.timeout(_PATIENCE_S):
                while not await self._strike(strike):  # noqa: ASYNC110 (states of processes)
                    await asyncio.sleep(_LOOK_S)
            self.done, self.last = strike.number, strike.what
        await asyncio.gather(*self._hangs)

    async def _strike(self, strike: Strike) -> bool:
        match strike.what:
            case "flush":
                return await self._flush(strike)
            case "backend":
                return await self._kill_backend(strike)
            case "hang":
                part = self._choose("worker", strike)
            case what:
                part = self._choose(what, strike)
        if part is None:
            return False
        self._book.write(Kill(time.time(), strike.number, strike.what, part.name, part.pid))
        if strike.what == "hang":
            part.freeze()
            self._hangs.add(asyncio.create_task(self._thaw_later(part, strike)))
        else:
            part.kill(strike.number)
        return True

    def _choose(self, kind: str, strike: Strike) -> Part | None:
        since = time.monotonic() - strike.alive_s
        able = [
            part
            for part in self._house.of_kind(kind)
            if part.ready.is_set() and part.ready_at <= since and not part.hung
        ]
        return able[int(strike.pick * len(able))] if able else None

    async def _thaw_later(self, part: Part, strike: Strike) -> None:
        await asyncio.sleep(strike.hang_s)
        part.thaw()
        self._book.write(Back(time.time(), strike.number, strike.what, part.name))

    async def _flush(self, strike: Strike) -> bool:
        part = self._choose("redis", strike)
        if part is None:
            return False
        self._book.write(Kill(time.time(), strike.number, "flush", part.name, part.pid))
        if await self._watch.flush():
            self._book.write(Back(time.time(), strike.number, "flush", part.name))
            return True
        return False

    async def _kill_backend(self, strike: Strike) -> bool:
        """A server process of Postgres dies: all sessions are lost and it recovers by itself."""
        part = self._choose("postgres", strike)
        pid = await self._watch.backend() if part is not None else None
        if pid is None:
            return False
        self._book.write(Kill(time.time(), strike.number, "backend", "postgres", pid))
        os.kill(pid, signal.SIGKILL)
        while await self._watch.backend() in {None, pid}:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(_LOOK_S)
        self._book.write(Back(time.time(), strike.number, "backend", "postgres"))
        return True
