"""Who submits what and when: a day of a service, the same for every discipline.

Sessions begin by a daily rhythm and belong to users by a heavy-tailed popularity; a session is a
run of jobs with pauses in between, some submitted together. Twice a day paying users submit twice
as much for forty minutes. What a job takes is steps x megapixels x images x a rate of its
model: assumed orders of magnitude of a mid-range GPU, not measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from easel_kit.ids import ModelKey

_HOUR_S = 3_600
_MINUTE_S = 60
_PEAK_HOUR = 20
_SWING = 0.5
"""The busiest hour has so much more than the mean, the quietest so much less."""
_BURST_HOURS = ((10, 2 / 3), (16, 2 / 3))
_BURST = 2.0
_NOISE = 0.1
"""Spread (log) of what a job takes around its estimate."""
_ACTIVE_TAIL = 0.7
"""Exponent of the popularity of users by rank."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of job; `image_ms` is the time of one picture on a reference GPU."""

    model_key: ModelKey
    image_ms: int


KINDS = (
    Kind(ModelKey("sd15-512"), 2_300),  # 25 steps x 0.26 MP x 350 ms
    Kind(ModelKey("sdxl-1024"), 14_200),  # 30 steps x 1.05 MP x 450 ms
    Kind(ModelKey("sdxl-1536"), 31_900),  # 30 steps x 2.36 MP x 450 ms
    Kind(ModelKey("flux-1024"), 44_100),  # 28 steps x 1.05 MP x 1500 ms
)


@dataclass(frozen=True, slots=True)
class Habit:
    """How the users of a plan behave."""

    users: float
    """Part of all users."""
    demand: float
    """Part of all work."""
    kinds: tuple[float, ...]
    most_images: int
    images: float
    """Exponent of the number of pictures: higher means fewer."""
    jobs: float
    """Exponent of the jobs of a session (Pareto): higher means fewer."""
    most_jobs: int
    pause_s: float
    together: float
    """Part of a session's jobs that come with the one before."""
    bursts: bool


HABITS = {
    "free": Habit(0.94, 0.42, (0.35, 0.45, 0.0, 0.2), 4, 1.0, 1.6, 30, 120, 0.2, bursts=False),
    "pro": Habit(0.05, 0.36, (0.15, 0.45, 0.15, 0.25), 8, 1.0, 1.3, 80, 90, 0.4, bursts=True),
    "enterprise": Habit(0.01, 0.22, (0.1, 0.4, 0.2, 0.3), 16, 0.7, 1.0, 200, 30, 0.8, bursts=True),
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One job of the trace."""

    at_s: float
    user: int
    kind: int
    cost_ms: int
    took_ms: int


@dataclass(frozen=True, slots=True)
class Trace:
    """All arrivals, by time, and which users have which plan: the first index of each."""

    at_s: Floats
    user: Ints
    kind: Ints
    cost_ms: Ints
    took_ms: Ints
    first_user: dict[str, int]

    def __iter__(self) -> Iterator[Arrival]:
        """The arrivals, in order."""
        columns = (self.at_s, self.user, self.kind, self.cost_ms, self.took_ms)
        for row in zip(*(column.tolist() for column in columns), strict=True):
            yield Arrival(*row)

    def plan_of(self, user: int) -> str:
        """The name of the user's plan."""
        return [name for name, first in self.first_user.items() if first <= user][-1]


def trace(
    *, seed: int, gpus: int, users: int, hours: float, from_hour: float, load: float
) -> Trace:
    """Draws a trace.

    Args:
        seed: of all chance.
        gpus: that work counts against; together with `load` this sets the number of jobs.
        users: on the books; few of them are active at a time.
        hours: of the trace.
        from_hour: hour of the day at which it begins.
        load: work over capacity, as a mean over a day without bursts.
    """
    random = np.random.default_rng(seed)
    first_user, parts, first = {}, [], 0
    for name, habit in HABITS.items():
        first_user[name] = first
        count = max(1, round(users * habit.users))
        work_ms = load * habit.demand * gpus * hours * _HOUR_S * 1000
        minutes = _rhythm(habit, hours, from_hour)
        parts.append(_tier(random, habit, work_ms, (first, count), minutes))
        first += count
    at_s, user, kind, cost_ms, took_ms = (np.concatenate(column) for column in zip(*parts))  # noqa: B905 (parts are alike)
    order = np.argsort(at_s, kind="stable")
    return Trace(at_s[order], user[order], kind[order], cost_ms[order], took_ms[order], first_user)


def draw_jobs(random: np.random.Generator, habit: Habit, count: int) -> tuple[Ints, Ints, Ints]:
    """Kinds, estimated costs and real times of so many jobs, all in milliseconds."""
    kind = random.choice(len(KINDS), size=count, p=habit.kinds)
    sizes = np.arange(1, habit.most_images + 1)
    weights = sizes ** -(1.0 + habit.images)
    images = random.choice(sizes, size=count, p=weights / weights.sum())
    cost_ms = np.array([one.image_ms for one in KINDS])[kind] * images
    took_ms = np.rint(cost_ms * random.lognormal(0.0, _NOISE, count)).astype(np.int64)
    return kind, cost_ms, took_ms


def _tier(
    random: np.random.Generator,
    habit: Habit,
    work_ms: float,
    users: tuple[int, int],
    minutes: Floats,
) -> tuple[Floats, Ints, Ints, Ints, Ints]:
    _, sample_ms, _ = draw_jobs(random, habit, 20_000)
    lengths = _lengths(random, habit, 20_000)
    sessions = work_ms / (sample_ms.mean() * lengths.mean())
    count = random.poisson(sessions * minutes.mean())
    lengths = _lengths(random, habit, count)
    begins = random.choice(len(minutes), size=count, p=minutes / minutes.sum()) * float(_MINUTE_S)
    begins += random.uniform(0, _MINUTE_S, count)
    of = np.repeat(np.arange(count), lengths)
    pauses = random.exponential(habit.pause_s, len(of)) * (random.random(len(of)) >= habit.together)
    starts = np.cumsum(lengths) - lengths
    pauses[starts] = 0.0
    passed = np.cumsum(pauses)
    at_s = begins[of] + passed - passed[starts][of]
    first, number = users
    owner = first + np.floor(number * random.random(count) ** (1 / (1 - _ACTIVE_TAIL))).astype(int)
    kind, cost_ms, took_ms = draw_jobs(random, habit, len(of))
    kept = at_s < len(minutes) * _MINUTE_S
    return at_s[kept], owner[of][kept], kind[kept], cost_ms[kept], took_ms[kept]


def _lengths(random: np.random.Generator, habit: Habit, count: int) -> Ints:
    jobs = np.ceil(random.pareto(habit.jobs, count) + 1e-9)
    return np.clip(jobs, 1, habit.most_jobs).astype(np.int64)


def _rhythm(habit: Habit, hours: float, from_hour: float) -> Floats:
    """Relative number of sessions that begin in each minute; 1 is the mean of a day."""
    hour = from_hour + np.arange(math.ceil(hours * 60)) / 60
    rate = 1 + _SWING * np.cos((hour - _PEAK_HOUR) * 2 * np.pi / 24)
    if habit.bursts:
        for begins, lasts in _BURST_HOURS:
            rate[(hour % 24 >= begins) & (hour % 24 < begins + lasts)] *= _BURST
    return rate
