"""The end of an attempt: durable first, then the queue follows."""

from __future__ import annotations

from collections.abc import Sequence

from easel_kit.errors import DependencyDown
from scheduler.domain.lease import Outcome, Report, Settled
from scheduler.ports import AttemptStore, Line, Observer


class Settler:
    """Settles reports of workers and of the loops alike."""

    def __init__(self, attempts: AttemptStore, line: Line, observer: Observer) -> None:
        """Decides in `attempts`, frees slots in `line`."""
        self._attempts = attempts
        self._line = line
        self._observer = observer

    async def decide(self, reports: Sequence[Report]) -> list[Settled]:
        """Makes reports durable; on return their workers may forget them.

        Raises:
            DependencyDown: unknown whether it happened; reports may be repeated.
        """
        settled = await self._attempts.settle(reports)
        for one in settled:
            self._observer.settled(one)
        return settled

    async def follow(
        self, settled: Sequence[Settled], *, by_worker: bool, took_ms: int = 0
    ) -> None:
        """Brings the queue in line; while it is away the loops will.

        Args:
            settled: answers of `decide`.
            by_worker: the worker reported it itself, and need not be told to stop.
            took_ms: duration by the worker's report; 0 where it did not say.
        """
        try:
            for one in settled:
                await self._apply(one, by_worker=by_worker, took_ms=took_ms)
        except DependencyDown as error:
            self._observer.trouble("free", error)

    async def _apply(self, one: Settled, *, by_worker: bool, took_ms: int) -> None:
        if one.claim is None or one.state is None or one.state.ended:
            by = one.claim.attempt_id if one.claim and by_worker else None
            # another end, after a part of the steps, says nothing about how long a job takes
            success = one.outcome is Outcome.SUCCEEDED
            await self._line.remove([one.job_id], by=by, took_ms=took_ms if success else None)
        else:
            await self._line.requeue(one.claim, stop=not by_worker, not_before=one.not_before)
