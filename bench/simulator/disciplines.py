"""Who is next: Easel's own policy, and three others to set beside it.

The others keep the same books (a user's jobs in order, a limit of running jobs, no scan past users
who are at it); they differ only in the key by which a user's first job is ordered.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from easel_kit.ids import JobId, ModelKey, UserId
from scheduler.domain.policy import FairQueue, Share, Waiting


class Discipline(Protocol):
    """What the line asks of a policy; `FairQueue` is one."""

    def admit(self, job: Waiting, share: Share) -> None:
        """Puts a job in line; a known one changes nothing but the user's share."""
        ...

    def claim(
        self, models: Collection[ModelKey], *, loaded: Collection[ModelKey] = ()
    ) -> Waiting | None:
        """Takes the next job that a worker with `models` can draw, `loaded` ones preferred."""
        ...

    def requeue(self, job_id: JobId, *, done: float = 1.0, later: bool = False) -> None:
        """Puts a running job back at its old place; with `later` in no line until `release`."""
        ...

    def release(self, job_id: JobId) -> None:
        """Puts a job in line that was put back for later."""
        ...

    def remove(self, job_id: JobId, *, took_ms: int | None = None, done: float = 1.0) -> None:
        """Forgets a job, which took so long where it ran to its end; unknown ones are no error."""
        ...

    def hold(self, job_id: JobId) -> bool:
        """Counts a waiting job as running outside its turn; False where the limit forbids it."""
        ...


@dataclass(slots=True)
class _User:
    id: UserId
    share: Share
    waiting: list[tuple[int, JobId]] = field(default_factory=list)
    """A heap by order; jobs that were removed stay until they come up."""
    running: set[JobId] = field(default_factory=set)
    served: int = 0
    """When it was last served, as a count of claims."""
    ticket: int = 0
    """The one entry of the line that stands for this user."""


Key = Callable[[_User, Waiting], tuple[int, ...]]


class KeyedLine:
    """Users by a key of their first job; the lowest goes next."""

    def __init__(self, key: Key) -> None:
        """An empty line."""
        self._key = key
        self._users: dict[UserId, _User] = {}
        self._waiting: dict[JobId, Waiting] = {}
        self._jobs: dict[JobId, Waiting] = {}
        self._line: list[tuple[tuple[int, ...], int, _User]] = []
        self._tickets = count(1)
        self._claims = 0

    def admit(self, job: Waiting, share: Share) -> None:
        """See `Discipline`."""
        user = self._users.get(job.user_id)
        if user is None:
            user = self._users[job.user_id] = _User(job.user_id, share)
        elif share.version >= user.share.version:
            user.share = share
        if job.job_id not in self._jobs:
            self._jobs[job.job_id] = job
            self._put(user, job)
        self._enter(user)

    def claim(
        self,
        models: Collection[ModelKey],
        *,
        loaded: Collection[ModelKey] = (),  # noqa: ARG002
    ) -> Waiting | None:
        """See `Discipline`."""
        passed: list[_User] = []
        found = None
        while self._line and found is None:
            _, ticket, user = heapq.heappop(self._line)
            if ticket != user.ticket:
                continue
            found = self._first(user, models)
            if found is None:
                passed.append(user)
                continue
            self._claims += 1
            user.served = self._claims
            self._run(user, found)
        for user in passed:
            self._enter(user)
        return found

    def requeue(self, job_id: JobId, *, done: float = 1.0, later: bool = False) -> None:  # noqa: ARG002
        """See `Discipline`."""
        user = self._users[self._jobs[job_id].user_id]
        user.running.discard(job_id)
        if not later:
            self._put(user, self._jobs[job_id])
        self._enter(user)

    def release(self, job_id: JobId) -> None:
        """See `Discipline`."""
        user = self._users[self._jobs[job_id].user_id]
        self._put(user, self._jobs[job_id])
        self._enter(user)

    def remove(self, job_id: JobId, *, took_ms: int | None = None, done: float = 1.0) -> None:  # noqa: ARG002
        """See `Discipline`."""
        job = self._jobs.pop(job_id, None)
        if job is not None:
            user = self._users[job.user_id]
            self._waiting.pop(job_id, None)
            user.running.discard(job_id)
            self._enter(user)

    def hold(self, job_id: JobId) -> bool:
        """See `Discipline`."""
        user = self._users[self._jobs[job_id].user_id]
        if len(user.running) >= user.share.max_running:
            return False
        self._run(user, self._jobs[job_id])
        return True

    def _put(self, user: _User, job: Waiting) -> None:
        self._waiting[job.job_id] = job
        heapq.heappush(user.waiting, (job.order, job.job_id))

    def _run(self, user: _User, job: Waiting) -> None:
        self._waiting.pop(job.job_id, None)
        user.running.add(job.job_id)
        self._enter(user)

    def _enter(self, user: _User) -> None:
        """Gives the user its one entry, where it may start a job."""
        user.ticket = 0
        first = self._first(user, None)
        if first is not None and len(user.running) < user.share.max_running:
            user.ticket = next(self._tickets)
            heapq.heappush(self._line, (self._key(user, first), user.ticket, user))

    def _first(self, user: _User, models: Collection[ModelKey] | None) -> Waiting | None:
        while user.waiting and user.waiting[0][1] not in self._waiting:
            heapq.heappop(user.waiting)
        if not user.waiting:
            return None
        first = self._waiting[user.waiting[0][1]]
        if models is None or first.model_key in models:
            return first
        able = (
            self._waiting[job_id]
            for _, job_id in user.waiting
            if job_id in self._waiting and self._waiting[job_id].model_key in models
        )
        return min(able, key=lambda job: job.order, default=None)


def _by_arrival(_user: _User, first: Waiting) -> tuple[int, ...]:
    return (first.order,)


def _by_priority(user: _User, first: Waiting) -> tuple[int, ...]:
    return (-user.share.priority, first.order)


def _by_turn(user: _User, first: Waiting) -> tuple[int, ...]:
    return (user.served, first.order)


DISCIPLINES: dict[str, Callable[[], Discipline]] = {
    "easel": FairQueue,
    "fifo": lambda: KeyedLine(_by_arrival),
    "priority": lambda: KeyedLine(_by_priority),
    "round-robin": lambda: KeyedLine(_by_turn),
}
"""By the name that the command line uses."""
