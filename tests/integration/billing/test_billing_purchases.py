"""Bought credits, what takes them back, debt, and who decides the plan."""

import asyncio
from datetime import timedelta

import pytest

from billing.domain.accounts import Period, PlanSource, months_after
from billing.storage.plans import PostgresPlans
from billing.storage.purchases import purchased
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.db import open_pool
from easel_kit.errors import InsufficientCredits, InvalidState, NotFound
from tests.fakes.billing_stack import (
    ALICE,
    BOB,
    FREE_GRANT,
    PRO_GRANT,
    BillingStack,
    work,
)
from tests.fakes.billing_till import PACK, Till


@pytest.fixture
async def till(stack: BillingStack) -> Till:
    return Till(stack, await stack.account_id())


async def test_a_purchase_is_granted_once(stack: BillingStack, till: Till) -> None:
    assert await till.buy("cs_1")
    assert not await till.buy("cs_1")
    assert await till.state() == (FREE_GRANT + PACK, 0, 0)
    line = (await stack.lines())[0]
    assert (line.kind, line.reference, line.millicredits) == ("purchase", "checkout/cs_1", PACK)
    assert line.description == "100 credits"
    # of whatever account
    other = Till(stack, await stack.account_id(BOB))
    assert not await other.buy("cs_1")
    assert await stack.balance(BOB) == (FREE_GRANT, 0)
    async with till.begin() as (lent, _):
        assert await purchased(lent, till.id, "pi_cs_1") == PACK
        assert await purchased(lent, till.id, "pi_cs_2") == 0


async def test_concurrent_purchases_of_one_reference_are_one(till: Till) -> None:
    bought = await asyncio.gather(*(till.buy("cs_1") for _ in range(6)))
    assert sum(bought) == 1
    assert await till.state() == (FREE_GRANT + PACK, 0, 0)


async def test_a_refund_takes_what_is_free_of_the_purchase_first(
    stack: BillingStack, till: Till
) -> None:
    await till.buy("cs_1")
    await till.buy("cs_2")
    assert await till.claw("re_1", "cs_2", 60_000)
    assert not await till.claw("re_1", "cs_2", 60_000)
    assert await till.state() == (FREE_GRANT + PACK + 40_000, 0, 0)
    left = "SELECT remaining FROM credit_lots WHERE source_ref = $1"
    assert await stack.sql(left, "cs_1") == PACK
    assert await stack.sql(left, "cs_2") == 40_000
    # a second refund of the same payment takes no more than is left of it
    await till.claw("re_2", "cs_2", 60_000)
    assert await till.state() == (FREE_GRANT + PACK, 0, 0)
    assert await stack.sql("SELECT sum(taken) FROM clawbacks") == PACK


async def test_what_was_spent_is_owed_and_the_next_credits_pay_it(
    stack: BillingStack, till: Till
) -> None:
    await till.buy("cs_1")
    await till.spend(130_000)  # all free credits and 80_000 of the purchase
    assert await till.claw("re_1", "cs_1")
    assert await till.state() == (0, 0, 80_000)
    with pytest.raises(InsufficientCredits):
        await stack.place()
    line = (await stack.lines())[0]
    assert (line.kind, line.reference, line.millicredits) == ("clawback", "re_1", -20_000)
    assert line.description == "Refunded; 80.000 credits of it spent already, and owed"
    await till.buy("cs_2", 50_000)
    assert await till.state() == (0, 0, 30_000)
    await till.buy("cs_3", 50_000)
    assert await till.state() == (20_000, 0, 0)
    repaid, bought = (await stack.lines())[:2]
    assert (bought.kind, bought.millicredits, bought.available_after_millicredits) == (
        "purchase",
        50_000,
        50_000,
    )
    assert (repaid.kind, repaid.reference, repaid.millicredits) == (
        "repay",
        "purchase/checkout/cs_3",
        -30_000,
    )


async def test_what_a_job_had_reserved_pays_a_debt_when_it_comes_free(
    stack: BillingStack, till: Till
) -> None:
    await till.buy("cs_1")
    placed = await stack.place(of=work(width_px=1024, height_px=1024, pixel_steps=14_000_000))
    assert await till.state() == (10_000, 140_000, 0)
    await till.claw("re_1", "cs_1")
    assert await till.state() == (0, 140_000, 90_000)
    # a quarter is charged, the rest pays
    await stack.capture(placed.hold.job_id, done=1, total=4)
    assert await till.state() == (15_000, 0, 0)
    kinds = [line.kind for line in await stack.lines(job_id=placed.hold.job_id)]
    assert kinds == ["repay", "capture", "hold"]


async def test_the_monthly_grant_pays_a_debt(stack: BillingStack, till: Till) -> None:
    await till.buy("cs_1", 30_000)
    await till.spend(80_000)
    await till.claw("dp_1", "cs_1")
    assert await till.state() == (0, 0, 30_000)
    stack.clock.move(days=28)
    assert await till.state() == (FREE_GRANT - 30_000, 0, 0)


async def test_credits_that_expired_unused_are_not_owed(stack: BillingStack, till: Till) -> None:
    await till.buy("cs_1", PACK, days=10)
    await till.spend(FREE_GRANT + 30_000)
    stack.clock.move(days=11)
    assert await till.claw("re_1", "cs_1", 80_000)
    # 70_000 had expired: of what is taken back only the rest had been of use
    assert await till.state() == (0, 0, 10_000)
    assert await till.claw("re_2", "cs_1", 80_000)
    assert await till.state() == (0, 0, 30_000)


