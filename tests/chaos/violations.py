"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, for one job, attempt, user or consumer."""

    rule: str
    subject: str
    text: str
