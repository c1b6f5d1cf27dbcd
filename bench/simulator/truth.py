"""The truth: what Postgres holds. Each method is one transaction, and survives every fault.

Rules about an attempt's end are the scheduler's own (`scheduler.domain.lease.judge`); the rows
around them follow `scheduler.storage.{submits,attempts,settlement}`. While the database is away
every method raises `DependencyDown`, and has done nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from math import inf

from bench.simulator.kernel import Kernel, Life
from bench.simulator.observer import Observer
from bench.simulator.people import Admission, Order, Person, Row, Try
from easel_kit.errors import DependencyDown
from easel_kit.ids import JobId, UserId
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import JobState
from scheduler.domain.lease import COUNTED, Claim, Outcome, Report, Standing, Verdict, judge
from scheduler.domain.policy import Waiting

_BACKOFF = Backoff(base_s=2.0, cap_s=60.0)
_LUCK = 0.5


class Truth:
    """Jobs, attempts, and how many jobs each user has open."""

    def __init__(
        self, kernel: Kernel, observer: Observer, *, max_attempts: int = 3, kept_s: float = inf
    ) -> None:
        """No jobs yet.

        Args:
            kernel: the clock.
            observer: hears what changes.
            max_attempts: tries that count, after which a job fails.
            kept_s: how long a job is kept after its end.
        """
        self.up = True
        self.rows: dict[JobId, Row] = {}
        self.open: dict[JobId, Row] = {}
        self.open_count: Counter[UserId] = Counter()
        self._kernel = kernel
        self._observer = observer
        self._max_attempts = max_attempts
        self._place = 0
        self._kept_s = kept_s
        self._ended: deque[tuple[float, JobId]] = deque()
        self._lock: Life | None = None

    def submit(self, person: Person, orders: Sequence[Order]) -> list[Row] | None:
        """Accepts all jobs or none (None); known ones are answered as they stand."""
        self._ask()
        new = [order for order in orders if order.job_id not in self.rows]
        if new and self.open_count[person.id] + len(new) > person.plan.max_open:
            self._observer.refused(person, new)
            return None
        self.open_count[person.id] += len(new)
        for order in new:
            self._insert(person, order)
        return [self.rows[order.job_id] for order in orders]

    def _insert(self, person: Person, order: Order) -> None:
        self._place += 1
        now_s = self._kernel.now
        row = Row(
            Waiting(order.job_id, person.id, order.model_key, order.cost_ms, self._place),
            person,
            self._place,
            order.took_ms,
            now_s,
            now_s + person.plan.queue_time_s,
        )
        self.rows[order.job_id] = self.open[order.job_id] = row
        self._observer.accepted(row)

    def record(self, claim: Claim, *, revive: bool = False) -> bool:
        """Writes a claim down; False when its job has ended.

        Args:
            claim: a lease that was given.
            revive: an attempt that was given up lives again.
        """
        self._ask()
        row = self.open.get(claim.job_id)
        if row is None:
            return False
        tried = row.tries.setdefault(claim.attempt_id, Try(claim))
        if revive and tried.outcome in {Outcome.LOST, Outcome.FORGOTTEN}:
            tried.outcome, tried.counted = None, False
        if tried.outcome is None and claim.number >= row.number:
            row.number, row.attempt_id = claim.number, claim.attempt_id
            self._move(row, JobState.RUNNING)
        return True

    def settle(self, report: Report) -> tuple[JobState | None, float]:
        """Decides what an attempt's end means; answers the job's state and when it may go on."""
        self._ask()
        claim = report.claim
        row = self.rows.get(claim.job_id)
        if row is None:
            return None, 0.0
        tried = row.tries.setdefault(claim.attempt_id, Try(claim))
        verdict = self.decide(row, tried, report)
        if tried.outcome is None:
            tried.outcome = report.outcome
            tried.counted = verdict.state is not None and report.outcome in COUNTED
        if verdict.state is not None:
            row.attempt_id = claim.attempt_id
            row.number = max(row.number, claim.number)
            if verdict.pause:
                failures = sum(one.counted for one in row.tries.values())
                row.not_before_s = self._kernel.now + _BACKOFF.delay_s(failures, _LUCK)
            if verdict.state is JobState.SUCCEEDED:
                self._observer.won(row, claim.attempt_id)
            self._move(row, verdict.state)
        return row.state, row.not_before_s

    def decide(self, row: Row, tried: Try, report: Report) -> Verdict:
        """The scheduler's own rule, asked about this row."""
        attempt_id = report.claim.attempt_id
        latest = attempt_id == row.attempt_id or tried.claim.number > row.number
        standing = Standing(
            state=row.state,
            cancel_requested=row.cancel_requested,
            is_current=tried.outcome is None and latest,
            failures=sum(one.counted for one in row.tries.values()),
        )
        return judge(standing, report, max_attempts=self._max_attempts)

    def expire_waiting(self, job_ids: Iterable[JobId]) -> list[JobId]:
        """Fails those of the jobs that no worker started in time; answers which."""
        self._ask()
        late = []
        for job_id in job_ids:
            row = self.open.get(job_id)
            if (
                row is not None
                and row.state is JobState.QUEUED
                and not row.number
                and row.start_by_s <= self._kernel.now
            ):
                self._move(row, JobState.FAILED)
                late.append(job_id)
        return late

    def cancel(self, job_id: JobId) -> bool:
        """Ends a waiting job, marks a running one; says whether it has ended."""
        self._ask()
        row = self.rows[job_id]
        if row.state is JobState.QUEUED:
            self._move(row, JobState.CANCELLED)
        elif not row.state.ended:
            row.cancel_requested = True
        return row.state.ended

    def still_open(self, job_ids: Collection[JobId]) -> dict[JobId, Row]:
        """Those of the jobs that have not ended."""
        self._ask()
        return {job_id: self.open[job_id] for job_id in job_ids if job_id in self.open}

    def page(self, state: JobState, *, after: int, limit: int) -> list[Admission]:
        """Open jobs in this state with a place above `after`, by place."""
        self._ask()
        found: list[Admission] = []
        for row in self.open.values():  # by place: jobs enter in this order and never return
            if row.place > after and row.state is state:
                found.append(row.admission())
                if len(found) == limit:
                    break
        return found

    def knows(self, claim: Claim) -> bool:
        """Whether the claim was written down and its job is open."""
        self._ask()
        row = self.open.get(claim.job_id)
        return row is not None and claim.attempt_id in row.tries

    def stop_requests(self) -> list[JobId]:
        """Running jobs that were asked to stop."""
        self._ask()
        return [
            row.job_id
            for row in self.open.values()
            if row.cancel_requested and row.state is JobState.RUNNING
        ]

    def lock(self, life: Life) -> bool:
        """Takes the advisory lock for a life; one that is over holds it no more."""
        self._ask()
        if self._lock is not None and self._lock is not life and self._lock.alive:
            return False
        self._lock = life
        return True

    def unlock(self, life: Life) -> None:
        """Lets the lock go, where that life holds it."""
        if self._lock is life:
            self._lock = None

    def _ask(self) -> None:
        if not self.up:
            raise DependencyDown("the database is away")

    def _move(self, row: Row, state: JobState) -> None:
        old, row.state = row.state, state
        if state.ended:
            del self.open[row.job_id]
            self.open_count[row.person.id] -= 1
            self._ended.append((self._kernel.now + self._kept_s, row.job_id))
            while self._ended[0][0] <= self._kernel.now:
                del self.rows[self._ended.popleft()[1]]
        self._observer.moved(row, old)
