"""Which running attempt is set aside for a job of a higher priority, and when it goes on.

The rules that `storage/lua/parking.lua` runs inside Redis, written for reading, for the queue in
memory and as the oracle of its tests.

A worker sets an attempt aside at a step boundary, keeps its progress and gives its slot to other
work. That is asked for where a job waits that would be given the slot next, comes before the
attempt by its tier's turn and has the higher priority, while no worker with its model has room. Of
the attempts on workers with the same models the one goes first that has the lowest priority, was
parked for the shortest time, and was started last. For a job one attempt is set aside at a time.

The attempt goes on at a free slot of its worker when its tier's turn comes no later than that of
the job that is next there, and after `max_s` in any case, slot or not. So a tier that has had more
than its share is set aside and one that has not goes on; and an attempt that is parked at most
`max_times` is delayed by at most `max_s * max_times`, whatever others do.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from easel_kit.ids import AttemptId, JobId, ModelKey, WorkerId
from scheduler.domain.policy import FairQueue, Turn


@dataclass(frozen=True, slots=True)
class Parking:
    """How long an attempt may be parked at a time, and how often."""

    max_s: float
    max_times: int


class SeatState(StrEnum):
    """Where an attempt is between running and parked; the middle two wait for the worker's word."""

    RUNNING = "running"
    PARKING = "parking"
    PARKED = "parked"
    RESUMING = "resuming"


@dataclass(slots=True)
class Seat:
    """An attempt that a worker holds; `priority` is its user's of when it was lent."""

    attempt_id: AttemptId
    job_id: JobId
    priority: int
    at_ms: int
    state: SeatState = SeatState.RUNNING
    parks: int = 0
    parked_ms: int = 0
    """In all, until it last went on."""
    parked_at_ms: int = 0

    @property
    def order(self) -> tuple[int, int, int, AttemptId]:
        """The lowest is set aside first."""
        return (self.priority, self.parked_ms, -self.at_ms, self.attempt_id)

    @property
    def is_aside(self) -> bool:
        """It is parked, or about to be."""
        return self.state in {SeatState.PARKING, SeatState.PARKED}


@dataclass(slots=True)
class Host:
    """A worker and what it holds; `models` are those that it can draw with."""

    id: WorkerId
    models: frozenset[ModelKey] = frozenset()
    slots: int = 0
    can_park: bool = False
    """It is connected, does not drain, and knows how."""
    idle: bool = False
    """It has asked for work and got less than it has room for."""
    seats: dict[AttemptId, Seat] = field(default_factory=dict)

    @property
    def aside(self) -> list[Seat]:
        """What is parked, or about to be."""
        return [seat for seat in self.seats.values() if seat.is_aside]

    @property
    def room(self) -> int:
        """Slots that no attempt takes up."""
        parked = sum(seat.state is SeatState.PARKED for seat in self.seats.values())
        return self.slots - len(self.seats) + parked


