"""What a run writes down: one record a line, each of a kind of its own.

Stdlib only, since the light worker writes them too. Times are seconds of this machine's clock, the
same for all processes. A process writes what it is about to do before it does it, and what it was
told before it acts on it, so that a kill loses nothing of consequence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

Outcome = Literal["succeeded", "failed", "unfit", "refused", "stopped", "handed_back"]
"""How a worker says that an attempt ended; named as the scheduler names it."""


@dataclass(frozen=True, slots=True)
class Run:
    """The run's own numbers."""

    at: float
    seed: int
    kills: int
    lease_ttl_s: float
    max_attempts: int
    kind: Literal["run"] = "run"


@dataclass(frozen=True, slots=True)
class Plan:
    """A user and the numbers that hold for all of the run."""

    at: float
    user: str
    tier: str
    max_running: int
    max_waiting: int
    kind: Literal["plan"] = "plan"


@dataclass(frozen=True, slots=True)
class Submit:
    """One try of a submit, from its call to its answer."""

    at: float
    until: float
    user: str
    jobs: Sequence[str]
    answer: Literal["accepted", "refused", "buried", "unknown"]
    code: str = ""
    kind: Literal["submit"] = "submit"


@dataclass(frozen=True, slots=True)
class Cancel:
    """One try of a cancel."""

    at: float
    until: float
    user: str
    job: str
    answer: str
    """The job's state in the answer, or `unknown`."""
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class Resolve:
    """One try to give a job up."""

    at: float
    until: float
    job: str
    answer: str
    """`buried`, the job's state, or `unknown`."""
    kind: Literal["resolve"] = "resolve"


@dataclass(frozen=True, slots=True)
class Start:
    """A worker has been sent an attempt."""

    at: float
    worker: str
    pid: int
    attempt: str
    job: str
    user: str
    number: int
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class Report:
    """A worker is about to tell the end of an attempt (again, where `again`)."""

    at: float
    worker: str
    pid: int
    attempt: str
    outcome: Outcome
    code: str = ""
    again: bool = False
    kind: Literal["report"] = "report"


@dataclass(frozen=True, slots=True)
class Ack:
    """A worker's report was answered."""

    at: float
    worker: str
    pid: int
    attempt: str
    accepted: bool
    kind: Literal["ack"] = "ack"


@dataclass(frozen=True, slots=True)
class Told:
    """A worker was told to stop an attempt."""

    at: float
    worker: str
    pid: int
    attempt: str
    kind: Literal["told"] = "told"


@dataclass(frozen=True, slots=True)
class Parked:
    """A worker was told to set an attempt aside (`on`), or to go on with it."""

    at: float
    worker: str
    pid: int
    attempt: str
    on: bool
    kind: Literal["parked"] = "parked"


@dataclass(frozen=True, slots=True)
class Welcomed:
    """A worker's stream stands; of the attempts that it named, these it keeps."""

    at: float
    worker: str
    pid: int
    held: Sequence[str]
    kept: Sequence[str]
    door: str
    kind: Literal["welcomed"] = "welcomed"


@dataclass(frozen=True, slots=True)
class Cut:
    """A worker's stream has ended."""

    at: float
    worker: str
    pid: int
    why: str
    kind: Literal["cut"] = "cut"


@dataclass(frozen=True, slots=True)
class Seen:
    """A consumer of the feed has read an event."""

    at: float
    consumer: str
    cursor: Sequence[int]
    type: str
    job: str
    user: str
    attempt: str
    """Named by the key of the first picture; empty without one."""
    code: str
    kind: Literal["seen"] = "seen"


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A consumer of the feed begins after a cursor."""

    at: float
    consumer: str
    after: Sequence[int]
    kind: Literal["subscribed"] = "subscribed"


@dataclass(frozen=True, slots=True)
class Kill:
    """The killer is about to strike."""

    at: float
    number: int
    what: Literal["worker", "hang", "scheduler", "redis", "flush", "postgres", "backend"]
    name: str
    pid: int
    kind: Literal["kill"] = "kill"


@dataclass(frozen=True, slots=True)
class Back:
    """What was killed stands again, or goes on after a hang."""

    at: float
    number: int
    what: str
    name: str
    kind: Literal["back"] = "back"


@dataclass(frozen=True, slots=True)
class Fell:
    """A process ended that nobody had killed."""

    at: float
    name: str
    status: int
    ready: bool
    """It had been ready before."""
    kind: Literal["fell"] = "fell"


@dataclass(frozen=True, slots=True)
class Sample:
    """The queue's store at one instant: leases and running jobs by user."""

    at: float
    leases: dict[str, int]
    running: dict[str, int]
    waiting: int
    known: int
    kind: Literal["sample"] = "sample"


@dataclass(frozen=True, slots=True)
class Count:
    """The database at one instant: users whose open-jobs row is not the number of open jobs."""

    at: float
    wrong: dict[str, Sequence[int]]
    """By user: what the row says, what there are."""
    open: int
    """All open jobs."""
    kind: Literal["count"] = "count"


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as the database has it at the end."""

    at: float
    job: str
    user: str
    model: str
    state: str
    place: int
    attempts: int
    attempt: str
    code: str
    front: bool
    """Its user has put it before its other waiting jobs."""
    kind: Literal["job_row"] = "job_row"


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt as the database has it at the end."""

    at: float
    attempt: str
    job: str
    worker: str
    number: int
    claimed_at: float
    ended_at: float | None
    outcome: str
    counted: bool
    kind: Literal["attempt_row"] = "attempt_row"


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A result as the database has it at the end."""

    at: float
    job: str
    attempt: str
    kind: Literal["result_row"] = "result_row"


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as the database has it at the end, written in the feed's order."""

    at: float
    cursor: Sequence[int]
    type: str
    job: str
    kind: Literal["event_row"] = "event_row"


@dataclass(frozen=True, slots=True)
class TombstoneRow:
    """A job id that may not be submitted any more."""

    at: float
    job: str
    kind: Literal["tombstone_row"] = "tombstone_row"


@dataclass(frozen=True, slots=True)
class Done:
    """The run went to its end; without it the history says nothing about what is missing."""

    at: float
    calm: bool
    """No job was open any more."""
    kind: Literal["done"] = "done"


Record = (
    Run | Plan | Submit | Cancel | Resolve | Start | Report | Ack | Told | Parked | Welcomed
    | Cut | Seen | Subscribed | Kill | Back | Fell | Sample | Count | JobRow | AttemptRow
    | ResultRow | EventRow | TombstoneRow | Done
)  # fmt: skip


class Book:
    """A file that records are appended to; each is on its way to the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        """Opens the file, behind what is there."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, *records: Record) -> None:
        """Appends them in one piece."""
        os.write(self._file, "".join(map(_line, records)).encode())

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def _line(record: Record) -> str:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return json.dumps(values, separators=(",", ":")) + "\n"
