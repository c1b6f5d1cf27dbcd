"""Who is next, through the real queue: shares, turns, and running limits at every instant."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from tests.fakes.scheduler_stack import SchedulerStack, entitlements, submission

PLANS = {
    "free": entitlements(priority=0, weight=1, running=1000, waiting=1000),
    "pro": entitlements(priority=10, weight=4, running=1000, waiting=1000),
    "enterprise": entitlements(priority=100, weight=16, running=1000, waiting=1000),
}


async def test_busy_tiers_share_by_weight(stack: SchedulerStack) -> None:
    for plan, numbers in PLANS.items():
        await stack.submit(*[submission() for _ in range(90)], user=plan, plan=numbers)
    async with stack.worker(slots=105) as worker:
        got = Counter([(await worker.is_assigned()).user_id for _ in range(105)])
    assert got == {"enterprise": 80, "pro": 20, "free": 5}


async def test_one_users_many_jobs_do_not_block_anothers_one(stack: SchedulerStack) -> None:
    plan = PLANS["free"]
    await stack.submit(*[submission() for _ in range(300)], user="greedy", plan=plan)
    (mine,) = await stack.submit(user="modest", plan=plan)
    async with stack.worker(slots=2) as worker:
        first = [(await worker.is_assigned()).job_id for _ in range(2)]
    assert mine.id in first


async def test_the_running_limit_holds_at_every_instant_over_many_workers(
    stack: SchedulerStack,
) -> None:
    limits = {f"user-{number}": number + 1 for number in range(3)}
    for user, limit in limits.items():
        plan = entitlements(running=limit, waiting=100)
        await stack.submit(*[submission() for _ in range(10)], user=user, plan=plan)
    running: dict[str, set[str]] = defaultdict(set)
    left = 30

    async def work(name: str) -> None:
        nonlocal left
        async with stack.worker(name) as worker:
            while left:
                listening = asyncio.ensure_future(worker.is_assigned())
                while not listening.done() and left:
                    await asyncio.wait({listening}, timeout=0.05)
                if not listening.done():
                    listening.cancel()
                    return
                job = listening.result()
                running[job.user_id].add(job.job_id)
                assert len(running[job.user_id]) <= limits[job.user_id]
                await asyncio.sleep(0.002)
                running[job.user_id].discard(job.job_id)
                left -= 1
                await worker.finishes(job)
                await worker.takes(1)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(work(f"worker-{number}"))
    assert await stack.row("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == 30
    assert await stack.row("SELECT sum(open) FROM open_jobs") == 0
    assert await stack.row("SELECT max(attempts) FROM jobs") == 1