class Seats:
    """All workers of a lane and what they hold."""

    def __init__(self, queue: FairQueue, parking: Parking) -> None:
        """`queue` says whose turn it is."""
        self._hosts: dict[WorkerId, Host] = {}
        self._queue = queue
        self._parking = parking
        self._victims: dict[JobId, AttemptId] = {}

    def host(self, worker_id: WorkerId) -> Host:
        """The worker; one that is not connected has no models and no slots."""
        return self._hosts.setdefault(worker_id, Host(worker_id))

    def leave(self, worker_id: WorkerId) -> None:
        """The worker is no longer connected; what it held is its until that is taken away."""
        self._hosts[worker_id] = Host(worker_id, seats=self.host(worker_id).seats)

    def seat(self, attempt_id: AttemptId) -> Seat | None:
        """The attempt, where some worker holds it."""
        held = (host.seats.get(attempt_id) for host in self._hosts.values())
        return next((seat for seat in held if seat is not None), None)

    def end(self, attempt_id: AttemptId) -> None:
        """No worker holds the attempt any more."""
        for host in self._hosts.values():
            host.seats.pop(attempt_id, None)

    def preempt(self) -> list[tuple[WorkerId, AttemptId]]:
        """Names attempts to be set aside: at most one for each set of models that workers have."""
        best: dict[frozenset[ModelKey], tuple[Seat, Host]] = {}
        for host in self._hosts.values():
            for seat in self._candidates(host):
                known = best.get(host.models)
                if known is None or seat.order < known[0].order:
                    best[host.models] = (seat, host)
        named = []
        for seat, host in sorted(best.values(), key=lambda one: one[0].order):
            if self._gives_way(seat, host):
                seat.state = SeatState.PARKING
                named.append((host.id, seat.attempt_id))
        return named

    def _candidates(self, host: Host) -> list[Seat]:
        if not host.can_park or len(host.aside) >= host.slots:
            return []
        return [
            seat
            for seat in host.seats.values()
            if seat.state is SeatState.RUNNING and seat.parks < self._parking.max_times
        ]

    def _gives_way(self, seat: Seat, host: Host) -> bool:
        found = self._queue.next_up(host.models)
        if found is None:
            return False
        job, turn = found
        if (
            -turn[1] <= seat.priority
            or turn >= self._queue.turn_of(seat.job_id)
            or self._has_victim(job.job_id)
            or any(other.idle and job.model_key in other.models for other in self._hosts.values())
        ):
            return False
        self._victims[job.job_id] = seat.attempt_id
        return True

    def _has_victim(self, job_id: JobId) -> bool:
        named = self._victims.get(job_id)
        seat = self.seat(named) if named is not None else None
        return seat is not None and seat.is_aside

    def resume_next(
        self, worker_id: WorkerId, models: Collection[ModelKey], now_ms: int
    ) -> AttemptId | None:
        """The worker has a free slot: the attempt of it to go on with, if one comes first."""
        parked = [
            seat for seat in self.host(worker_id).seats.values() if seat.state is SeatState.PARKED
        ]
        if not parked:
            return None
        seat = min(
            parked,
            key=lambda one: (self._queue.turn_of(one.job_id), one.parked_at_ms, one.attempt_id),
        )
        found = self._queue.next_up(models)
        if found is not None and found[1] < self._queue.turn_of(seat.job_id):
            return None
        self._resume(seat, now_ms)
        return seat.attempt_id

    def _resume_order(self, seat: Seat) -> tuple[Turn, int, AttemptId]:
        return (self._queue.turn_of(seat.job_id), seat.parked_at_ms, seat.attempt_id)

    def resume_overdue(self, now_ms: int) -> list[tuple[WorkerId, AttemptId]]:
        """Attempts to go on with in any case."""
        resumed = []
        for host in self._hosts.values():
            for seat in host.seats.values():
                due_ms = seat.parked_at_ms + self._parking.max_s * 1000
                if seat.state is SeatState.PARKED and due_ms <= now_ms:
                    self._resume(seat, now_ms)
                    resumed.append((host.id, seat.attempt_id))
        return resumed

    def _resume(self, seat: Seat, now_ms: int) -> None:
        seat.parked_ms += max(0, now_ms - seat.parked_at_ms)
        seat.state = SeatState.RESUMING

    def is_parked(self, seat: Seat, now_ms: int) -> None:
        """The worker says that it has set the attempt aside."""
        if seat.state in {SeatState.RUNNING, SeatState.PARKING}:
            seat.state, seat.parked_at_ms = SeatState.PARKED, now_ms
            seat.parks += 1

    def is_running(self, seat: Seat, now_ms: int) -> None:
        """The worker says that it works on the attempt; it may still be about to set it aside."""
        if seat.state is SeatState.PARKED:
            seat.parked_ms += max(0, now_ms - seat.parked_at_ms)
        if seat.state in {SeatState.PARKED, SeatState.RESUMING}:
            seat.state = SeatState.RUNNING
