"""A history read back, and the facts in it by name: what checks and figures are drawn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter

from tests.chaos.records import (
    Ack,
    AttemptRow,
    Back,
    JobRow,
    Kill,
    Plan,
    Record,
    Report,
    Resolve,
    ResultRow,
    Run,
    Start,
    Submit,
    TombstoneRow,
)

ENDED = frozenset({"succeeded", "failed", "cancelled"})
LOSSES = frozenset({"redis", "flush"})
"""Kills that take the whole queue away."""

_ADAPTER: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])
_Kind = TypeVar("_Kind", bound=Record)


def read(path: Path) -> History:
    """A history file.

    Raises:
        ValidationError: a line that is no record.
    """
    with path.open("rb") as lines:
        return History(_ADAPTER.validate_json(line) for line in lines)


class History:
    """All records of a run; each process's own stand in the order in which it wrote them."""

    def __init__(self, records: Iterable[Record]) -> None:
        """Sorts them by kind."""
        self._by_kind: dict[type, list[Record]] = defaultdict(list)
        for record in records:
            self._by_kind[type(record)].append(record)

    def of(self, kind: type[_Kind]) -> list[_Kind]:
        """All records of a kind."""
        return self._by_kind.get(kind, [])  # type: ignore[return-value]

    @cached_property
    def run(self) -> Run:
        """The run's own numbers."""
        (found,) = self.of(Run)
        return found

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """By user."""
        return {plan.user: plan for plan in self.of(Plan)}

    # --- what callers know

    @cached_property
    def accepted(self) -> dict[str, Submit]:
        """The first accepted submit by job."""
        found: dict[str, Submit] = {}
        for submit in self.of(Submit):
            if submit.answer == "accepted":
                for job in submit.jobs:
                    found.setdefault(job, submit)
        return found

    @cached_property
    def buried(self) -> dict[str, float]:
        """By job given up: since when, as its caller knows."""
        return {one.job: one.until for one in self.of(Resolve) if one.answer == "buried"}

    @cached_property
    def refused(self) -> set[str]:
        """Jobs whose every submit was refused, or that were given up: they may never run."""
        tried: dict[str, set[str]] = defaultdict(set)
        for submit in self.of(Submit):
            for job in submit.jobs:
                tried[job].add(submit.answer)
        tombs = {row.job for row in self.of(TombstoneRow)}
        sure = {job for job, answers in tried.items() if answers <= {"refused", "buried"}}
        return sure | self.buried.keys() | tombs

    # --- what the database has

    @cached_property
    def jobs(self) -> dict[str, JobRow]:
        """By id."""
        return {row.job: row for row in self.of(JobRow)}

    @cached_property
    def attempts(self) -> dict[str, AttemptRow]:
        """By id."""
        return {row.attempt: row for row in self.of(AttemptRow)}

    @cached_property
    def tries(self) -> dict[str, list[AttemptRow]]:
        """Attempts by job."""
        return _grouped(self.of(AttemptRow), "job")

    @cached_property
    def results(self) -> dict[str, list[ResultRow]]:
        """By job."""
        return _grouped(self.of(ResultRow), "job")

    # --- what workers know

    @cached_property
    def starts(self) -> dict[str, list[Start]]:
        """By attempt."""
        return _grouped(self.of(Start), "attempt")

    @cached_property
    def starts_of_jobs(self) -> dict[str, list[Start]]:
        """By job, in time."""
        return _grouped(sorted(self.of(Start), key=lambda start: start.at), "job")

    @cached_property
    def reports(self) -> dict[str, list[Report]]:
        """By attempt."""
        return _grouped(self.of(Report), "attempt")

    @cached_property
    def acks(self) -> dict[str, list[Ack]]:
        """By attempt."""
        return _grouped(self.of(Ack), "attempt")

    # --- what was done to them

    @cached_property
    def kills(self) -> list[Kill]:
        """In time."""
        return sorted(self.of(Kill), key=lambda kill: kill.at)

    @cached_property
    def backs(self) -> dict[int, float]:
        """When what a kill hit stood again, by the kill's number."""
        return {back.number: back.at for back in self.of(Back)}

    def back_at(self, kill: Kill) -> float:
        """When what a kill hit stood again; infinity if never."""
        return self.backs.get(kill.number, float("inf"))

    @cached_property
    def losses(self) -> list[tuple[float, float]]:
        """Spans in which the queue's store lost all it had, at some instant of each."""
        return [(kill.at, self.back_at(kill)) for kill in self.kills if kill.what in LOSSES]

    @cached_property
    def deaths(self) -> dict[str, list[tuple[float, float]]]:
        """Spans in which a worker was dead or hung, by its name."""
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for kill in self.kills:
            if kill.what in {"worker", "hang"}:
                found[kill.name].append((kill.at, self.back_at(kill)))
        return found


def _grouped(records: Sequence[_Kind], key: str) -> dict[str, list[_Kind]]:
    found: dict[str, list[_Kind]] = defaultdict(list)
    for record in records:
        found[getattr(record, key)].append(record)
    return found
