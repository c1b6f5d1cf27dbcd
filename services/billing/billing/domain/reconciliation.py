"""Reconciliation: what is compared how often, and what a run found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from billing.domain.feed import Finding


class RunKind(StrEnum):
    """How much is compared: what changed of late, or everything."""

    HOURLY = "hourly"
    NIGHTLY = "nightly"


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a run looks at. `since` is when the run before it had begun."""

    since: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finding; `is_new` unless an earlier run has recorded it already."""

    finding: Finding
    is_new: bool


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run found, and the checks that it could not carry out."""

    kind: RunKind
    findings: tuple[Recorded, ...]
    failed: tuple[str, ...]


def is_due(begun_at: datetime, now: datetime, interval: timedelta) -> bool:
    """Whether the next run is due, counted from when the last one began."""
    return now - begun_at >= interval


def found(kind: str, reference: str, what: str, done: str) -> Finding:
    """A finding in words: what is wrong, and what was done about it."""
    return Finding(kind, reference, {"found": what, "done": done})
