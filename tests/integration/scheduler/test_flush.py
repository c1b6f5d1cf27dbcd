"""Redis emptied while a long line is being worked off: served again soon, none lost, none twice."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.fakes.scheduler_process import scheduler_process
from tests.fakes.scheduler_stack import FakeWorker, SchedulerStack, fill

_CONSISTENT = """
    SELECT count(*) = $1 AND bool_and(state IN ('queued', 'running', 'succeeded'))
        AND count(*) FILTER (WHERE state = 'succeeded') =
            (SELECT count(*) FROM events WHERE type = 'succeeded')
        AND count(*) FILTER (WHERE finished_at IS NULL) = (SELECT sum(open) FROM open_jobs)
    FROM jobs
"""
_LIMIT_S = 60.0
_SLOTS = 4
_WORKED_OFF = 1_000


class Diary:
    """What all workers saw, in order."""

    def __init__(self) -> None:
        self.started: dict[str, list[str]] = defaultdict(list)
        """Jobs by user, in the order of their first assignment."""
        self.accepted: list[str] = []
        self.news = asyncio.Event()

    async def until_accepted(self, count: int) -> None:
        async with asyncio.timeout(_LIMIT_S):
            while len(self.accepted) < count:
                self.news.clear()
                await self.news.wait()


async def _work(worker: FakeWorker, diary: Diary) -> None:
    while True:
        try:
            job = await worker.is_assigned()
        except TimeoutError:
            continue
        if job.job_id not in diary.started[job.user_id]:
            diary.started[job.user_id].append(job.job_id)
        if (await worker.finishes(job)).accepted:
            diary.accepted.append(job.job_id)
        diary.news.set()
        await worker.takes(_SLOTS)


async def test_a_flush_under_a_long_line_loses_and_repeats_nothing(
    idle_stack: SchedulerStack, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    stack, jobs = idle_stack, int(pytestconfig.getoption("--flush-jobs"))
    other = SchedulerStack(stack.database_url, stack.redis_url)
    users, part = max(10, jobs // 50), min(jobs // 3, 300)
    async with stack.dialled():
        await fill(stack, jobs=jobs, users=users)
    async with (
        scheduler_process(stack, tmp_path) as first,
        scheduler_process(other, tmp_path) as second,
        stack.redis as redis,
        stack.worker("worker-1", slots=_SLOTS) as one,
        stack.worker("worker-2", slots=_SLOTS) as two,
        other.worker("worker-3", slots=_SLOTS) as three,
        other.worker("worker-4", slots=_SLOTS) as four,
    ):
        diary = Diary()
        hands = [asyncio.create_task(_work(one, diary)) for one in (one, two, three, four)]
        await diary.until_accepted(part)

        began = time.monotonic()
        await redis.flushall()
        async with asyncio.timeout(_LIMIT_S):
            while not await _is_open(redis):  # noqa: ASYNC110 (state of other processes)
                await asyncio.sleep(0.005)
        filled_s = time.monotonic() - began
        # more than the workers could have had in hand: claims go on
        await diary.until_accepted(len(diary.accepted) + 2 * _SLOTS * len(hands))
        served_s = time.monotonic() - began
        print(  # noqa: T201 (a measurement)
            f"\nFLUSHALL with {jobs:,} open jobs of {users:,} users, {len(hands)} workers: "
            f"in line again after {filled_s:.2f} s, {2 * _SLOTS * len(hands)} more done after "
            f"{served_s:.2f} s"
        )
        to_do = jobs if jobs <= _WORKED_OFF else len(diary.accepted) + part
        await diary.until_accepted(to_do)
        for hand in hands:
            hand.cancel()
        await asyncio.gather(*hands, return_exceptions=True)
        # filled once at the start and once after the flush, whichever replica did it
        assert first.count("queue.rebuilt") + second.count("queue.rebuilt") == 2
        _in_order(diary, jobs, users)
        await _nothing_is_lost(stack, diary, jobs)


async def _is_open(redis: Redis) -> bool:
    epoch = await redis.get("easel:{default}:epoch")
    return isinstance(epoch, bytes) and epoch.startswith(b"open ")


def _in_order(diary: Diary, jobs: int, users: int) -> None:
    for user, started in diary.started.items():
        places = [int(job_id.removeprefix("job_")) for job_id in started]
        first = int(user.removeprefix("user-")) or users
        assert places == list(range(first, jobs + 1, users))[: len(places)], user


async def _nothing_is_lost(stack: SchedulerStack, diary: Diary, jobs: int) -> None:
    assert len(diary.accepted) == len(set(diary.accepted))
    done = await stack.row("SELECT array_agg(id) FROM jobs WHERE state = 'succeeded'")
    assert set(diary.accepted) <= set(done)
    assert await stack.row(_CONSISTENT, jobs)

    async def agree() -> bool:
        still_open = await stack.row(
            "SELECT coalesce(array_agg(id), '{}') FROM jobs WHERE finished_at IS NULL"
        )
        async with stack.redis as redis:
            known = await redis.zrange("easel:{default}:jobs", 0, -1)
        return sorted(known) == sorted(job_id.encode() for job_id in still_open)

    await stack.eventually(agree)
