"""A Redis that is not the one that was filled is never believed: it is rebuilt first."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis

from easel.scheduler.v1 import jobs_pb2
from easel_kit.clock import SystemClock
from easel_kit.db import Pool, open_pool
from easel_kit.errors import Conflict, DependencyDown
from easel_local.redis import Redis as RedisServer
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import JobState
from scheduler.domain.line import Admission
from scheduler.main import SCHEMA
from scheduler.service.rebuild import Rebuilder
from scheduler.storage.attempts import PostgresAttempts
from scheduler.storage.epoch import RedisEpoch
from scheduler.storage.locks import PostgresLocks
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import SCRIPTS, Scripts
from tests.fakes.scheduler import RecordingObserver
from tests.fakes.scheduler_process import scheduler_process
from tests.fakes.scheduler_stack import BOB, SchedulerStack, fill, submission, within

EPOCH = "easel:{default}:epoch"


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that a test may stop."""
    async with RedisServer(tmp_path / "redis") as server:
        yield server


async def test_an_old_dump_is_not_served(scheduler_url: str, own_redis: RedisServer) -> None:
    stack = SchedulerStack(scheduler_url, own_redis.url)
    async with stack.running(reconcile_every_s=60, expire_every_s=60):
        old, cancelled = await stack.submit(submission(), submission())
        async with stack.redis as redis:
            await redis.save()
        await stack.cancel(cancelled.id)
        (new,) = await stack.submit(user=BOB)
        await own_redis.stop()
        await own_redis.start()
        async with stack.redis as redis:
            assert await redis.exists(f"easel:{{default}}:j:{cancelled.id}")  # the dump is there
        async with stack.worker(slots=3) as worker:
            found = {(await worker.is_assigned()).job_id for _ in range(2)}
            assert found == {old.id, new.id}
            await worker.hears_nothing(0.2)


async def test_the_epoch_of_another_redis_is_not_believed(stack: SchedulerStack) -> None:
    (job,) = await stack.submit()
    async with stack.redis as redis:
        # as a replica that was promoted: all keys are there, the run id is another
        await redis.set(EPOCH, f"open {'0' * 40}")
        await redis.set(f"easel:{{default}}:j:{job.id}", "not what it was")
        async with stack.worker() as worker:
            assert (await worker.is_assigned()).job_id == job.id
        info = await redis.info("server")
        assert await redis.get(EPOCH) == f"open {info['run_id']}".encode()


