"""Progress of attempts on its way to whoever watches: the last value per job, never a queue."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from easel_kit.errors import DependencyDown
from easel_kit.ids import JobId
from scheduler.domain.line import Progress
from scheduler.ports import Leases, Observer

_BATCH = 100


class ProgressPump:
    """Passes on what is newest; a slow store sees fewer steps, and previews go first."""

    def __init__(self, leases: Leases, observer: Observer, *, max_preview_bytes: int) -> None:
        """Larger previews than `max_preview_bytes` are dropped."""
        self._leases = leases
        self._observer = observer
        self._max_preview_bytes = max_preview_bytes
        self._latest: dict[JobId, Progress] = {}
        self._some = asyncio.Event()

    def add(self, progress: Progress) -> None:
        """Replaces what was not passed on yet of the same job."""
        if len(progress.preview) > self._max_preview_bytes:
            progress = replace(progress, preview=b"", preview_media_type="")
        self._latest[progress.job_id] = progress
        self._some.set()

    async def run(self) -> None:
        """Passes on until cancelled."""
        while True:
            await self._some.wait()
            batch = [self._latest.pop(job_id) for job_id in list(self._latest)[:_BATCH]]
            if not self._latest:
                self._some.clear()
            try:
                await self._leases.show(batch)
            except DependencyDown as error:
                self._observer.trouble("progress", error)
