"""Who is next: start-time fair queueing at two levels, in plain Python.

The rules that `storage/lua` runs inside Redis, written for reading and as the oracle of its tests
(Goyal, Vin and Cheng: Start-time Fair Queueing, SIGCOMM 1996). Tiers share by weight, users of a
tier share evenly, a user's jobs keep their order. Tags are virtual time in cost (reference
GPU-milliseconds) over weight; both implementations do the same arithmetic in the same order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from easel_kit.ids import JobId, ModelKey, UserId

RETURN_CREDIT = 0.9
"""Part of its first job that a tier coming back from idling is given: enough to go next, too
little to gain by idling."""


@dataclass(frozen=True, slots=True)
class Share:
    """A user's numbers as the queue obeys them."""

    version: int
    priority: int
    weight: int
    max_running: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in line; a smaller `place` is earlier."""

    job_id: JobId
    user_id: UserId
    model_key: ModelKey
    cost_ms: int
    place: int


@dataclass(slots=True)
class _User:
    id: UserId
    share: Share
    finish: float = 0.0
    start: float | None = None
    """Start tag while in the tier's set: some job waits and fewer than the limit run."""
    turn: int = 0
    """When it entered the set; decides between equal tags."""
    waiting: dict[JobId, Waiting] = field(default_factory=dict)
    running: dict[JobId, Waiting] = field(default_factory=dict)

    def first(self, models: Collection[ModelKey] | None = None) -> Waiting | None:
        """Its earliest job among those of `models`, or of all."""
        jobs = [job for job in self.waiting.values() if models is None or job.model_key in models]
        return min(jobs, key=lambda job: job.place, default=None)


class FairQueue:
    """The line of one lane."""

    def __init__(self) -> None:
        """An empty line."""
        self._users: dict[UserId, _User] = {}
        self._jobs: dict[JobId, Waiting] = {}
        self._virtual = 0.0
        self._tier_start: dict[int, float] = {}
        self._tier_finish: dict[int, float] = {}
        self._tier_virtual: dict[int, float] = {}
        self._turns = 0

    def admit(self, job: Waiting, share: Share) -> None:
        """Puts a job in line; a job that is known changes nothing but the user's share."""
        user = self._entitle(job.user_id, share)
        if job.job_id not in self._jobs:
            self._jobs[job.job_id] = job
            user.waiting[job.job_id] = job
        self._refresh(user)

    def claim(self, models: Collection[ModelKey]) -> Waiting | None:
        """Takes the next job that a worker with `models` can draw, and counts it as running."""
        for priority in sorted(self._tier_start, key=lambda tier: (self._tier_start[tier], -tier)):
            ready = [user for user in self._active(priority) if user.first(models) is not None]
            if ready:
                user = min(ready, key=lambda one: (one.start, one.turn))
                job = user.first(models)
                assert job is not None  # noqa: S101 (ready users have one)
                self._dispatch(user, job)
                return job
        return None

    def requeue(self, job_id: JobId) -> None:
        """Puts a running job back at its old place."""
        job = self._jobs[job_id]
        user = self._users[job.user_id]
        del user.running[job_id]
        user.waiting[job_id] = job
        self._refresh(user)

    def remove(self, job_id: JobId) -> None:
        """Forgets a job, waiting or running; an unknown one is no error."""
        job = self._jobs.pop(job_id, None)
        if job is not None:
            user = self._users[job.user_id]
            user.waiting.pop(job_id, None)
            user.running.pop(job_id, None)
            self._refresh(user)

    def hold(self, job_id: JobId) -> bool:
        """Counts a waiting job as running outside its turn; False where the limit forbids it."""
        job = self._jobs[job_id]
        user = self._users[job.user_id]
        if len(user.running) >= user.share.max_running:
            return False
        del user.waiting[job_id]
        user.running[job_id] = job
        self._refresh(user)
        return True

    def running(self, user_id: UserId) -> int:
        """How many of the user's jobs run."""
        return len(self._users[user_id].running)

    def waiting(self) -> list[JobId]:
        """All jobs in line, in order of acceptance."""
        jobs = [job for user in self._users.values() for job in user.waiting.values()]
        return [job.job_id for job in sorted(jobs, key=lambda job: job.place)]

    def _active(self, priority: int) -> list[_User]:
        return [
            user
            for user in self._users.values()
            if user.share.priority == priority and user.start is not None
        ]

    def _entitle(self, user_id: UserId, share: Share) -> _User:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = _User(user_id, share)
        elif share.version >= user.share.version:
            if share.priority != user.share.priority:
                self._leave(user)
                user.finish = 0.0  # tags of one tier say nothing in another
            user.share = share
        return user

    def _refresh(self, user: _User) -> None:
        ready = bool(user.waiting) and len(user.running) < user.share.max_running
        if ready and user.start is None:
            self._enter(user)
        elif not ready:
            self._leave(user)

    def _enter(self, user: _User) -> None:
        priority = user.share.priority
        if priority not in self._tier_start:
            first = user.first()
            assert first is not None  # noqa: S101 (only users with a waiting job enter)
            credit = RETURN_CREDIT * first.cost_ms / user.share.weight
            self._tier_start[priority] = max(
                self._tier_finish.get(priority, 0.0), self._virtual - credit
            )
        self._turns += 1
        user.turn = self._turns
        user.start = max(user.finish, self._tier_virtual.get(priority, 0.0))

    def _leave(self, user: _User) -> None:
        if user.start is None:
            return
        user.start = None
        if not self._active(user.share.priority):
            del self._tier_start[user.share.priority]

    def _dispatch(self, user: _User, job: Waiting) -> None:
        priority = user.share.priority
        # A tier that no asking worker could serve for a while does not collect credit meanwhile.
        credit = RETURN_CREDIT * job.cost_ms / user.share.weight
        tier_start = max(self._tier_start[priority], self._virtual - credit)
        self._virtual = max(self._virtual, tier_start)
        tier_finish = tier_start + job.cost_ms / user.share.weight
        self._tier_start[priority] = self._tier_finish[priority] = tier_finish

        tier_virtual = self._tier_virtual.get(priority, 0.0)
        start = max(user.start or 0.0, tier_virtual)
        self._tier_virtual[priority] = start
        user.start = user.finish = start + job.cost_ms

        del user.waiting[job.job_id]
        user.running[job.job_id] = job
        self._refresh(user)
