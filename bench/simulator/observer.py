"""What happens in a run, told to whoever checks or counts it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.simulator.people import Order, Person, Row
from easel_kit.ids import AttemptId, JobId, ModelKey
from scheduler.domain.job import JobState


class Observer:
    """Hears everything and does nothing; those who care override."""

    def accepted(self, row: Row) -> None:
        """The truth took a job."""

    def refused(self, person: Person, orders: Sequence[Order]) -> None:
        """The user has as many open jobs as the plan allows."""

    def moved(self, row: Row, old: JobState) -> None:
        """The truth changed a job's state; `row` has the new one."""

    def won(self, row: Row, attempt_id: AttemptId) -> None:
        """The truth took an attempt's result."""

    def admitted(self, row: Row) -> None:
        """The line did not know this waiting job, and now does."""

    def lent(self, row: Row, attempt_id: AttemptId, models: frozenset[ModelKey] | None) -> None:
        """The line gave a lease; `models` of the worker that claimed, None when it was restored."""

    def returned(self, row: Row, attempt_id: AttemptId, *, waits: bool) -> None:
        """A lease has ended; with `waits` its job is in line again."""

    def left(self, row: Row) -> None:
        """A waiting job was taken out of the line."""

    def flushed(self) -> None:
        """The line has forgotten everything."""

    def worked(self, job_id: JobId, seconds: float) -> None:
        """A worker was busy with a job for so long, well spent or not."""


class Observers(Observer):
    """Tells several, in order."""

    def __init__(self, each: Sequence[Observer]) -> None:
        """Those to tell."""
        self._each = each

    def accepted(self, row: Row) -> None:
        """See `Observer`."""
        for one in self._each:
            one.accepted(row)

    def refused(self, person: Person, orders: Sequence[Order]) -> None:
        """See `Observer`."""
        for one in self._each:
            one.refused(person, orders)

    def moved(self, row: Row, old: JobState) -> None:
        """See `Observer`."""
        for one in self._each:
            one.moved(row, old)

    def won(self, row: Row, attempt_id: AttemptId) -> None:
        """See `Observer`."""
        for one in self._each:
            one.won(row, attempt_id)

    def admitted(self, row: Row) -> None:
        """See `Observer`."""
        for one in self._each:
            one.admitted(row)

    def lent(self, row: Row, attempt_id: AttemptId, models: frozenset[ModelKey] | None) -> None:
        """See `Observer`."""
        for one in self._each:
            one.lent(row, attempt_id, models)

    def returned(self, row: Row, attempt_id: AttemptId, *, waits: bool) -> None:
        """See `Observer`."""
        for one in self._each:
            one.returned(row, attempt_id, waits=waits)

    def left(self, row: Row) -> None:
        """See `Observer`."""
        for one in self._each:
            one.left(row)

    def flushed(self) -> None:
        """See `Observer`."""
        for one in self._each:
            one.flushed()

    def worked(self, job_id: JobId, seconds: float) -> None:
        """See `Observer`."""
        for one in self._each:
            one.worked(job_id, seconds)
