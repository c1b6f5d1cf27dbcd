"""The scheduler's database behind all its ports: what memory and Postgres both have to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from easel_kit.db import Pool
from easel_kit.errors import DomainError
from easel_kit.ids import (
    ImageId,
    JobId,
    ModelKey,
    UserId,
    WorkerId,
    new_attempt_id,
    new_id,
    new_job_id,
)
from scheduler.domain.generation import (
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
)
from scheduler.domain.job import (
    Cursor,
    Entitlements,
    Event,
    EventType,
    Image,
    Job,
    JobError,
    JobState,
    NewJob,
    Submission,
)
from scheduler.domain.lease import Claim, Outcome, Report
from scheduler.domain.line import Accepted
from scheduler.domain.selection import Cancellation, Selection
from scheduler.ports import (
    AttemptStore,
    FeedStore,
    HistoryStore,
    JobStore,
    LoadStore,
    OwnLineStore,
    PlanStore,
    PrivacyStore,
)
from scheduler.storage.attempts import PostgresAttempts
from scheduler.storage.events import PostgresFeed
from scheduler.storage.jobs import PostgresJobs
from scheduler.storage.load import PostgresLoad
from scheduler.storage.own_line import PostgresOwnLine
from scheduler.storage.plans import PostgresPlans
from scheduler.storage.privacy import PostgresPrivacy
from scheduler.storage.retention import PostgresHistory
from tests.fakes.scheduler_jobs import MovableClock
from tests.fakes.scheduler_store import RETRY, MemoryStore

ALICE, BOB = UserId("alice"), UserId("bob")
PLAN = Entitlements(
    version=1, priority=10, weight=4, max_running=2, max_waiting=3, queue_time_s=600
)
PICTURE = Generation(ModelKey("m"), "a circle", "", 64, 64, 10, 2.5, 7, "ddim", 2)
FULL = replace(
    PICTURE,
    loras=(Lora(ModelKey("fine"), 0.75), Lora(ModelKey("coarse"), -1.5)),
    init_image=InitImage("users/alice/a.png", 0.6, "users/alice/b.png", "img_a", "img_b"),
    controls=(Control(ModelKey("edges"), "users/alice/c.png", 0.9, 0.1, 0.8, "img_c"),),
    hires=Hires(1.5, 8, 0.4),
    output=Output(ImageFormat.WEBP, 80, without_settings=True),
    clip_skip=2,
)
"""All that a request may say."""
OUT_OF_MEMORY = JobError("out_of_memory", "no room")


_TIMES = {
    "jobs": ("start_by", "not_before", "queued_at", "finished_at"),
    "open_jobs": ("changed_at",),
    "tombstones": ("buried_at",),
    "events": ("occurred_at",),
}
"""Columns of time points that decide something later."""


def image() -> Image:
    return Image(ImageId(new_id("img")), "users/alice/x.png", 64, 64, "image/png", 9, "ab", 7)


@dataclass
class Store:
    """The ports, and how to make time pass for a job."""

    jobs: JobStore
    own_line: OwnLineStore
    plans: PlanStore
    history: HistoryStore
    privacy: PrivacyStore
    attempts: AttemptStore
    feed: FeedStore
    load: LoadStore
    pool: Pool | None
    clock: MovableClock

    async def age(self, seconds: float) -> None:
        """Makes everything so far that much older."""
        self.clock.move(seconds)
        if self.pool is not None:
            for table, columns in _TIMES.items():
                older = ", ".join(f"{one} = {one} - $1 * interval '1 second'" for one in columns)
                await self.pool.execute(f"UPDATE {table} SET {older}", seconds)

    async def submit(
        self, *ids: JobId, user: UserId = ALICE, plan: Entitlements = PLAN
    ) -> list[Job]:
        jobs = tuple(NewJob(one, PICTURE, 100) for one in ids or (new_job_id(),))
        return (await self.accepts(Submission(user, plan, jobs, "00-trace"))).jobs

    async def accepts(self, submission: Submission) -> Accepted:
        """One submission; raises what it is refused with."""
        (answer,) = await self.jobs.submit([submission])
        if isinstance(answer, DomainError):
            raise answer
        return answer

    async def claim(self, job: Job, number: int = 1) -> Claim:
        claim = Claim(
            new_attempt_id(), job.id, job.user_id, WorkerId("w"), number, datetime.now(UTC)
        )
        assert await self.attempts.record([claim]) == []
        return claim

    async def came_to(self, claim: Claim) -> tuple[Outcome | None, bool]:
        """How an attempt ended, and whether it used up a try."""
        if self.pool is None:
            assert isinstance(self.attempts, MemoryStore)
            attempt = self.attempts.tries[claim.attempt_id]
            return attempt.outcome, attempt.counted
        row = await self.pool.fetchrow(
            "SELECT outcome, counted FROM attempts WHERE id = $1", claim.attempt_id
        )
        assert row is not None
        return row["outcome"] and Outcome(row["outcome"]), row["counted"]

    async def settle(self, claim: Claim, outcome: Outcome, **more: object) -> JobState | None:
        (settled,) = await self.attempts.settle([Report(claim, outcome, **more)])  # type: ignore[arg-type]
        return settled.state if settled.changed else None

    async def cancel(self, *ids: JobId, user: UserId = ALICE) -> Cancellation:
        return await self.own_line.cancel(user, Selection(frozenset(ids)))

    async def read(self, after: Cursor, *, limit: int = 100) -> list[Event]:
        """Events after the cursor, once no transaction of another test holds them back."""
        while True:
            found, held_back = await self.feed.events(after, limit=limit)
            if not held_back:
                return found

    async def events(self) -> list[tuple[JobId, EventType]]:
        return [(event.job_id, event.type) for event in await self.read(Cursor())]


def in_memory() -> Store:
    """All ports on the fake."""
    clock = MovableClock()
    one = MemoryStore(clock)
    return Store(one, one, one, one, one, one, one, one, None, clock)


def on_postgres(pool: Pool, lane: str = "default") -> Store:
    """All ports on a migrated database."""

    def ring() -> None:
        """Nobody reads."""

    return Store(
        PostgresJobs(pool, lane=lane, ring=ring),
        PostgresOwnLine(pool, ring=ring),
        PostgresPlans(pool, lane=lane),
        PostgresHistory(pool),
        PostgresPrivacy(pool),
        PostgresAttempts(pool, lane=lane, max_attempts=3, retry=RETRY, ring=ring),
        PostgresFeed(pool),
        PostgresLoad(pool, lane=lane),
        pool,
        MovableClock(),
    )