@pytest.mark.parametrize("name", SCRIPTS)
async def test_every_script_refuses_a_closed_queue(redis_url: str, name: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        doubted = asyncio.Event()
        scripts = Scripts(redis, "default", on_closed=doubted.set)
        with pytest.raises(DependencyDown, match="rebuilt"):
            await scripts.run(name)
        assert doubted.is_set()
        assert not await redis.keys("*")


class Stores:
    """The stores of a rebuild; `on_page` is called before each page that is read."""

    def __init__(self, pool: Pool, redis: Redis) -> None:
        self.redis = redis
        self.scripts = Scripts(redis, "default")
        self.attempts = PostgresAttempts(
            pool, lane="default", max_attempts=3, retry=Backoff(1, 1), ring=lambda: None
        )
        self.epoch = RedisEpoch(redis, self.scripts, lease_ttl_s=5)
        self.line = RedisLine(redis, self.scripts, lease_ttl_s=5)
        self.seen = RecordingObserver()
        self.rebuilder = Rebuilder(
            attempts=self.attempts,
            line=self.line,
            epoch=self.epoch,
            locks=PostgresLocks(pool, lane="default"),
            observer=self.seen,
            clock=SystemClock(),
            doubted=asyncio.Event(),
            on_open=lambda: None,
            unwritten_s=0,
        )

    def before_page(self, number: int, action: Callable[[], Awaitable[object]]) -> None:
        """Does something once, before this page of open jobs is read."""
        read, pages = self.attempts.open_jobs, count(1)

        async def hooked(state: JobState, *, after: int, limit: int) -> list[Admission]:
            if next(pages) == number:
                await action()
            return await read(state, after=after, limit=limit)

        self.attempts.open_jobs = hooked  # type: ignore[method-assign]

    async def known(self) -> list[str]:
        return [job_id for _, job_id in await self.line.known(after=0, limit=1000)]


@pytest.fixture
async def stores(
    scheduler_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stores]:
    monkeypatch.setattr("scheduler.service.rebuild._PAGE", 2)
    async with (
        open_pool(scheduler_url, schema=SCHEMA, name="test") as pool,
        Redis.from_url(redis_url) as redis,
    ):
        yield Stores(pool, redis)


async def _submitted(stack: SchedulerStack, jobs: int) -> list[str]:
    async with stack.running():
        return [job.id for job in await stack.submit(*[submission() for _ in range(jobs)])]


async def test_a_flush_in_the_middle_of_a_rebuild_starts_it_over(
    idle_stack: SchedulerStack, stores: Stores
) -> None:
    jobs = await _submitted(idle_stack, 7)
    await stores.redis.flushall()
    stores.before_page(3, stores.redis.flushall)
    with pytest.raises(Conflict):
        await stores.rebuilder.rebuild()
    assert not await stores.epoch.is_open()  # never open while it is partial
    work = asyncio.create_task(stores.rebuilder.run())
    await within(stores.rebuilder.opened(within_s=5))
    work.cancel()
    assert await stores.known() == jobs


async def test_a_rebuild_that_was_overtaken_changes_nothing_more(
    idle_stack: SchedulerStack, stores: Stores
) -> None:
    jobs = await _submitted(idle_stack, 5)
    await stores.redis.flushall()
    token = await stores.epoch.begin(alone=True)
    assert token is not None
    assert await stores.epoch.begin(alone=False) is None  # another replica is at it
    await stores.rebuilder.rebuild()  # with the lock: whoever began is dead
    page = await stores.attempts.open_jobs(JobState.QUEUED, after=0, limit=9)
    with pytest.raises(Conflict):
        await stores.epoch.sweep(token)
    with pytest.raises(Conflict):
        await stores.epoch.restore(token, page)
    with pytest.raises(Conflict):
        await stores.epoch.open(token)
    assert await stores.known() == jobs


async def test_a_rebuild_that_hangs_loses_its_turn(stores: Stores) -> None:
    assert await stores.epoch.begin(alone=True) is not None
    assert await stores.epoch.begin(alone=False) is None
    await stores.redis.pexpire(EPOCH, 1)  # no step for a long time
    await asyncio.sleep(0.01)
    assert await stores.epoch.begin(alone=False) is not None


async def test_what_comes_in_during_a_rebuild_is_in_line_when_it_opens(
    idle_stack: SchedulerStack, stores: Stores
) -> None:
    async with idle_stack.running(reconcile_every_s=60, expire_every_s=60):
        (first,) = await idle_stack.submit()
        await stores.redis.flushall()
        late: list[str] = []

        async def submit() -> None:
            (job,) = await idle_stack.submit(user=BOB)
            late.append(job.id)

        stores.before_page(3, submit)  # after the last page with jobs
        await stores.rebuilder.rebuild()

        async def both() -> bool:
            return await stores.known() == [first.id, *late]

        await idle_stack.eventually(both)


async def test_another_replica_follows_one_that_is_killed_in_mid_rebuild(
    idle_stack: SchedulerStack, tmp_path: Path
) -> None:
    here, there = idle_stack, SchedulerStack(idle_stack.database_url, idle_stack.redis_url)
    async with (
        scheduler_process(here, tmp_path) as builder,
        scheduler_process(there, tmp_path) as follower,
        here.redis as redis,
    ):
        await fill(here, jobs=5_000, users=100)
        follower.process.send_signal(signal.SIGSTOP)
        await redis.flushall()

        async def building() -> bool:
            return str(await redis.get(EPOCH)).startswith("b'building")

        await here.eventually(building)
        await builder.kill()
        follower.process.send_signal(signal.SIGCONT)
        await follower.logs("queue.rebuilt")
        assert await redis.zcard("easel:{default}:jobs") == 5_000
        async with there.worker() as worker:
            assert (await worker.is_assigned()).job_id


async def test_submits_and_cancels_go_on_while_redis_hangs(
    scheduler_url: str, own_redis: RedisServer
) -> None:
    stack = SchedulerStack(scheduler_url, own_redis.url)
    async with stack.running():
        assert own_redis.pid is not None
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            waiting = [(await within(stack.submit(), 5))[0] for _ in range(2)]
            (dropped,) = await within(stack.submit(user=BOB), 5)
            assert (await within(stack.cancel(dropped.id, BOB), 5)).state == (
                jobs_pb2.JOB_STATE_CANCELLED
            )
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        async with stack.worker(slots=3) as worker:
            found = [(await worker.is_assigned()).job_id for _ in waiting]
            assert found == [job.id for job in waiting]
            await worker.hears_nothing(0.2)


async def test_a_claim_of_the_last_moment_is_not_made_again(stack: SchedulerStack) -> None:
    async with stack.worker("one") as one, stack.redis as redis:
        for _ in range(5):
            (job,) = await stack.submit()
            assigned = await one.is_assigned()
            await redis.flushall()
            await stack.get(job.id)  # meets the loss before the claim is written down
            async with stack.worker("two") as two:
                await two.hears_nothing(0.4)
            assert (await one.finishes(assigned)).accepted
            await one.takes(1)
        assert await stack.row("SELECT max(attempts) FROM jobs") == 1
