"""What reconciliation needs: its own records, and what it compares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from billing.domain.feed import Finding
from billing.domain.holds import Hold
from billing.domain.reconciliation import RunKind, Span
from easel_kit.ids import JobId


class Records(Protocol):
    """Findings, and when reconciliation last ran."""

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """Whether no other process reconciles, and none does until the block is left."""
        ...

    async def begun_at(self, kind: RunKind) -> datetime:
        """When the last run that came to its end had begun."""
        ...

    async def done(self, kind: RunKind, begun_at: datetime) -> None:
        """A run has come to its end."""
        ...

    async def record(self, finding: Finding, now: datetime) -> bool:
        """Keeps a finding; False when one of its kind and reference is there already."""
        ...


class Check(Protocol):
    """One comparison. It repairs by the same handlers that should have kept things right."""

    @property
    def name(self) -> str:
        """For logs."""
        ...

    def run(self, span: Span) -> AsyncIterator[Finding]:
        """What does not fit, as it is found."""
        ...


class OpenHolds(Protocol):
    """Holds that stand for long."""

    async def open_holds(
        self, placed_before: datetime, after: JobId | None, limit: int
    ) -> Sequence[Hold]:
        """Open holds by job id, only those with one above `after`."""
        ...


class Breach(Protocol):
    """Something that breaks an invariant of the ledger."""

    @property
    def invariant(self) -> str:
        """Which one, in words."""
        ...

    @property
    def reference(self) -> str:
        """Of the row that breaks it."""
        ...


class Invariants(Protocol):
    """The ledger's invariants over all accounts."""

    async def run(self) -> Sequence[Breach]:
        """All breaches."""
        ...