async def test_a_clawback_of_what_was_never_bought_waits_for_the_purchase(till: Till) -> None:
    assert not await till.claw("re_1", "cs_1")
    await till.buy("cs_1")
    assert await till.claw("re_1", "cs_1", 10_000)
    assert await till.state() == (FREE_GRANT + PACK - 10_000, 0, 0)


async def test_time_given_back_takes_nothing_that_was_spent(till: Till) -> None:
    await till.buy("il_1")
    await till.spend(FREE_GRANT + 70_000)
    assert await till.claw("il_2", "il_1", 60_000, may_owe=False)
    assert await till.state() == (0, 0, 0)
    # and what comes free later stays
    assert not await till.claw("il_2", "il_1", 60_000, may_owe=False)


async def test_a_dispute_that_was_won_gives_back(stack: BillingStack, till: Till) -> None:
    await till.buy("cs_1")
    await till.spend(FREE_GRANT + 30_000)
    await till.claw("dp_1", "cs_1")
    assert await till.state() == (0, 0, 30_000)
    assert not await till.give("dp_2")
    assert await till.give("dp_1")
    assert not await till.give("dp_1")
    assert await till.state() == (70_000, 0, 0)
    assert [line.kind for line in await stack.lines()][:2] == ["repay", "give_back"]
    left = await stack.sql("SELECT expires_at FROM credit_lots WHERE source = 'give_back'")
    assert left - stack.clock.now() == timedelta(days=365)
    # a refund afterwards takes them all the same
    assert await till.claw("re_1", "cs_1")
    assert await till.state() == (0, 0, 30_000)


async def test_what_was_paid_with_newer_credits_comes_back_too(
    stack: BillingStack, till: Till
) -> None:
    await till.buy("cs_1", days=5)
    await till.spend(FREE_GRANT + PACK)
    await till.claw("dp_1", "cs_1")
    await till.buy("cs_2")
    assert await till.state() == (0, 0, 0)
    stack.clock.move(days=20)
    assert await till.give("dp_1")
    assert await till.state() == (PACK, 0, 0)
    left = await stack.sql("SELECT expires_at FROM credit_lots WHERE source = 'give_back'")
    assert left - stack.clock.now() == timedelta(days=30)


# --- plans


async def test_a_subscription_brings_the_plan_and_no_credits(
    stack: BillingStack, till: Till
) -> None:
    assert await till.move("pro", PlanSource.SUBSCRIPTION)
    assert not await till.move("pro", PlanSource.SUBSCRIPTION)
    account = await stack.account()
    assert (account.entitlements.plan.key, account.entitlements.version) == ("pro", 2)
    assert await till.state() == (FREE_GRANT, 0, 0)
    # its periods are Stripe's: nothing moves by itself
    stack.clock.move(days=40)
    assert (await stack.account()).renews_at == account.renews_at
    assert await till.state() == (0, 0, 0)
    with pytest.raises(InvalidState, match="subscription"):
        await stack.change_plan("enterprise")
    assert (await stack.change_plan("pro")).entitlements.plan.key == "pro"


async def test_after_a_subscription_a_month_of_the_default_plan_begins(
    stack: BillingStack, till: Till
) -> None:
    await till.move("pro", PlanSource.SUBSCRIPTION)
    stack.clock.move(days=10)
    period = Period(stack.clock.now(), months_after(stack.clock.now(), 1))
    assert await till.move("free", PlanSource.DEFAULT, period)
    assert not await till.move("free", PlanSource.DEFAULT, period)
    assert await till.state() == (2 * FREE_GRANT, 0, 0)
    # months are counted from then on
    stack.clock.set(period.end)
    account = await stack.account()
    assert account.renews_at.ToSeconds() == months_after(period.start, 2).timestamp()
    assert await till.state() == (FREE_GRANT, 0, 0)


async def test_a_granted_plan_brings_its_credits_once(till: Till) -> None:
    period = Period(till.stack.clock.now(), months_after(till.stack.clock.now(), 1))
    assert await till.move("pro", PlanSource.GRANTED, period)
    assert not await till.move("pro", PlanSource.GRANTED, period)
    assert await till.state() == (FREE_GRANT + PRO_GRANT, 0, 0)


# --- packs


async def test_packs_are_listed_and_remembered(stack: BillingStack) -> None:
    answer = await stack.rpc.ListPlans(pb.ListPlansRequest())
    assert [(pack.key, pack.price_cents) for pack in answer.packs] == [
        ("small", 500),
        ("large", 4_000),
    ]
    assert (answer.packs[0].millicredits, answer.packs[0].valid_days) == (PACK, 365)
    assert [plan.storage_bytes for plan in answer.plans] == [2**30, 50 * 2**30, 2**40]
    async with open_pool(stack.url, schema="billing", name="test", max_size=1) as pool:
        plans = PostgresPlans(pool)
        small = await plans.pack("small", 1)
        assert (small.version, small.terms.price_cents) == (1, 500)
        assert await plans.pack("small", 1) is small
        with pytest.raises(NotFound, match="small/2"):
            await plans.pack("small", 2)
    assert await stack.sql("SELECT count(*) FROM pack_versions") == 2
    assert await stack.balance(ALICE) == (FREE_GRANT, 0)
