"""Simulated time: events in order, processes that wait, and lives that end in the middle of them.

A process is a generator that yields how many seconds it waits. It runs on behalf of a life (a
server process, a worker, an attempt); once that is over, it never goes on: what `kill -9` does.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from itertools import count
from math import inf

Process = Generator[float, None, None]


class Life:
    """Something that can die; a fresh start is a fresh life."""

    __slots__ = ("alive",)

    def __init__(self) -> None:
        """Alive."""
        self.alive = True

    def end(self) -> None:
        """Its processes stop where they are."""
        self.alive = False


class Kernel:
    """The clock and what is due."""

    def __init__(self) -> None:
        """Time zero, nothing to do."""
        self.now = 0.0
        """Simulated seconds."""
        self.steps = 0
        self._turns = count()
        self._later: list[tuple[float, int, Process, Life]] = []
        self._ready: deque[tuple[Process, Life]] = deque()
        self._forever = Life()

    def spawn(self, process: Process, life: Life | None = None, *, after_s: float = 0.0) -> None:
        """Starts a process for `life` (None: one that never ends), now or later."""
        life = life or self._forever
        if after_s > 0:
            self._wait(after_s, process, life)
        else:
            self._ready.append((process, life))

    def run(
        self, until_s: float = inf, *, each: Callable[[], bool] | None = None, every: int = 1
    ) -> bool:
        """Works off what is due before `until_s`.

        Args:
            until_s: where time stops.
            each: called after each `every`-th step; True ends the run.
            every: a number of steps.

        Returns:
            Whether `each` ended it.
        """
        due = every
        while self._ready or self._later:
            if self._ready:
                process, life = self._ready.popleft()
            elif self._later[0][0] > until_s:
                break
            else:
                at_s, _, process, life = heapq.heappop(self._later)
                self.now = max(self.now, at_s)
            self._resume(process, life)
            self.steps += 1
            due -= 1
            if due == 0:
                due = every
                if each is not None and each():
                    return True
        self.now = max(self.now, until_s) if until_s < inf else self.now
        return False

    def _wait(self, seconds: float, process: Process, life: Life) -> None:
        # Whole microseconds: who waits for the same moment from different times keeps the order,
        # whatever sums of floats come to.
        at_s = round(self.now + seconds, 6)
        heapq.heappush(self._later, (at_s, next(self._turns), process, life))

    def _resume(self, process: Process, life: Life) -> None:
        while life.alive:
            try:
                wait_s = next(process)
            except StopIteration:
                return
            if wait_s > 0:
                self._wait(wait_s, process, life)
                return
        process.close()
