"""Watching a job: as it is, then each change, until its end.

Nothing queues up for a slow watcher: it sees the newest state and the newest progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from easel_kit.errors import DependencyDown, Overloaded
from easel_kit.ids import JobId, UserId
from scheduler.domain.job import Job, JobState
from scheduler.domain.line import Live, Progress
from scheduler.ports import Line, Observer, Signals
from scheduler.service.jobs import Jobs


@dataclass(slots=True)
class _Mailbox:
    """What a watcher has not seen yet."""

    changed: bool = False
    progress: Progress | None = None
    live: Live | None = None
    waiting: bool = False
    """Its job waits: it wants to know its position."""
    some: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as its watcher sees it; `preview` is a small picture or empty."""

    job: Job
    preview: bytes = b""
    preview_media_type: str = ""


class Watches:
    """All watchers of this process."""

    def __init__(
        self,
        jobs: Jobs,
        line: Line,
        signals: Signals,
        observer: Observer,
        *,
        recheck_s: float,
        max_watchers: int,
    ) -> None:
        """`recheck_s`: a job is looked at again after this long without a word."""
        self._jobs = jobs
        self._line = line
        self._signals = signals
        self._observer = observer
        self._recheck_s = recheck_s
        self._max_watchers = max_watchers
        self._watchers = 0
        self._mailboxes: dict[JobId, list[_Mailbox]] = {}
        self._shut = False

    async def watch(self, user_id: UserId, job_id: JobId) -> AsyncIterator[Seen]:
        """The job now, then each change: position, progress, previews; ends after the job's end.

        Raises:
            NotFound: unknown, or someone else's.
            Overloaded: too many watchers on this process.
            DependencyDown: the database does not answer, or this process stops.
        """
        await self._jobs.get(user_id, job_id)
        with self._mailbox(job_id) as mailbox:
            await self._signals.watch(job_id)
            try:
                job = await self._jobs.get(user_id, job_id)
                yield Seen(job)
                while not job.state.ended:
                    if self._shut:
                        raise DependencyDown("the scheduler is stopping")
                    mailbox.waiting = job.state is JobState.QUEUED
                    seen = await self._next(mailbox, job)
                    if seen is not None:
                        job = seen.job
                        yield seen
            finally:
                await self._signals.unwatch(job_id)

    def shut(self) -> None:
        """The process stops: watchers are told to come again."""
        self._shut = True
        self.look_again()

    @contextmanager
    def _mailbox(self, job_id: JobId) -> Iterator[_Mailbox]:
        if self._watchers >= self._max_watchers:
            raise Overloaded("too many jobs are being watched")
        self._watchers += 1
        mailbox = _Mailbox()
        self._mailboxes.setdefault(job_id, []).append(mailbox)
        try:
            yield mailbox
        finally:
            self._watchers -= 1
            self._mailboxes[job_id].remove(mailbox)
            if not self._mailboxes[job_id]:
                del self._mailboxes[job_id]

    async def _next(self, mailbox: _Mailbox, job: Job) -> Seen | None:
        """What is new; None where nothing is."""
        try:
            async with asyncio.timeout(self._recheck_s):
                await mailbox.some.wait()
        except TimeoutError:
            mailbox.changed = True
        mailbox.some.clear()
        changed, progress, live = mailbox.changed, mailbox.progress, mailbox.live
        mailbox.changed, mailbox.progress, mailbox.live = False, None, None
        if changed or (progress is not None and job.state is not JobState.RUNNING):
            # one that was taken out of sight meanwhile is watched to its end
            new = await self._jobs.get(job.user_id, job.id, hidden=True)
        elif live is not None and not live.running and job.state is JobState.QUEUED:
            new = replace(job, position=live.position, eta_s=live.eta_s)
        else:
            new = job
        if progress is not None and new.state is JobState.RUNNING:
            new = replace(new, steps_done=progress.step, first_step_at=progress.first_step_at)
            return Seen(new, progress.preview, progress.preview_media_type)
        # where its user has put it, or that it is out of sight, no watcher is shown
        seen = replace(new, front=job.front, is_hidden=job.is_hidden)
        return None if seen == job else Seen(new)

    def on_job(self, job_id: JobId, progress: Progress | None) -> None:
        """A watched job changed, or made progress."""
        for mailbox in self._mailboxes.get(job_id, ()):
            if progress is None:
                mailbox.changed = True
            else:
                mailbox.progress = progress
            mailbox.some.set()

    def look_again(self) -> None:
        """Changes may have been missed."""
        for job_id in self._mailboxes:
            self.on_job(job_id, None)

    async def refresh_positions(self) -> None:
        """Tells watchers of waiting jobs where they stand now."""
        waiting = {
            job_id: boxes
            for job_id, boxes in self._mailboxes.items()
            if any(mailbox.waiting for mailbox in boxes)
        }
        if not waiting:
            return
        try:
            live = await self._line.live(list(waiting))
        except DependencyDown as error:
            self._observer.trouble("positions", error)
            return
        for job_id, boxes in waiting.items():
            for mailbox in boxes:
                mailbox.live = live.get(job_id)
                mailbox.some.set()
