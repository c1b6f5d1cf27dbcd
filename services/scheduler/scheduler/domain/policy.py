"""Who is next: start-time fair queueing at two levels, in plain Python.

The rules that `storage/lua` runs inside Redis, written for reading, for the simulator, and as the
oracle of the scripts' tests (Goyal, Vin and Cheng: Start-time Fair Queueing, SIGCOMM 1996). Tiers
share by weight, users of a tier share evenly, a user's jobs keep their order. Tags are virtual
time in cost (reference GPU-milliseconds) over weight; both implementations do the same arithmetic
in the same order. Every operation costs O((models + tiers) log n).

Charges: a job that is handed out moves the tags of its user and tier by its estimated cost. When
it ends, or is given back, they move by what it really cost (`domain.cost`) less what was charged,
so that each end (success, failure, cancel, loss, requeue) leaves the user charged for what ran,
as far as that is known. A refund never takes a tag below the virtual time of its level: nobody
gets more credit than a newcomer. A tier is charged over the weight that came with the job's own
user; two users may bring different weights for one priority while a plan changes.

Bounds, each a property in tests/fakes/scheduler_bounds.py: shares by weight; two busy users within
two of the largest jobs (and `AFFINITY_LEAD` where models differ), if the same workers serve both; a
job into a tier of which nothing waits or runs, above the busy ones, within two free slots; a fresh
user within 21 dispatches for each active one of the lowest tier; never more than the limit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from easel_kit.ids import JobId, ModelKey, UserId
from scheduler.domain.cost import actual_cost, averaged
from scheduler.domain.ranking import Ranking
from scheduler.domain.tiers import Charge, Share, Tier, User, Waiting

__all__ = ["AFFINITY_LEAD", "RETURN_CREDIT", "FairQueue", "Share", "Turn", "Waiting"]

RETURN_CREDIT = 0.9
"""Part of its first job that a tier coming back from idling is given: enough to go next, too
little to gain by idling."""

AFFINITY_LEAD = 2.0
"""How far a user with a loaded model may go before the one whose turn it is, in multiples of the
passed-over job's cost. It bounds both the lead in virtual time, so that two users stay as close
as before plus this, and the cost of all jobs that pass one user, so that a stream of newcomers
cannot starve it: at least a third of a tier's service goes strictly in turn. Enough in practice,
since a passed-over job waits for the next worker with its model, not for one machine."""


Turn = tuple[float, int]
"""A tier's start tag and its priority below zero: the lower turn comes first."""


