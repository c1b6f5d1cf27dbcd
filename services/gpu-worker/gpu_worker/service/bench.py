"""The attempts that this worker holds: taking, running, parking, cancelling, handing back."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from dataclasses import dataclass

import structlog

from easel_kit.clock import Clock
from easel_kit.ids import AttemptId
from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_kit.telemetry import span
from gpu_worker.domain.drawing import FailureKind
from gpu_worker.domain.generation import Limits
from gpu_worker.domain.model import ModelCard
from gpu_worker.domain.work import (
    Assign,
    AttemptFailed,
    AttemptFinished,
    AttemptParked,
    AttemptResumed,
    AttemptStopped,
    Capacity,
    Malformed,
    ModelsChanged,
    Report,
    Running,
)
from gpu_worker.ports import Engine, Gallery
from gpu_worker.service.attempt import Attempt
from gpu_worker.service.outbox import Outbox
from gpu_worker.service.summary import gauge_held

_log = get_logger(__name__)

_OVERCOMMIT = 2
"""An assignment may cross with a capacity on the wire, so up to twice the slots are taken."""

_MOST_HELD = 3
"""Times the slots, with what is parked: that keeps its memory, and is no more than the slots."""


@dataclass(slots=True)
class _Held:
    attempt: Attempt
    task: asyncio.Task[None]


class Bench:
    """All running attempts; what they have to report goes to the outbox."""

    def __init__(
        self,
        engine: Engine,
        gallery: Gallery,
        outbox: Outbox,
        tasks: Supervisor,
        clock: Clock,
        *,
        slots: int,
        limits: Limits,
    ) -> None:
        """Starts empty; attempts run under `tasks`."""
        self._engine = engine
        self._gallery = gallery
        self._outbox = outbox
        self._tasks = tasks
        self._clock = clock
        self._slots = slots
        self._limits = limits
        self._held: dict[AttemptId, _Held] = {}
        self._announced: tuple[ModelCard, ...] = ()
        self.draining = False
        self.busy, self.idle = asyncio.Event(), asyncio.Event()
        """One of them is set: whether anything is held."""
        self.idle.set()

    @property
    def held(self) -> tuple[AttemptId, ...]:
        """Attempts that run, or whose reports nobody has confirmed."""
        return (*self._held, *self._outbox.unacknowledged)

    @property
    def parked(self) -> tuple[AttemptId, ...]:
        """Attempts that are set aside."""
        return tuple(key for key, held in self._held.items() if held.attempt.parked_at is not None)

    def running(self) -> tuple[Running, ...]:
        """What runs, for operators."""
        return tuple(held.attempt.running() for held in self._held.values())

    def take(self, work: Assign) -> None:
        """Begins an attempt, or hands it back where there is no room for it."""
        if work.attempt_id in self.held:
            _log.warning("attempt.repeated", attempt_id=work.attempt_id, job_id=work.job_id)
            return
        if self.draining or not self._has_room():
            _log.info("attempt.declined", attempt_id=work.attempt_id, job_id=work.job_id)
            self._outbox.hand_back(work.attempt_id)
            return
        attempt = Attempt(work, self._engine, self._gallery, self._clock, self._limits)
        task = self._tasks.start(f"attempt {work.attempt_id}", self._run(attempt), may_end=True)
        self._held[work.attempt_id] = _Held(attempt, task)
        self._measure()

    def refuse(self, work: Malformed) -> None:
        """Answers work that makes no sense, so that it is not sent again."""
        _log.error("attempt.refused", attempt_id=work.attempt_id, reason=work.reason)
        self._outbox.report(
            AttemptFailed(
                work.attempt_id, FailureKind.CALLER, "invalid_request", work.reason, steps_done=0
            )
        )

    def cancel(self, attempt_id: AttemptId) -> None:
        """Stops an attempt at its next step; one that has ended keeps its report."""
        held = self._held.get(attempt_id)
        if held is not None:
            held.attempt.cancel()

    def forget(self, attempt_id: AttemptId, *, accepted: bool) -> None:
        """The scheduler has the report, or wants none: then the attempt stops silently."""
        if not accepted:
            _log.info("attempt.superseded", attempt_id=attempt_id)
        self._outbox.forget(attempt_id)
        self._drop(attempt_id)
        self._measure()

    def park(self, attempt_id: AttemptId) -> None:
        """Sets an attempt aside at its next step; one that has ended has its report on its way.

        A worker that drains goes on with all it has, whatever was ordered before it said so.
        """
        held = self._held.get(attempt_id)
        if held is not None and not self.draining:
            self._tasks.start(f"park {attempt_id}", self._park(held), may_end=True)

    def resume(self, attempt_id: AttemptId) -> None:
        """Goes on with a parked attempt, slot or not; one that runs is said to."""
        held = self._held.get(attempt_id)
        if held is not None:
            self._tasks.start(f"resume {attempt_id}", self._resume(held), may_end=True)

    def reconnect(
        self,
        kept: Container[AttemptId],
        cancelled: Container[AttemptId],
        *,
        told_parked: Container[AttemptId] = (),
    ) -> None:
        """A new stream stands: drops what is not kept, says again what was not confirmed.

        Our greeting on it named those as parked which were parked when it was written.
        """
        self._outbox.restart(kept)
        self.announce_models()
        for attempt_id, held in tuple(self._held.items()):
            if attempt_id not in kept:
                self._drop(attempt_id)
                continue
            if attempt_id in cancelled:
                self.cancel(attempt_id)
            if (held.attempt.parked_at is not None) != (attempt_id in told_parked):
                self._tell_turn(held.attempt)
        self.announce_capacity()

    def models(self) -> tuple[ModelCard, ...]:
        """The catalogue, which whoever asks now passes on."""
        self._announced = self._engine.models()
        return self._announced

    def announce_models(self) -> None:
        """Says what the catalogue is, if it is not what was said last."""
        before = self._announced
        if self.models() != before:
            self._outbox.say(ModelsChanged(self._announced))

    def announce_capacity(self) -> None:
        """Says how many more attempts are welcome."""
        self._measure()
        free = 0 if self.draining else max(0, self._slots - self._at_work)
        self._outbox.say(Capacity(free, self.draining))

    def stop_taking(self) -> None:
        """From now on new work is handed back. Idempotent."""
        if not self.draining:
            self.draining = True
            _log.info("worker.draining", running=len(self._held))
            self.announce_capacity()

    async def finish(self, left_s: float) -> None:
        """Lets work end that can within `left_s` seconds, parked work too; hands the rest back."""
        self.stop_taking()
        for attempt_id, held in tuple(self._held.items()):
            if not held.attempt.fits(left_s):
                self._hand_back(held)
            elif held.attempt.parked_at is not None:
                self.resume(attempt_id)
        if self._held:
            await asyncio.wait([held.task for held in self._held.values()], timeout=left_s)
        for held in tuple(self._held.values()):
            self._hand_back(held)

    def _hand_back(self, held: _Held) -> None:
        self._outbox.hand_back(held.attempt.id)
        self._drop(held.attempt.id, "handed_back")

    def _drop(self, attempt_id: AttemptId, fate: str = "dropped") -> None:
        held = self._held.pop(attempt_id, None)
        if held is not None:
            held.task.cancel(fate)
            self.announce_capacity()

    @property
    def _at_work(self) -> int:
        return len(self._held) - len(self.parked)

    def _has_room(self) -> bool:
        return (
            self._at_work < _OVERCOMMIT * self._slots and len(self._held) < _MOST_HELD * self._slots
        )

    def _measure(self) -> None:
        gauge_held(running=self._at_work, parked=len(self.parked))
        now, before = (self.busy, self.idle) if self.held else (self.idle, self.busy)
        before.clear()
        now.set()

    def _holds(self, held: _Held) -> bool:
        return self._held.get(held.attempt.id) is held

    async def _park(self, held: _Held) -> None:
        attempt = held.attempt
        if await attempt.park() is None or not self._holds(held):
            return  # it has ended: its report says so
        if self.draining:
            await attempt.resume()
            return
        _log.info("attempt.parked", attempt_id=attempt.id, steps=attempt.parked_at)
        self._tell_turn(attempt)
        self.announce_capacity()

    async def _resume(self, held: _Held) -> None:
        attempt = held.attempt
        if await attempt.resume() and self._holds(held):
            _log.info("attempt.resumed", attempt_id=attempt.id)
            self._tell_turn(attempt)
            self.announce_capacity()

    def _tell_turn(self, attempt: Attempt) -> None:
        if attempt.parked_at is None:
            self._outbox.turn(AttemptResumed(attempt.id))
        else:
            self._outbox.turn(AttemptParked(attempt.id, attempt.parked_at))

    async def _run(self, attempt: Attempt) -> None:
        work = attempt.work
        structlog.contextvars.bind_contextvars(
            job_id=work.job_id, user_id=work.user_id, attempt_id=work.attempt_id
        )
        with span("attempt", traceparent=work.traceparent, job_id=work.job_id):
            _log.info(
                "attempt.started", model=work.generation.model_key, number=work.attempt_number
            )
            try:
                report = await self._report_of(attempt)
            except asyncio.CancelledError as dropped:
                _conclude(attempt, str(dropped) or "dropped")
                raise
            _conclude(attempt, _outcome(report))
        del self._held[attempt.id]
        self._outbox.report(report)
        self.announce_capacity()
        self.announce_models()

    async def _report_of(self, attempt: Attempt) -> Report:
        try:
            return await attempt.run(lambda progress: self._outbox.progress(attempt.id, progress))
        except Exception:  # noqa: BLE001 (an attempt's last supervisor: its neighbours go on)
            _log.exception("attempt.faulted")
            return AttemptFailed(
                attempt.id,
                FailureKind.TRANSIENT,
                "worker_error",
                "the worker failed unexpectedly",
                attempt.progress.step,
            )


def _conclude(attempt: Attempt, outcome: str) -> None:
    watch = attempt.watch
    attempt.summary.write(outcome, running_s=watch.running_s, parked_s=watch.paused_s)


def _outcome(report: Report) -> str:
    match report:
        case AttemptFinished():
            return "finished"
        case AttemptStopped():
            return "stopped"
        case AttemptFailed():
            return "failed"
