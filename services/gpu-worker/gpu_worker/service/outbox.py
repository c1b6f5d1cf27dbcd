"""What the worker has to say, in the order in which it must be said.

Reports on ended attempts stay until they are acknowledged and are said again on every new stream.
Progress may be lost: only the newest of each attempt is kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Container
from dataclasses import replace

from easel_kit.ids import AttemptId
from gpu_worker.domain.drawing import StepProgress
from gpu_worker.domain.work import (
    AttemptParked,
    AttemptResumed,
    Capacity,
    HandBack,
    ModelsChanged,
    Report,
)

News = Report | HandBack | AttemptParked | AttemptResumed | Capacity | ModelsChanged


class Outbox:
    """Filled by attempts, emptied by the one writer of the current stream."""

    def __init__(self) -> None:
        self._reports: dict[AttemptId, Report] = {}
        self._news: deque[News] = deque()
        self._progress: dict[AttemptId, StepProgress] = {}
        self._filled = asyncio.Event()
        self._settled = asyncio.Event()
        self._closed = False
        self._check_settled()

    @property
    def unacknowledged(self) -> frozenset[AttemptId]:
        """Attempts whose reports the scheduler has not confirmed."""
        return frozenset(self._reports)

    def report(self, report: Report) -> None:
        """How an attempt ended; its progress is of no interest any more."""
        self._reports[report.attempt_id] = report
        self._progress.pop(report.attempt_id, None)
        self._say(report)

    def hand_back(self, attempt_id: AttemptId) -> None:
        """An attempt that somebody else shall run."""
        self._progress.pop(attempt_id, None)
        self._say(HandBack(attempt_id))

    def turn(self, news: AttemptParked | AttemptResumed) -> None:
        """An attempt is set aside, or goes on."""
        self._say(news)

    def say(self, news: Capacity | ModelsChanged) -> None:
        """Something that replaces what is still unsaid of its kind."""
        kind = type(news)
        self._news = deque(item for item in self._news if not isinstance(item, kind))
        self._say(news)

    def progress(self, attempt_id: AttemptId, progress: StepProgress) -> None:
        """The newest state of a running attempt; an unsent look survives a state without one."""
        waiting = self._progress.get(attempt_id)
        if waiting is not None and progress.preview is None:
            progress = replace(progress, preview=waiting.preview)
        self._progress[attempt_id] = progress
        self._filled.set()

    def forget(self, attempt_id: AttemptId) -> None:
        """Nothing about this attempt matters any more."""
        self._reports.pop(attempt_id, None)
        self._progress.pop(attempt_id, None)
        self._news = deque(
            item for item in self._news if getattr(item, "attempt_id", None) != attempt_id
        )
        self._check_settled()

    def restart(self, kept: Container[AttemptId]) -> None:
        """A new stream: all reports on `kept` attempts are said again, the others forgotten.

        All else that was meant for the lost stream is dropped: capacity, models and what is parked
        are said anew by whoever knows them, an attempt that is not held needs no hand-back.
        """
        self._reports = {key: report for key, report in self._reports.items() if key in kept}
        self._news = deque(self._reports.values())
        self._progress.clear()
        self._filled.set()
        self._check_settled()

    def close(self) -> None:
        """Nothing will be added: `take` ends once all is said."""
        self._closed = True
        self._filled.set()

    async def take(self) -> News | tuple[AttemptId, StepProgress] | None:
        """The next thing to say, as soon as there is one; what must arrive before what may.

        None after `close`, when nothing is left. Cancelling the call loses nothing.
        """
        while True:
            if self._news:
                item = self._news.popleft()
                self._check_settled()
                return item
            if self._progress:
                attempt_id = next(iter(self._progress))
                return attempt_id, self._progress.pop(attempt_id)
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()

    async def wait_settled(self) -> None:
        """Until every hand-back has been said and every report is confirmed.

        Capacity and models do not count: without a stream nobody waits to hear them.
        """
        await self._settled.wait()

    def _say(self, news: News) -> None:
        self._news.append(news)
        self._filled.set()
        self._check_settled()

    def _check_settled(self) -> None:
        if self._reports or any(isinstance(item, HandBack) for item in self._news):
            self._settled.clear()
        else:
            self._settled.set()