class FairQueue:
    """The line of one lane."""

    def __init__(self) -> None:
        """An empty line."""
        self._users: dict[UserId, User] = {}
        self._tiers: dict[int, Tier] = {}
        self._jobs: dict[JobId, Waiting] = {}
        self._charges: dict[JobId, Charge] = {}
        self._virtual = 0.0
        self._entries = 0
        self._ms_per_cost: float | None = None

    def admit(self, job: Waiting, share: Share) -> None:
        """Puts a job in line; a job that is known changes nothing but the user's share."""
        user = self._entitle(job.user_id, share)
        if job.job_id not in self._jobs:
            self._jobs[job.job_id] = job
            self._put(user, job)
        self._refresh(user)

    def entitle(self, user_id: UserId, share: Share) -> None:
        """Numbers of the user's plan hold at once, also for the waiting jobs; older ones never."""
        self._refresh(self._entitle(user_id, share))

    def prepend(self, orders: Mapping[JobId, int]) -> None:
        """Gives jobs another order among those of their user; unknown ones are no error."""
        for job_id, order in orders.items():
            job = self._jobs.get(job_id)
            if job is None:
                continue
            job = self._jobs[job_id] = replace(job, order=order)
            line = self._users[job.user_id].lines.get(job.model_key)
            if line is not None and job_id in line:
                line.put(job_id, (order, job_id))

    def claim(
        self, models: Collection[ModelKey], *, loaded: Collection[ModelKey] = ()
    ) -> Waiting | None:
        """Takes the next job that a worker with `models` can draw, and counts it as running.

        Tiers by start tag, the higher priority first among equals; in the tier the user with the
        lowest start tag who has such a job; of that user the earliest. Where that job's model is
        not among the worker's `loaded` ones, a user whose next job's is may go first, within
        `AFFINITY_LEAD`.
        """
        able = [tier for tier in self._tiers.values() if tier.start is not None]
        for tier in sorted(able, key=lambda tier: (tier.start, -tier.priority)):
            heads = tier.heads(models)
            if heads:
                due = self._users[heads[0][1]]
                user, job = self._choose(tier, due, models, loaded)
                self._dispatch(tier, due, user, job)
                return job
        return None

    def next_up(self, models: Collection[ModelKey]) -> tuple[Waiting, Turn] | None:
        """The job that `claim` would take for a worker that has none of its models loaded."""
        able = [tier for tier in self._tiers.values() if tier.start is not None]
        for tier in sorted(able, key=lambda tier: (tier.start, -tier.priority)):
            heads = tier.heads(models)
            if heads:
                assert tier.start is not None  # noqa: S101 (it is able)
                due = self._users[heads[0][1]]
                return self._first(due, models), (tier.start, -tier.priority)
        return None

    def turn_of(self, job_id: JobId) -> Turn:
        """When a running job's tier is next, or would be if it came back for that job now."""
        job = self._jobs[job_id]
        share = self._users[job.user_id].share
        tier = self._tiers[share.priority]
        back = max(tier.finish, self._virtual - RETURN_CREDIT * job.cost_ms / share.weight)
        return (back if tier.start is None else tier.start, -share.priority)

    def requeue(self, job_id: JobId, *, done: float = 1.0, later: bool = False) -> None:
        """Puts a running job back at its old place; `done` of its steps, 0 to 1, had run.

        With `later` it is in no line until `release`.
        """
        job = self._jobs[job_id]
        user = self._users[job.user_id]
        user.running.remove(job_id)
        self._settle(user, job, job.cost_ms * done)
        if not later:
            self._put(user, job)
        self._refresh(user)

    def release(self, job_id: JobId) -> None:
        """Puts a job in line that was put back for later."""
        job = self._jobs[job_id]
        user = self._users[job.user_id]
        self._put(user, job)
        self._refresh(user)

    def remove(self, job_id: JobId, *, took_ms: int | None = None, done: float = 1.0) -> None:
        """Forgets a job, waiting or running; an unknown one is no error.

        See `domain.cost.actual_cost` for `took_ms` and `done` of its attempt; an attempt may also
        succeed after its job was put back in line.
        """
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        user = self._users[job.user_id]
        ran = job_id in user.running
        if ran:
            user.running.remove(job_id)
        else:
            self._take(user, job)
        if ran or (took_ms is not None and job_id in self._charges):
            actual = actual_cost(
                job.cost_ms, took_ms=took_ms, done=done, ms_per_cost=self._ms_per_cost
            )
            self._settle(user, job, actual)
        self._charges.pop(job_id, None)
        if took_ms:
            self._ms_per_cost = averaged(self._ms_per_cost, took_ms / job.cost_ms)
        self._refresh(user)

    def forget(self, user_id: UserId) -> None:
        """Forgets a user of whom no job waits, runs or is put back for later."""
        self._users.pop(user_id, None)

    def hold(self, job_id: JobId, share: Share | None = None) -> bool:
        """Counts a waiting job as running outside its turn; False where the limit forbids it.

        What it has not been charged yet is charged when it ends.
        """
        job = self._jobs[job_id]
        user = self._entitle(job.user_id, share or self._users[job.user_id].share)
        may_run = len(user.running) < user.share.max_running
        if may_run:
            self._take(user, job)
            self._run(user, job)
        self._refresh(user)
        return may_run

    def restore(self, job: Waiting, share: Share, *, forced: bool = False) -> bool:
        """Takes in an unknown job of which an attempt runs already; else as `hold`.

        With `forced` also above the limit: the lease was granted before the limit was lowered.
        """
        user = self._entitle(job.user_id, share)
        may_run = forced or len(user.running) < user.share.max_running
        if may_run:
            self._jobs[job.job_id] = job
            self._run(user, job)
        self._refresh(user)
        return may_run

    def running(self, user_id: UserId) -> int:
        """How many of the user's jobs run."""
        return len(self._users[user_id].running)

    def priority(self, user_id: UserId) -> int:
        """The user's tier."""
        return self._users[user_id].share.priority

    def waiting(self) -> list[JobId]:
        """All jobs in line, by order."""
        lines = [line for user in self._users.values() for line in user.lines.values()]
        jobs = [self._jobs[job_id] for line in lines for job_id in line]
        return [job.job_id for job in sorted(jobs, key=lambda job: (job.order, job.job_id))]

    def _run(self, user: User, job: Waiting) -> None:
        user.running.add(job.job_id)
        self._charges.setdefault(job.job_id, Charge(user.share.priority, user.share.weight, 0))

    def _entitle(self, user_id: UserId, share: Share) -> User:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = User(user_id, share)
            self._tiers.setdefault(share.priority, Tier(share.priority))
        elif share.version >= user.share.version:
            if share.priority != user.share.priority:
                self._leave(user)
                user.finish = 0.0  # tags of one tier say nothing in another
                self._tiers.setdefault(share.priority, Tier(share.priority))
            user.share = share
        return user

    def _put(self, user: User, job: Waiting) -> None:
        line = user.lines.setdefault(job.model_key, Ranking())
        line.put(job.job_id, (job.order, job.job_id))
        if user.start is not None:
            self._rank(user, job.model_key)

    def _take(self, user: User, job: Waiting) -> None:
        line = user.lines.get(job.model_key)
        if line is None:
            return
        line.drop(job.job_id)
        if not line:
            del user.lines[job.model_key]
            if user.start is not None:
                self._unrank(user, job.model_key)

    def _rank(self, user: User, model: ModelKey) -> None:
        line = self._tiers[user.share.priority].lines.setdefault(model, Ranking())
        assert user.start is not None  # noqa: S101 (only users in the set are ranked)
        line.put(user.id, (user.start, user.entry))

    def _unrank(self, user: User, model: ModelKey) -> None:
        lines = self._tiers[user.share.priority].lines
        lines[model].drop(user.id)
        if not lines[model]:
            del lines[model]

    def _refresh(self, user: User) -> None:
        ready = bool(user.lines) and len(user.running) < user.share.max_running
        if ready and user.start is None:
            self._enter(user)
        elif not ready:
            self._leave(user)

    def _enter(self, user: User) -> None:
        tier = self._tiers[user.share.priority]
        if tier.start is None:
            first = user.first(user.lines)
            assert first is not None  # noqa: S101 (only users with a waiting job enter)
            credit = RETURN_CREDIT * self._jobs[first].cost_ms / user.share.weight
            tier.start = max(tier.finish, self._virtual - credit)
        tier.users += 1
        self._entries += 1
        user.entry = self._entries
        user.passed = 0
        user.start = max(user.finish, tier.virtual)
        for model in user.lines:
            self._rank(user, model)

    def _leave(self, user: User) -> None:
        if user.start is None:
            return
        for model in user.lines:
            self._unrank(user, model)
        user.start = None
        tier = self._tiers[user.share.priority]
        tier.users -= 1
        if tier.users == 0:
            tier.start = None

    def _choose(
        self,
        tier: Tier,
        due: User,
        models: Collection[ModelKey],
        loaded: Collection[ModelKey],
    ) -> tuple[User, Waiting]:
        """The user to serve, and the job: `due`, or one with a loaded model within the lead."""
        job = self._first(due, models)
        loaded = [model for model in loaded if model in models]
        if not loaded or job.model_key in loaded:
            return due, job
        lead = AFFINITY_LEAD * job.cost_ms
        assert due.start is not None  # noqa: S101 (it is in the tier's set)
        for (start, _), user_id in tier.heads(loaded):
            if start > due.start + lead:
                break
            other = self._users[user_id]
            theirs = self._first(other, models)
            if theirs.model_key in loaded and due.passed + theirs.cost_ms <= lead:
                due.passed += theirs.cost_ms
                return other, theirs
        return due, job

    def _first(self, user: User, models: Collection[ModelKey]) -> Waiting:
        first = user.first(models)
        assert first is not None  # noqa: S101 (a head of these models has a job of them)
        return self._jobs[first]

    def _dispatch(self, tier: Tier, due: User, user: User, job: Waiting) -> None:
        weight = user.share.weight
        assert tier.start is not None  # noqa: S101 (it has a user who may start a job)
        # A tier that no asking worker could serve for a while does not collect credit meanwhile.
        start = max(tier.start, self._virtual - RETURN_CREDIT * job.cost_ms / weight)
        self._virtual = max(self._virtual, start)
        tier.start = tier.finish = start + job.cost_ms / weight

        # The tier's time is that of the user whose turn it is, who loses nothing by waiting.
        tier.virtual = max(tier.virtual, due.start or 0.0)
        user.start = user.finish = max(user.start or 0.0, tier.virtual) + job.cost_ms
        user.passed = 0

        self._take(user, job)
        user.running.add(job.job_id)
        self._charges[job.job_id] = Charge(tier.priority, weight, job.cost_ms)
        for model in user.lines:
            self._rank(user, model)
        self._refresh(user)

    def _settle(self, user: User, job: Waiting, actual: float) -> None:
        """Charges what the job's latest attempt cost instead of what it was charged."""
        charge = self._charges[job.job_id]
        self._charges[job.job_id] = replace(charge, cost_ms=actual)
        change = actual - charge.cost_ms
        tier = self._tiers[charge.priority]
        tier.finish = _moved(tier.finish, change / charge.weight, self._virtual)
        if tier.start is not None:
            tier.start = _moved(tier.start, change / charge.weight, self._virtual)
        if user.share.priority != charge.priority:
            return
        user.finish = _moved(user.finish, change, tier.virtual)
        if user.start is not None:
            user.start = _moved(user.start, change, tier.virtual)
            for model in user.lines:
                self._rank(user, model)


def _moved(tag: float, change: float, virtual: float) -> float:
    return max(tag + change, min(tag, virtual))
