"""Hand-made histories: a sound one, told step by step, in which a test can plant a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from tests.chaos.history import History
from tests.chaos.records import (
    Ack,
    AttemptRow,
    Back,
    Cancel,
    Count,
    Done,
    EventRow,
    JobRow,
    Kill,
    Outcome,
    Plan,
    Record,
    Report,
    Resolve,
    ResultRow,
    Run,
    Sample,
    Seen,
    Start,
    Submit,
    TombstoneRow,
)

ALICE, BOB = "alice", "bob"
PIDS = {"w1": 11, "w2": 12, "w3": 13}
_Kind = TypeVar("_Kind", bound=Record)


@dataclass
class Story:
    """Records in the order in which they were told."""

    records: list[Record] = field(default_factory=list)
    places: int = 0
    sequence: int = 0
    kills: int = 0

    def add(self, *records: Record) -> None:
        self.records.extend(records)

    def history(self) -> History:
        return History(self.records)

    # --- a fault is planted by changing, dropping or adding records

    def change(self, kind: type[_Kind], which: Callable[[_Kind], bool], **values: object) -> None:
        """Changes those records; there must be one at least."""
        found = [one for one in self.records if isinstance(one, kind) and which(one)]
        assert found
        self.records = [
            replace(one, **values) if one in found else one  # type: ignore[arg-type]
            for one in self.records
        ]

    def drop(self, kind: type[_Kind], which: Callable[[_Kind], bool]) -> None:
        """Leaves those records out; there must be one at least."""
        left = [one for one in self.records if not (isinstance(one, kind) and which(one))]
        assert len(left) < len(self.records)
        self.records = left

    # --- what happens

    def submit(self, job: str, user: str, at: float) -> None:
        self.places += 1
        self.add(Submit(at, at + 0.01, user, [job], "accepted"))
        self.add(JobRow(99, job, user, "m", "queued", self.places, 0, "", "", front=False))
        self.event(at + 0.005, job, user, "queued")

    def event(self, at: float, job: str, user: str, kind: str, attempt: str = "") -> None:
        self.sequence += 1
        cursor = [1, 700 + self.sequence, self.sequence]
        self.add(
            EventRow(99, cursor, kind, job), Seen(at, "c", cursor, kind, job, user, attempt, "")
        )

    def start(
        self, attempt: str, job: str, user: str, worker: str, at: float, *, n: int = 1
    ) -> None:
        self.add(
            Start(at + 0.002, worker, PIDS[worker], attempt, job, user, n),
            AttemptRow(99, attempt, job, worker, n, at, None, "", counted=False),
        )

    def finish(self, attempt: str, outcome: Outcome, at: float, code: str = "") -> None:
        """Its worker reports it, is acknowledged, and the job ends so where it ends."""
        start = self.begun(attempt)
        self.add(
            Report(at, start.worker, start.pid, attempt, outcome, code),
            Ack(at + 0.02, start.worker, start.pid, attempt, accepted=True),
        )
        self.ends(attempt, outcome, at + 0.01, counted=outcome == "failed")
        if outcome == "succeeded":
            self.add(ResultRow(99, start.job, attempt))
        state = {"succeeded": "succeeded", "refused": "failed", "stopped": "cancelled"}.get(outcome)
        if state is not None:
            self.job_ends(start.job, state, at + 0.015, code, attempt)

    def loses(self, attempt: str, at: float) -> None:
        """Its worker was lost."""
        self.ends(attempt, "lost", at, counted=True)

    def begun(self, attempt: str) -> Start:
        return next(
            one for one in self.records if isinstance(one, Start) and one.attempt == attempt
        )

    def ends(self, attempt: str, outcome: str, at: float, *, counted: bool) -> None:
        self.change(
            AttemptRow,
            lambda row: row.attempt == attempt,
            ended_at=at,
            outcome=outcome,
            counted=counted,
        )

    def job_ends(self, job: str, state: str, at: float, code: str = "", attempt: str = "") -> None:
        self.change(
            JobRow, lambda row: row.job == job, state=state, code=code, attempt=attempt, attempts=1
        )
        user = next(one.user for one in self.records if isinstance(one, JobRow) and one.job == job)
        self.event(at, job, user, state, attempt if state == "succeeded" else "")

    def kill(
        self,
        what: Literal["worker", "hang", "redis", "scheduler"],
        name: str,
        at: float,
        back: float,
    ) -> None:
        self.kills += 1
        self.add(
            Kill(at, self.kills, what, name, PIDS.get(name, 1)),
            Back(back, self.kills, what, name),
        )
        self.change(Run, lambda _: True, kills=self.kills)


def sound_story() -> Story:
    """Everything that may happen, done right. Alice may run one job, Bob two."""
    story = Story()
    story.add(Run(0, 1, 0, 2.0, 3), Plan(0, ALICE, "free", 1, 2), Plan(0, BOB, "pro", 2, 9))
    # two of Alice's, one after the other; the second one's worker dies and another takes it over
    story.submit("j1", ALICE, 1.0)
    story.submit("j2", ALICE, 1.1)
    story.start("a1", "j1", ALICE, "w1", 1.2)
    story.add(Sample(1.3, {ALICE: 1}, {ALICE: 1}, 1, 2), Count(1.3, {}, 2))
    story.finish("a1", "succeeded", 1.5)
    story.start("a2", "j2", ALICE, "w1", 1.6)
    story.kill("worker", "w1", 1.7, 2.5)
    story.loses("a2", 1.9)
    story.start("a3", "j2", ALICE, "w2", 2.0, n=2)
    story.finish("a3", "succeeded", 2.3)
    # Bob cancels one that runs, one is refused by its worker, one is lost three times
    story.submit("j3", BOB, 3.0)
    story.submit("j4", BOB, 3.1)
    story.start("a4", "j3", BOB, "w2", 3.2)
    story.start("a5", "j4", BOB, "w3", 3.3)
    story.add(Cancel(3.35, 3.36, BOB, "j3", "running"))
    story.finish("a4", "stopped", 3.4)
    story.finish("a5", "refused", 3.5, code="planted_caller")
    story.submit("j5", BOB, 4.0)
    for number, attempt in enumerate(("a6", "a7", "a8")):
        story.start(attempt, "j5", BOB, "w3", 4.1 + number, n=number + 1)
        story.kill("hang", "w3", 4.2 + number, 4.9 + number)
        story.loses(attempt, 4.8 + number)
    story.job_ends("j5", "failed", 6.8, code="worker_lost", attempt="a8")
    # never answered, given up, and refused when it came too late; over the limit
    story.add(
        Submit(7.0, 7.1, ALICE, ["j6"], "unknown"),
        Resolve(7.2, 7.3, "j6", "buried"),
        Submit(7.4, 7.5, ALICE, ["j6"], "buried"),
        TombstoneRow(99, "j6"),
        Submit(7.6, 7.7, ALICE, ["j7"], "refused", "RateLimited"),
        Sample(8.0, {}, {}, 0, 0),
        Count(8.0, {}, 0),
        Done(9.0, calm=True),
    )
    return story
