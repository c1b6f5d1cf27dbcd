"""One stream of one worker: what it holds, what it has room for, what is on its way to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from easel_kit.errors import DomainError, Internal, Overloaded
from easel_kit.ids import AttemptId, ModelKey
from scheduler.domain.job import Job
from scheduler.domain.lease import Claim, Ended
from scheduler.domain.stream import Assign, Drain, Park, Resume, Stop, ToWorker
from scheduler.domain.worker import Model, Worker

# A worker that leaves this many messages unread, or reports unanswered, is cut off: it comes back.
_MAX_UNREAD = 1_000
_Item = TypeVar("_Item")


@dataclass(slots=True)
class Held:
    """An attempt that the worker works on, or has told the end of."""

    claim: Claim
    steps: int
    first_step_at: datetime | None = None
    stopping: bool = False
    """It was told to stop: it is not kept once its lease is lost."""
    reported: bool = False
    parked: bool = False
    """It is set aside and takes up no slot."""
    sent: bool = True
    """The transport has taken its assignment: the worker may know of it."""


class Session:
    """State of one stream. The desk acts on it; the stream's edge reads `messages`."""

    def __init__(self, worker: Worker) -> None:
        """The worker as its stream introduced it."""
        self.worker = worker
        self.held: dict[AttemptId, Held] = {}
        self.woken = asyncio.Event()
        self.called = asyncio.Event()
        """The queue is there again, as far as is heard: a pause after a failure ends."""
        self.finished = asyncio.Event()
        """Nothing is under way for it any more."""
        self.closed = False
        self.gone = False
        """Its stream is no more."""
        self.draining = False
        self.drain_asked = False
        self.unfit = 0
        """Rests since its last success."""
        self.resting = False
        self.reports: asyncio.Queue[Ended | None] = asyncio.Queue(_MAX_UNREAD)
        self._outbox: asyncio.Queue[ToWorker | DomainError | None] = asyncio.Queue(_MAX_UNREAD)
        self._free = 0
        self._under_way = 0

    @property
    def room(self) -> int:
        """Attempts that the worker takes now.

        What it said may be older than the last assignment, so its slots bound it too. On trial
        after it could not go on, it takes one at a time.
        """
        if self.closed or self.draining or self.drain_asked or self.resting:
            return 0
        slots = 1 if self.unfit else self.worker.slots
        running = sum(not held.parked for held in self.held.values())
        return max(0, min(self._free, slots - running))

    @property
    def models(self) -> tuple[ModelKey, ...]:
        """Models that it can draw with."""
        return self.worker.usable_models

    def call(self) -> None:
        """Has it claim now, also when it has just failed to."""
        self.called.set()
        self.woken.set()

    def offer(self, free_slots: int) -> None:
        """The worker says how many attempts it takes; replaces what it said before."""
        self._free = free_slots
        self.woken.set()

    def change(self, *, models: tuple[Model, ...] | None = None, draining: bool = False) -> None:
        """The worker says something new of itself; one that was told to drain stays draining."""
        self.draining = draining
        self.worker = replace(
            self.worker,
            models=self.worker.models if models is None else models,
            draining=draining or self.drain_asked,
        )
        self.woken.set()

    def assign(self, claim: Claim, job: Job) -> None:
        """Sends the worker an attempt, which takes up room."""
        self._free -= 1
        self.hold(claim, job.steps, sent=False)
        self.send(Assign(claim, job))

    def hold(self, claim: Claim, steps: int, *, sent: bool = True) -> None:
        """The worker has this attempt; known again after a doubt, it stays as it was."""
        self.held.setdefault(claim.attempt_id, Held(claim, steps, sent=sent))

    def handed_over(self, message: ToWorker) -> None:
        """The transport has taken the message."""
        if isinstance(message, Assign) and (held := self.held.get(message.claim.attempt_id)):
            held.sent = True

    @property
    def undelivered(self) -> list[Claim]:
        """Assignments that the transport has not taken."""
        return [held.claim for held in self.held.values() if not held.sent]

    def rest(self) -> None:
        """The worker says that it could not go on: it is offered nothing until `try_again`."""
        self.unfit += 1
        self.resting = True

    def try_again(self) -> None:
        """Its rest is over."""
        self.resting = False
        self.woken.set()

    def trust(self) -> None:
        """The worker has done well: it takes what it has room for."""
        self.unfit = 0
        self.woken.set()

    def runs(self, attempt_id: AttemptId) -> bool:
        """The worker works on it, as far as is known, and is to go on."""
        held = self.held.get(attempt_id)
        return held is not None and not held.reported and not held.stopping

    def stop(self, attempt_id: AttemptId) -> None:
        """Tells the worker to stop an attempt, once."""
        if self.runs(attempt_id):
            self.held[attempt_id].stopping = True
            self.send(Stop(attempt_id))

    def park(self, attempt_id: AttemptId) -> None:
        """Tells the worker to set an attempt aside; it says when it has."""
        if self.worker.can_park and self.runs(attempt_id):
            self.send(Park(attempt_id))

    def resume(self, attempt_id: AttemptId) -> None:
        """Tells the worker to go on with an attempt, which takes up a slot from now on."""
        if self.runs(attempt_id):
            self.held[attempt_id].parked = False
            self.send(Resume(attempt_id))

    def drain(self) -> None:
        """Tells the worker to drain, once; it is offered nothing from now on."""
        if not self.drain_asked:
            self.drain_asked = True
            self.worker = replace(self.worker, draining=True)
            self.send(Drain())

    def drop(self, attempt_id: AttemptId) -> None:
        """The worker has it no more."""
        self.held.pop(attempt_id, None)
        self.woken.set()

    def send(self, message: ToWorker) -> None:
        """Puts a message on its way; a worker that does not read is cut off."""
        if self.closed:
            return
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            self.close(Overloaded("the worker does not read its stream"))

    def report(self, ended: Ended) -> None:
        """Takes a report; the attempt no longer runs, but is held until that is durable."""
        if self.closed:
            return
        if (held := self.held.get(ended.attempt_id)) is not None:
            held.reported = True
        try:
            self.reports.put_nowait(ended)
        except asyncio.QueueFull:
            self.close(Overloaded("too many reports at once"))

    async def told(self) -> list[Ended]:
        """All reports that wait, at least one; none when the worker has said its last."""
        first = await self.reports.get()
        found = [] if first is None else [first]
        while found and not self.reports.empty():
            more = self.reports.get_nowait()
            if more is None:
                _put_last(self.reports, None)
                break
            found.append(more)
        return found

    def hang_up(self) -> None:
        """The worker says no more: what it said is still dealt with, then the stream ends."""
        if not self.closed:
            _put_last(self.reports, None)

    def close(self, error: DomainError | None = None) -> None:
        """Ends the stream, with an error or well; idempotent."""
        if self.closed:
            return
        self.closed = True
        self.call()
        _put_last(self._outbox, error)
        _put_last(self.reports, None)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Work for the session is under way; the last one out sets `finished`.

        An error ends the stream, so that its worker comes again; other streams go on.
        """
        self._under_way += 1
        try:
            yield
        except Exception:
            self.close(Internal("something went wrong here; it has been logged"))
            raise
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self.finished.set()

    async def messages(self) -> AsyncIterator[ToWorker]:
        """What goes to the worker, until the session is closed.

        Raises:
            DomainError: what it was closed with.
        """
        while True:
            message = await self._outbox.get()
            if isinstance(message, DomainError):
                raise message
            if message is None:
                return
            yield message


def _put_last(queue: asyncio.Queue[_Item], item: _Item) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(item)
