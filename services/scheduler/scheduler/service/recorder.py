"""Writes claims down in the database, off the job's way.

A worker is sent its job as soon as Redis has lent it; the row of the attempt follows within one
shared commit. What is lost when the process dies in between is repaired when the worker comes
back: it names the attempt, and the queue still knows it. Were the queue lost at the same moment,
the attempt would be repeated: work done twice, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

from easel_kit.errors import DependencyDown
from easel_kit.ids import AttemptId
from scheduler.domain.lease import Claim
from scheduler.ports import AttemptStore, Line, Observer

_RETRY_S = 0.5
_BATCH = 500
# More than any lane claims while its database is away for a lease; beyond it the oldest go
# unrecorded, and are written with the reports of their ends.
_MAX_PENDING = 20_000


class Recorder:
    """A shared commit for all claims that came while the last one ran, and a little before."""

    def __init__(
        self, attempts: AttemptStore, line: Line, observer: Observer, *, linger_s: float
    ) -> None:
        """Writes to `attempts`; takes jobs out of `line` that turn out to have ended.

        A claim is written `linger_s` after it came, since nobody waits for it: an attempt that ends
        before needs no record, and the others share one.
        """
        self._attempts = attempts
        self._line = line
        self._observer = observer
        self._linger_s = linger_s
        self._pending: dict[AttemptId, Claim] = {}
        self._some = asyncio.Event()

    def add(self, claim: Claim) -> None:
        """Has the claim written soon."""
        if len(self._pending) < _MAX_PENDING:
            self._pending[claim.attempt_id] = claim
        self._some.set()

    def drop(self, attempt_ids: Iterable[AttemptId]) -> None:
        """The attempts have ended and are written down with their end."""
        for attempt_id in attempt_ids:
            self._pending.pop(attempt_id, None)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._linger_s)
            self._some.clear()
            while self._pending:
                try:
                    await self._flush()
                except DependencyDown as error:
                    self._observer.trouble("record", error)
                    await asyncio.sleep(_RETRY_S)

    async def _flush(self) -> None:
        batch = list(islice(self._pending.values(), _BATCH))
        ended = set(await self._attempts.record(batch))
        self.drop(claim.attempt_id for claim in batch)
        jobs = [claim.job_id for claim in batch if claim.attempt_id in ended]
        if jobs:  # cancelled just before the claim: their workers are told to stop
            await self._line.remove(jobs)
