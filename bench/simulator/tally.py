"""What a run was like for its users: waits, fairness, shares, what was refused or given up."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.simulator.kernel import Kernel
from bench.simulator.observer import Observer
from bench.simulator.people import Order, Person, Row
from easel_kit.ids import AttemptId, JobId, ModelKey
from scheduler.domain.job import JobState

_BACKLOGGED_S = 60.0
"""A user who waited longer once, or was refused, counts as backlogged."""
_HOUR_S = 3_600.0

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Tier:
    waits_s: array[float] = field(default_factory=lambda: array("d"))
    """Acceptance to the first start, or to the end by queue time, which is shorter than the wait
    would have been."""
    hours: array[int] = field(default_factory=lambda: array("i"))
    """In which hour of the run each of them was accepted."""
    accepted: int = 0
    refused: int = 0
    given_up: int = 0
    """Failed by queue time."""
    failed: int = 0
    succeeded: int = 0
    served_s: float = 0.0
    first_max_s: float = 0.0
    """Longest wait of a user's first job of the run."""
    firsts: int = 0
    firsts_given_up: int = 0


class Tally(Observer):
    """Counts, by plan and by user."""

    def __init__(self, kernel: Kernel, plans: Sequence[str], users: int) -> None:
        """For users with an index below `users`."""
        self._kernel = kernel
        self._tiers = {name: _Tier() for name in plans}
        self._wanted_s = np.zeros(users)
        self._served_s = np.zeros(users)
        self._backlogged = np.zeros(users, dtype=np.bool_)
        self._plan = np.full(users, -1, dtype=np.int8)
        self._plans = list(plans)
        self._firsts: set[JobId] = set()
        self.busy_s = 0.0

    def refused(self, person: Person, orders: Sequence[Order]) -> None:
        """See `Observer`."""
        self._tiers[person.plan.name].refused += len(orders)
        self._want(person, sum(order.took_ms for order in orders) / 1000)
        self._backlogged[person.index] = True

    def accepted(self, row: Row) -> None:
        """See `Observer`."""
        person = row.person
        self._tiers[person.plan.name].accepted += 1
        if not self._wanted_s[person.index]:
            self._tiers[person.plan.name].firsts += 1
            self._firsts.add(row.job_id)
        self._want(person, row.took_ms / 1000)

    def _want(self, person: Person, seconds: float) -> None:
        self._plan[person.index] = self._plans.index(person.plan.name)
        self._wanted_s[person.index] += seconds

    def lent(self, row: Row, attempt_id: AttemptId, models: frozenset[ModelKey] | None) -> None:
        """See `Observer`."""
        del attempt_id
        if models is None or row.started_s is not None:
            return
        self._waited(row)

    def _waited(self, row: Row) -> None:
        tier = self._tiers[row.person.plan.name]
        waited_s = self._kernel.now - row.accepted_s
        tier.waits_s.append(waited_s)
        tier.hours.append(int(row.accepted_s // _HOUR_S))
        if waited_s > _BACKLOGGED_S:
            self._backlogged[row.person.index] = True
        if row.job_id in self._firsts:
            tier.first_max_s = max(tier.first_max_s, waited_s)

    def moved(self, row: Row, old: JobState) -> None:
        """See `Observer`."""
        del old
        if not row.state.ended:
            return
        person, tier = row.person, self._tiers[row.person.plan.name]
        if row.state is JobState.SUCCEEDED:
            tier.succeeded += 1
            tier.served_s += row.took_ms / 1000
            self._served_s[person.index] += row.took_ms / 1000
        elif row.started_s is None:
            tier.given_up += 1
            tier.firsts_given_up += row.job_id in self._firsts
            self._waited(row)
        else:
            tier.failed += 1
        self._firsts.discard(row.job_id)

    def worked(self, job_id: JobId, seconds: float) -> None:
        """See `Observer`."""
        del job_id
        self.busy_s += seconds

    def served_by_user_s(self, first: int) -> Floats:
        """GPU-seconds of results, of the users from this index on."""
        return self._served_s[first:]

    def results(self) -> dict[str, dict[str, float | list[float | None]]]:
        """By plan; times in seconds."""
        total_s = sum(tier.served_s for tier in self._tiers.values()) or 1.0
        return {name: self._tier(name, tier, total_s) for name, tier in self._tiers.items()}

    def _tier(
        self, name: str, tier: _Tier, total_s: float
    ) -> dict[str, float | list[float | None]]:
        waits_s = np.asarray(tier.waits_s)
        hours = np.asarray(tier.hours)
        mine = self._plan == self._plans.index(name)
        backlogged = mine & self._backlogged
        last = int(hours.max()) + 1 if len(hours) else 0
        return {
            "accepted": tier.accepted,
            "refused": tier.refused,
            "given_up": tier.given_up,
            "failed": tier.failed,
            "succeeded": tier.succeeded,
            "users": int(mine.sum()),
            "share": tier.served_s / total_s,
            "served": tier.served_s / max(float(self._wanted_s[mine].sum()), 1e-9),
            "wait_p50_s": _quantile(waits_s, 0.5),
            "wait_p99_s": _quantile(waits_s, 0.99),
            "wait_max_s": float(waits_s.max(initial=0.0)),
            "first_max_s": tier.first_max_s,
            "firsts": tier.firsts,
            "firsts_given_up": tier.firsts_given_up,
            "backlogged_users": int(backlogged.sum()),
            "jain": jain(self._served_s[backlogged] / self._wanted_s[backlogged]),
            "hourly_p50_s": [_sparse(waits_s[hours == hour], 0.5) for hour in range(last)],
            "hourly_p99_s": [_sparse(waits_s[hours == hour], 0.99) for hour in range(last)],
        }


def jain(shares: Floats) -> float:
    """Jain's index of fairness: 1 where all are equal, 1/n where one has everything.

    R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource
    Allocation in Shared Computer Systems", DEC Research Report TR-301, 1984.
    """
    square = float((shares**2).sum())
    return float(shares.sum()) ** 2 / (len(shares) * square) if square else 1.0


def _quantile(values: Floats, part: float) -> float:
    return float(np.quantile(values, part)) if len(values) else 0.0


def _sparse(values: Floats, part: float) -> float | None:
    return round(_quantile(values, part), 3) if len(values) else None
