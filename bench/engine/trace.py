"""What is asked of every system and when: seeded, so that all of a round are asked the same."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.engine.plan import MIXED

STEPS = (4, 12, 25, 50)
GUIDANCES = (1.0, 2.5, 4.0, 7.5)
"""The first asks for no guidance at all: one row of the forward where others bring two."""
SAMPLERS = ("ddim", "euler_a", "dpmpp_2m")
SHORT_STEPS = min(STEPS)
SIZE_PX = 64
_UNIFORM = (12, 2.5, "ddim")
_SEEDS = 2**32
_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
_SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
_BACKGROUNDS = ("white", "black", "gray")

Settings = tuple[str, int, float, str, int]


@dataclass(frozen=True, slots=True)
class Request:
    """One picture that somebody asks for; also the body of an HTTP request."""

    model: str
    prompt: str
    steps: int
    guidance: float
    sampler: str
    seed: int
    size_px: int = SIZE_PX

    @property
    def settings(self) -> Settings:
        """What must be equal for stock diffusers to draw two of them in one batch."""
        return (self.model, self.steps, self.guidance, self.sampler, self.size_px)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request and when it comes, in seconds from the start."""

    at_s: float
    request: Request


def requests(kind: str, model: str, count: int, chooser: random.Random) -> list[Request]:
    """So many requests of a trace.

    Of the mixed one every number of steps comes equally often (so that rounds weigh the same), in
    random order; guidance and sampler are drawn independently. The uniform one differs in prompts
    and seeds alone.
    """
    steps = [STEPS[n % len(STEPS)] for n in range(count)]
    chooser.shuffle(steps)
    found = []
    for n in steps:
        asked = (n, chooser.choice(GUIDANCES), chooser.choice(SAMPLERS))
        chosen = asked if kind == MIXED else _UNIFORM
        found.append(Request(model, _prompt(chooser), *chosen, seed=chooser.randrange(_SEEDS)))
    return found


def stream(
    asked: Sequence[Request], rate_per_s: float, chooser: random.Random
) -> tuple[Arrival, ...]:
    """Poisson arrivals: independent exponential gaps, the first request at once."""
    at_s = 0.0
    found = []
    for request in asked:
        found.append(Arrival(at_s, request))
        at_s += chooser.expovariate(rate_per_s)
    return tuple(found)


def burst(asked: Sequence[Request]) -> tuple[Arrival, ...]:
    """All at once."""
    return tuple(Arrival(0.0, request) for request in asked)


def to_wire(arrivals: Iterable[Arrival]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(arrival) for arrival in arrivals]


def from_wire(found: Iterable[Mapping[str, Any]]) -> list[Arrival]:
    """Back from JSON."""
    return [Arrival(one["at_s"], Request(**one["request"])) for one in found]


def _prompt(chooser: random.Random) -> str:
    colour, background = chooser.choice(_COLOURS), chooser.choice(_BACKGROUNDS)
    return f"a {colour} {chooser.choice(_SHAPES)} on a {background} background"
