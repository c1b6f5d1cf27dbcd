"""What jobs cost: one line a job whose hold has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from billing.domain.pricing import Work
from easel_kit.ids import JobId


@dataclass(frozen=True, slots=True)
class UsagePlace:
    """A line's place in the list, newest first; unique."""

    ended_at: datetime
    job_id: JobId


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which lines: those that ended from `since` up to, not including, `until`.

    `below` is the last line of the page before; `limit` bounds the lines, not the totals.
    """

    since: datetime | None
    until: datetime | None
    below: UsagePlace | None
    limit: int


@dataclass(frozen=True, slots=True)
class UsageLine:
    """The cost of one job, in millicredits."""

    place: UsagePlace
    work: Work
    held: int
    charged: int
    reason: str


@dataclass(frozen=True, slots=True)
class Usage:
    """A page of lines, newest first, and totals over all pages."""

    lines: Sequence[UsageLine]
    charged: int
    jobs: int
