"""The scheduler's event feed as billing reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from billing.domain.holds import Hold, HoldState, JobReport, Settled, Settlement
from easel_kit.ids import JobId, UserId


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the feed; later places are greater. The zero cursor is before everything."""

    generation: int = 0
    transaction_id: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A change of a job's state. `report` is None for a kind of event that means nothing here."""

    cursor: Cursor
    job_id: JobId
    user_id: UserId
    report: JobReport | None
    traceparent: str = ""


class Outcome(StrEnum):
    """What became of an event or of an expired hold; also the name of its log line."""

    CAPTURED = "hold.captured"
    RELEASED = "hold.released"
    EXTENDED = "hold.extended"
    UNCHANGED = "hold.unchanged"
    IGNORED = "event.ignored"
    REPEATED = "event.repeated"
    FOUND = "finding.recorded"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not add up and that a person should see. Unique by kind and reference."""

    kind: str
    reference: str
    detail: dict[str, str]


@dataclass(frozen=True, slots=True)
class Applied:
    """An outcome, with the hold or the finding it is about."""

    outcome: Outcome
    hold: Hold | None = None
    finding: Finding | None = None


def applied(settled: Settled | None) -> Applied:
    """What a settlement of an existing hold came to."""
    if settled is None or not settled.is_new:
        return Applied(Outcome.UNCHANGED, None if settled is None else settled.hold)
    captured = settled.hold.state is HoldState.CAPTURED
    return Applied(Outcome.CAPTURED if captured else Outcome.RELEASED, settled.hold)


def contradiction(event: JobEvent, hold: Hold | None) -> str | None:
    """The kind of finding when an event cannot mean this hold; None when it can."""
    if hold is None or hold.account_id is None:
        return "hold_missing"
    if hold.user_id is not None and hold.user_id != event.user_id:
        return "hold_of_other_user"
    return None


def is_settled_otherwise(hold: Hold, settlement: Settlement) -> bool:
    """Whether a hold has ended with another charge than this settlement asks for."""
    return hold.state is not HoldState.OPEN and hold.captured != settlement.charge(
        hold.millicredits
    )
