"""Changed plans on their way to the scheduler: told at least once, by the newest version."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from billing.domain.accounts import Period, PlanSource
from billing.storage.plans import PostgresPlans
from billing.storage.purchases import move_plan
from easel_kit.db import open_pool
from easel_local.testing import Migrate
from scheduler.main import migrate
from scheduler.settings import Settings
from tests.fakes.billing_stack import ALICE, BOB, BillingStack, until
from tests.fakes.scheduler_stack import SchedulerStack, entitlements
from tests.integration.billing.test_billing_accounts import plans_file

OUTBOX = "SELECT count(*) FROM entitlements_outbox"


async def until_told(stack: BillingStack) -> None:
    """Returns once the outbox is empty."""

    async def is_empty() -> bool:
        return bool(await stack.sql(OUTBOX) == 0)

    await until(is_empty)


async def test_a_changed_plan_is_told_and_forgotten(stack: BillingStack) -> None:
    await stack.account(BOB)
    await stack.change_plan("pro")
    await until_told(stack)
    assert stack.scheduler.told == [(ALICE, 2)]
    tier = stack.scheduler.tiers[ALICE]
    assert (tier.version, tier.priority, tier.weight) == (2, 10, 4)
    assert (tier.max_running, tier.max_waiting, tier.queue_time_s) == (3, 12, 3_600)
    # what changes nothing is not told
    await stack.change_plan("pro")
    assert await stack.sql(OUTBOX) == 0


async def test_a_subscriptions_plan_is_told_too(stack: BillingStack) -> None:
    account_id = await stack.account_id()
    now = stack.clock.now()
    period = Period(now, now + timedelta(days=30))
    async with (
        open_pool(stack.url, schema="billing", name="test", max_size=1) as pool,
        stack.transaction() as lent,
    ):
        plan = await PostgresPlans(pool).get("enterprise", 1)
        await move_plan(lent, account_id, plan, period, PlanSource.SUBSCRIPTION, now)
        # nobody hears of what may still be undone
        await asyncio.sleep(0.2)
        assert stack.scheduler.told == []
    await until_told(stack)
    assert stack.scheduler.tiers[ALICE].priority == 100


async def test_a_new_version_of_a_plan_is_told_with_the_renewal(
    idle_stack: BillingStack, tmp_path: Path
) -> None:
    async with idle_stack.running() as stack:
        await stack.account()
    changed = plans_file(tmp_path, ("max_waiting = 2", "max_waiting = 7"))
    async with idle_stack.running(plans_file=changed) as stack:
        stack.clock.move(days=31)
        await stack.account()
        await until_told(stack)
        assert stack.scheduler.tiers[ALICE].max_waiting == 7
        # the same version again is no news
        stack.clock.move(days=31)
        await stack.account()
        assert await stack.sql(OUTBOX) == 0
        assert stack.scheduler.told == [(ALICE, 2)]


async def test_a_scheduler_that_is_away_hears_of_it_later(stack: BillingStack) -> None:
    stack.scheduler.is_away = True
    await stack.change_plan("pro")
    await stack.change_plan("enterprise")
    await stack.change_plan("pro", BOB)
    await asyncio.sleep(0.2)
    assert await stack.sql(OUTBOX) == 2
    assert stack.scheduler.told == []
    stack.scheduler.is_away = False
    await until_told(stack)
    assert sorted(stack.scheduler.told) == [(ALICE, 3), (BOB, 2)]


async def test_a_death_between_telling_and_forgetting_loses_nothing(
    idle_stack: BillingStack,
) -> None:
    told = asyncio.Event()

    async def never_answer() -> None:
        told.set()
        await asyncio.Event().wait()

    idle_stack.scheduler.after_told = never_answer
    async with idle_stack.running() as stack:
        await stack.change_plan("pro")
        await told.wait()
    idle_stack.scheduler.after_told = None
    async with idle_stack.running() as stack:
        await until_told(stack)
    assert idle_stack.scheduler.told == [(ALICE, 2), (ALICE, 2)]
    assert idle_stack.scheduler.tiers[ALICE].version == 2


async def test_a_change_meanwhile_is_not_forgotten(stack: BillingStack) -> None:
    async def change_again() -> None:
        stack.scheduler.after_told = None
        await stack.change_plan("enterprise")

    stack.scheduler.after_told = change_again
    await stack.change_plan("pro")
    await until_told(stack)
    assert stack.scheduler.told == [(ALICE, 2), (ALICE, 3)]
    assert stack.scheduler.tiers[ALICE].priority == 100


async def test_one_that_is_refused_does_not_stop_the_others(stack: BillingStack) -> None:
    refused: list[str] = []

    async def refuse_alice() -> None:
        if stack.scheduler.told[-1][0] == ALICE and len(refused) < 2:
            refused.append(ALICE)
            raise ValueError("planted")

    stack.scheduler.after_told = refuse_alice
    await stack.change_plan("pro")
    await stack.change_plan("pro", BOB)
    await until_told(stack)
    assert refused == [ALICE, ALICE]
    assert {user for user, _ in stack.scheduler.told} == {ALICE, BOB}


async def test_nobody_is_told_of_the_erased(idle_stack: BillingStack) -> None:
    idle_stack.scheduler.is_away = True
    async with idle_stack.running() as stack:
        await stack.change_plan("pro")
        await stack.sql("DELETE FROM account_pii")
        stack.scheduler.is_away = False
        await until_told(stack)
    assert idle_stack.scheduler.told == []


@pytest.fixture
def scheduler_stack(
    migrated_database: Callable[[str, Migrate], str], redis_url: str
) -> SchedulerStack:
    """A real scheduler that a test starts itself."""

    def prepare(url: str) -> None:
        migrate(Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://127.0.0.1:1")))

    return SchedulerStack(migrated_database("scheduler", prepare), redis_url)


async def test_a_waiting_job_moves_to_the_new_tier(
    idle_stack: BillingStack, scheduler_stack: SchedulerStack
) -> None:
    """The real scheduler: an upgraded user's job passes the free backlog."""
    async with (
        scheduler_stack.running() as queue,
        idle_stack.running(scheduler_address=f"127.0.0.1:{queue.port}") as stack,
    ):
        held = await stack.place()
        plan = held.entitlements.plan
        free = entitlements(
            version=held.entitlements.version, priority=plan.priority, weight=plan.weight
        )
        await queue.submit(user=BOB, plan=free)
        await queue.submit(user="carol", plan=free)
        (job,) = await queue.submit(plan=free)
        assert job.position == 3
        await stack.change_plan("enterprise")

        async def is_first() -> bool:
            return (await queue.get(job.id)).position == 1

        await queue.eventually(is_first)
        await until_told(stack)
