"""Money that goes back, by refund or by dispute, and the credits that go with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from easel_kit.errors import InvalidState, NotFound
from tests.fakes.billing_money import MoneyStack, money_stack
from tests.fakes.billing_stack import FREE_GRANT, BillingStack
from tests.fakes.stripe_stand_in import StripeStandIn, stripe_stand_in

PACK_GRANT = 100_000


@pytest.fixture
async def bank() -> AsyncIterator[StripeStandIn]:
    """A stand-in of Stripe."""
    async with stripe_stand_in() as running:
        yield running


@pytest.fixture
async def money(idle_stack: BillingStack, bank: StripeStandIn) -> AsyncIterator[MoneyStack]:
    """Billing beside it; the ledger must add up in the end."""
    async with money_stack(idle_stack, bank) as running:
        yield running
        assert await running.stack.breaches() == []


async def kinds(money: MoneyStack) -> list[tuple[str, int]]:
    return [(line.kind, line.millicredits) for line in reversed(await money.stack.lines())]


async def test_a_full_refund_takes_all_that_is_unspent(money: MoneyStack) -> None:
    await money.buy(pack="small")
    refund = await money.refunds.refund(await money.payment(), None)
    assert refund.startswith("re_")
    assert await money.balance() == (FREE_GRANT, 0)
    assert await kinds(money) == [
        ("grant", FREE_GRANT),
        ("purchase", PACK_GRANT),
        ("clawback", -PACK_GRANT),
    ]
    with pytest.raises(InvalidState, match="refunded already"):
        await money.refunds.refund(await money.payment(), 100)
    with pytest.raises(NotFound):
        await money.refunds.refund("pi_nobodys", None)


async def test_who_gave_money_back_stands_in_the_audit_log(money: MoneyStack) -> None:
    await money.buy(pack="small")
    await money.refunds.refund(await money.payment(), 100)
    with pytest.raises(NotFound):
        await money.refunds.refund("pi_nobodys", None)
    rows = await money.stack.rows(
        "SELECT actor, subject, detail FROM audit WHERE action = 'refund.asked' ORDER BY sequence"
    )
    (account_id,) = {row["id"] for row in await money.stack.rows("SELECT id FROM accounts")}
    assert [(row["actor"], row["subject"], json.loads(row["detail"])) for row in rows] == [
        ("operator", account_id, {"payment": await money.payment(), "cents": 100}),
        ("operator", "pi_nobodys", {"payment": "pi_nobodys", "cents": "all"}),
    ]


async def test_refunds_in_parts_take_the_whole_in_the_end(money: MoneyStack) -> None:
    await money.buy(pack="small")
    payment = await money.payment()
    for cents in (1, 166, 333):
        await money.refunds.refund(payment, cents)
    assert await money.balance() == (FREE_GRANT, 0)
    assert [amount for kind, amount in await kinds(money) if kind == "clawback"] == [
        -(PACK_GRANT * 1 // 500),
        -(PACK_GRANT * 167 // 500 - PACK_GRANT * 1 // 500),
        -(PACK_GRANT - PACK_GRANT * 167 // 500),
    ]


async def test_the_same_refund_asked_for_again_is_the_same(money: MoneyStack) -> None:
    await money.buy(pack="small")
    payment = await money.payment()
    assert await money.refunds.refund(payment, 100) == await money.refunds.refund(payment, 100)
    assert await money.balance() == (FREE_GRANT + PACK_GRANT * 4 // 5, 0)


async def test_refunded_credits_that_are_spent_are_owed_and_paid_by_the_next(
    money: MoneyStack,
) -> None:
    await money.buy(pack="small")
    await money.spend(FREE_GRANT + PACK_GRANT - 10_000)
    await money.refunds.refund(await money.payment(), None)
    assert await money.balance() == (0, PACK_GRANT - 10_000)
    await money.buy(pack="large")
    assert await money.balance() == (1_000_000 - (PACK_GRANT - 10_000), 0)


async def test_a_dispute_takes_and_a_won_one_gives_back(money: MoneyStack) -> None:
    await money.buy(pack="small")
    dispute = money.bank.dispute(await money.payment())
    await money.look()
    assert await money.balance() == (FREE_GRANT, 0)
    money.bank.decide(dispute["id"], "won")
    await money.look()
    assert await money.balance() == (FREE_GRANT + PACK_GRANT, 0)
    assert await money.look() is False


async def test_a_lost_dispute_stays_taken_and_spent_credits_are_owed(money: MoneyStack) -> None:
    await money.buy(pack="small")
    await money.spend(FREE_GRANT + PACK_GRANT)
    dispute = money.bank.dispute(await money.payment())
    await money.look()
    money.bank.decide(dispute["id"], "lost")
    await money.look()
    assert await money.balance() == (0, PACK_GRANT)


async def test_an_inquiry_takes_nothing(money: MoneyStack) -> None:
    await money.buy(pack="small")
    inquiry = money.bank.dispute(await money.payment(), inquiry=True)
    assert await money.look() is False
    money.bank.decide(inquiry["id"], "warning_closed")
    assert await money.look() is False
    assert await money.balance() == (FREE_GRANT + PACK_GRANT, 0)


async def test_a_dispute_that_was_won_before_anyone_looked_leaves_no_trace(
    money: MoneyStack,
) -> None:
    await money.buy(pack="small")
    dispute = money.bank.dispute(await money.payment())
    money.bank.decide(dispute["id"], "won")
    assert await money.look() is False
    assert await money.balance() == (FREE_GRANT + PACK_GRANT, 0)
