"""What goes wrong, how often, from the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from random import Random

from bench.simulator.kernel import Kernel, Life, Process

_HOUR_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Faults:
    """Rates of faults; all zero unless asked for."""

    crash: float = 0.0
    """`kill -9` of a worker: per worker and hour."""
    hang: float = 0.0
    """A worker says and does nothing for a while: per worker and hour."""
    cut: float = 0.0
    """A worker's stream ends and it comes back: per worker and hour."""
    replica: float = 0.0
    """`kill -9` of a scheduler: per hour in all."""
    flush: float = 0.0
    """FLUSHALL: per hour in all."""
    queue: float = 0.0
    """Redis does not answer for a while, and forgets nothing: per hour in all."""
    database: float = 0.0
    """Postgres does not answer for a while: per hour in all."""
    fail: float = 0.0
    """Part of the attempts that end with an error of their own."""
    duplicate: float = 0.0
    """Part of the reports and submits that come twice."""
    delay_ms: float = 0.0
    """Mean of one way over the network; 2 % take a hundred times as long. 0: no time at all."""

    @property
    def any(self) -> bool:
        """Whether something can go wrong."""
        return any(getattr(self, one.name) for one in fields(self))


def faults(text: str) -> Faults:
    """Reads `none`, or a list like `crash=0.1,flush=0.5` (names as in `Faults`).

    Raises:
        ValueError: an unknown name, or no number.
    """
    found = Faults()
    known = {one.name for one in fields(Faults)}
    for part in text.split(",") if text != "none" else []:
        name, _, value = part.partition("=")
        if name not in known:
            raise ValueError(f"unknown fault {name!r}: one of {', '.join(sorted(known))}")
        found = replace(found, **{name: float(value)})
    return found


def told(chosen: Faults) -> str:
    """The faults as `faults` reads them."""
    rates = {one.name: getattr(chosen, one.name) for one in fields(chosen)}
    return ",".join(f"{name}={value:g}" for name, value in rates.items() if value) or "none"


def recurring(
    kernel: Kernel, random: Random, per_hour: float, strike: Callable[[], Process], life: Life
) -> None:
    """Has `strike` happen at random moments (a Poisson process) while `life` lasts."""
    if per_hour <= 0:
        return

    def process() -> Process:
        while True:
            yield random.expovariate(per_hour / _HOUR_S)
            kernel.spawn(strike())

    kernel.spawn(process(), life)
