"""Messages and round trips: late, out of order, more than once, all from the seed."""

from __future__ import annotations

from random import Random

from bench.simulator.kernel import Kernel, Life, Process

_SLOW = 0.02
"""Part of the messages that take many times as long, and so overtake each other."""
_SLOW_FACTOR = 100.0


class Network:
    """What lies between workers, servers and stores."""

    def __init__(self, kernel: Kernel, random: Random, *, delay_s: float, duplicate: float) -> None:
        """Mean delay of one way, and the part of messages that come twice."""
        self.instant = delay_s == 0.0
        self._kernel = kernel
        self._random = random
        self._delay_s = delay_s
        self._duplicate = duplicate

    def hop(self) -> float:
        """Seconds that one way takes this time."""
        if self.instant:
            return 0.0
        slow = _SLOW_FACTOR if self._random.random() < _SLOW else 1.0
        return self._random.expovariate(1 / self._delay_s) * slow

    def twice(self) -> bool:
        """Whether this message comes twice."""
        return self._duplicate > 0 and self._random.random() < self._duplicate

    def send(self, process: Process, life: Life) -> None:
        """Has the receiver, while it lives, do this when the message arrives."""
        self._kernel.spawn(process, life, after_s=self.hop())

    def stream(self) -> Stream:
        """A new stream, one way."""
        return Stream(self._kernel, self)


class Stream:
    """Messages one way over one connection: late, but in order and once."""

    def __init__(self, kernel: Kernel, network: Network) -> None:
        """Nothing is under way."""
        self._kernel = kernel
        self._network = network
        self._last_s = 0.0

    def send(self, process: Process, life: Life) -> None:
        """As `Network.send`, behind what was sent before."""
        now_s = self._kernel.now
        self._last_s = max(self._last_s, now_s + self._network.hop())
        self._kernel.spawn(process, life, after_s=self._last_s - now_s)
