"""Whose pictures step next: deficit round robin over jobs, in seconds of the device.

Every job that could step is owed an equal share of the time that passes on the device; those that
stepped have paid for their rows. The job that is owed most leads the next forward, and whatever can
share its batch comes along, most owed first (Shreedhar and Varghese, "Efficient fair queueing using
deficit round robin", 1995, with measured time instead of bytes). What is left out ages: it is owed
more with every turn. Pure: no clock, no tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that could step now.

    Attributes:
        job: whose it is.
        key: what it must share with others in one forward.
        rows: that it brings.
        alone: it may not share the forward, whatever its key.
    """

    job: Hashable
    key: Hashable
    rows: int
    alone: bool = False


class FairShare:
    """What each job is owed, in seconds of the device; negative where it is ahead."""

    def __init__(self) -> None:
        self._owed: dict[Hashable, float] = {}

    def owed_s(self, job: Hashable) -> float:
        """Zero for a job that was never heard of."""
        return self._owed.get(job, 0.0)

    def enter(self, job: Hashable) -> None:
        """A job arrives or comes back: nobody is before it, so that its first step is soon."""
        self._owed[job] = max(0.0, *self._owed.values()) if self._owed else 0.0

    def leave(self, job: Hashable) -> None:
        """A job has ended or is parked."""
        self._owed.pop(job, None)

    def settle(
        self, seconds: float, stepped: Mapping[Hashable, int], waiting: Collection[Hashable]
    ) -> None:
        """One forward has run.

        Args:
            seconds: that it took.
            stepped: rows of each job in it.
            waiting: all jobs that could have stepped, those that did included.
        """
        rows = sum(stepped.values())
        for job in waiting:
            self._owed[job] = self.owed_s(job) + seconds / len(waiting)
        for job, own in stepped.items():
            self._owed[job] = self.owed_s(job) - seconds * own / rows

    def choose(
        self, candidates: Sequence[Candidate], rows_limit: Callable[[Hashable], int]
    ) -> list[int]:
        """Indices of the pictures that step together; at least one of `candidates`.

        Pictures of one job take turns with those of others, and earlier ones go first.

        Args:
            candidates: never empty.
            rows_limit: rows of one forward for a key; one picture always fits.
        """
        leader = max(range(len(candidates)), key=lambda index: self._rank(candidates, index))
        first = candidates[leader]
        if first.alone:
            return [leader]
        limit = rows_limit(first.key)
        chosen, rows = [leader], first.rows
        for index in self._followers(candidates, leader):
            if rows + candidates[index].rows <= limit:
                chosen.append(index)
                rows += candidates[index].rows
        return sorted(chosen)

    def _rank(self, candidates: Sequence[Candidate], index: int) -> tuple[float, int]:
        return self.owed_s(candidates[index].job), -index

    def _followers(self, candidates: Sequence[Candidate], leader: int) -> list[int]:
        """All that may share the leader's forward: one picture of each job, then the seconds."""
        taken: dict[Hashable, int] = {candidates[leader].job: 1}
        turns: list[tuple[int, float, int]] = []
        for index, candidate in enumerate(candidates):
            if index == leader or candidate.alone or candidate.key != candidates[leader].key:
                continue
            turn = taken.get(candidate.job, 0)
            taken[candidate.job] = turn + 1
            turns.append((turn, -self.owed_s(candidate.job), index))
        return [index for _, _, index in sorted(turns)]
