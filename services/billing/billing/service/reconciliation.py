"""Reconciliation: comparing what is here with what is elsewhere, and writing down what differed.

Whatever repairs something is the handler that should have kept it right, so a run that is broken
off or that overlaps another does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from billing.domain.reconciliation import Recorded, RunKind, RunReport, Span, is_due
from billing.ports.reconciliation import Check, Records
from easel_kit.clock import Clock
from easel_kit.errors import Conflict, DeadlineExceeded, DependencyDown


class Reconciliation:
    """Runs the checks of each kind when they are due, in one process at a time."""

    def __init__(
        self,
        records: Records,
        checks: Mapping[RunKind, Sequence[Check]],
        clock: Clock,
        *,
        intervals: Mapping[RunKind, timedelta],
    ) -> None:
        """`intervals` says how often each kind runs."""
        self._records = records
        self._checks = checks
        self._clock = clock
        self._intervals = intervals

    async def run_due(self, kind: RunKind) -> RunReport | None:
        """Runs what is due; None when nothing is, or when another process does it.

        Raises:
            DependencyDown: the database does not answer.
        """
        if not await self._is_due(kind):
            return None
        async with self._records.alone() as is_alone:
            # another process may have come to its end in between
            if not is_alone or not await self._is_due(kind):
                return None
            return await self._run(kind)

    async def run_now(self, kind: RunKind) -> RunReport:
        """Runs at once, due or not.

        Raises:
            Conflict: another process reconciles.
            DependencyDown: the database does not answer.
        """
        async with self._records.alone() as is_alone:
            if not is_alone:
                raise Conflict("another process reconciles just now")
            return await self._run(kind)

    async def _is_due(self, kind: RunKind) -> bool:
        begun_at = await self._records.begun_at(kind)
        return is_due(begun_at, self._clock.now(), self._intervals[kind])

    async def _run(self, kind: RunKind) -> RunReport:
        span = Span(await self._records.begun_at(kind), self._clock.now())
        findings: list[Recorded] = []
        failed: list[str] = []
        for check in self._checks[kind]:
            try:
                async for finding in check.run(span):
                    is_new = await self._records.record(finding, self._clock.now())
                    findings.append(Recorded(finding, is_new))
            except (DependencyDown, DeadlineExceeded):
                failed.append(check.name)
        if not failed:
            await self._records.done(kind, span.now)
        return RunReport(kind, tuple(findings), tuple(failed))
