"""The end of an attempt: durable first, then the queue follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from easel_kit.errors import DependencyDown, Overloaded
from easel_kit.group import Group
from easel_kit.ids import AttemptId
from scheduler.domain.lease import Outcome, Report, Settled
from scheduler.domain.line import End
from scheduler.ports import AttemptStore, Line, Observer

# Reports in one transaction, and in front of it; sessions bound their own before.
_MAX_GROUP = 500
_MAX_WAITING = 100_000


class Settler:
    """Settles reports of workers and of the loops alike; they share commits and calls."""

    def __init__(self, attempts: AttemptStore, line: Line, observer: Observer) -> None:
        """Decides in `attempts`, frees slots in `line`."""
        self._attempts = attempts
        self._line = line
        self._observer = observer
        self._deciding: Group[Sequence[Report], list[Settled]] = Group(
            self._decide,
            name="settlements",
            max_weight=_MAX_GROUP,
            max_waiting=_MAX_WAITING,
            weigh=len,
        )
        self._ending: Group[Sequence[End], None] = Group(
            self._end, name="ends", max_weight=_MAX_GROUP, max_waiting=_MAX_WAITING, weigh=len
        )

    async def decide(self, reports: Sequence[Report]) -> list[Settled]:
        """Makes reports durable; on return their workers may forget them.

        Raises:
            DependencyDown: unknown whether it happened; reports may be repeated.
        """
        try:
            return await self._deciding.put(reports)
        except Overloaded as error:
            raise DependencyDown("too many attempts end at once") from error

    async def _decide(self, groups: Sequence[Sequence[Report]]) -> list[list[Settled]]:
        settled = await self._attempts.settle([report for group in groups for report in group])
        for one in settled:
            self._observer.settled(one)
        answers = iter(settled)
        return [[next(answers) for _ in group] for group in groups]

    async def follow(
        self,
        settled: Sequence[Settled],
        *,
        by_worker: bool,
        took_ms: Mapping[AttemptId, int] | None = None,
    ) -> None:
        """Brings the queue in line; while it is away the loops will.

        Args:
            settled: answers of `decide`.
            by_worker: the worker reported it itself, and need not be told to stop.
            took_ms: duration of an attempt by its worker's report, where it said so.
        """
        ends, again = [], []
        for one in settled:
            if one.claim is None or one.state is None or one.state.ended:
                ends.append(_end(one, by_worker=by_worker, took_ms=took_ms or {}))
            else:
                again.append((one.claim, one.not_before))
        try:
            if ends:
                await self._ending.put(ends)
            for claim, not_before in again:
                await self._line.requeue(claim, stop=not by_worker, not_before=not_before)
        except (DependencyDown, Overloaded) as error:
            self._observer.trouble("free", error)

    async def _end(self, groups: Sequence[Sequence[End]]) -> list[None]:
        await self._line.end([end for group in groups for end in group])
        return [None for _ in groups]


def _end(one: Settled, *, by_worker: bool, took_ms: Mapping[AttemptId, int]) -> End:
    if one.claim is None or not by_worker:
        return End(one.job_id)
    attempt_id = one.claim.attempt_id
    # another end, after a part of the steps, says nothing about how long a job takes
    success = one.outcome is Outcome.SUCCEEDED
    return End(one.job_id, attempt_id, took_ms.get(attempt_id, 0) if success else None)
