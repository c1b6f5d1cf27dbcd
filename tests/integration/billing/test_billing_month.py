"""A life with money, by the stand-in's clock: what each credit was for, and that it adds up.

Sign-up, a job, a paid plan, an upgrade, a renewal, a declined card, recovery, a downgrade, a pack,
a dispute that is lost, a refund, the end; billing is driven through gRPC alone, and looks at its
customer as webhooks would make it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.fakes.billing_money import MoneyStack, money_stack
from tests.fakes.billing_stack import FREE_GRANT, PRO_GRANT, BillingStack
from tests.fakes.stripe_stand_in import FAILS_LATER, StripeStandIn, stripe_stand_in

ENTERPRISE_GRANT = 20_000_000
PACK_GRANT = 100_000
DAY_S = 86_400


@dataclass(frozen=True)
class Line:
    """A line of the ledger as its reader sees it."""

    kind: str
    reference: str
    millicredits: int
    after: int
    description: str


@pytest.fixture
async def bank() -> AsyncIterator[StripeStandIn]:
    """A stand-in of Stripe."""
    async with stripe_stand_in(after_retries="unpaid") as running:
        yield running


@pytest.fixture
async def money(idle_stack: BillingStack, bank: StripeStandIn) -> AsyncIterator[MoneyStack]:
    """Billing beside it."""
    async with money_stack(idle_stack, bank) as running:
        yield running


async def ledger(money: MoneyStack) -> list[Line]:
    """All lines of the user's ledger, oldest first, page by page."""
    found = []
    token = ""
    while True:
        lines = await money.stack.lines(page_size=100, page_token=token)
        found += [
            Line(
                line.kind,
                line.reference,
                line.millicredits,
                line.available_after_millicredits,
                line.description,
            )
            for line in lines
        ]
        if len(lines) < 100:
            return found[::-1]
        token = str(
            await money.stack.sql("SELECT sequence FROM transfers WHERE id = $1", lines[-1].id)
        )


async def stripes_references(money: MoneyStack) -> set[str]:
    """Every id at Stripe that a line may speak of."""
    v1 = money.bank.client().v1
    customer = await money.customer()
    invoices = await v1.invoices.list_async({"customer": customer, "limit": 100})
    sessions = await v1.checkout.sessions.list_async({"customer": customer, "limit": 100})
    refunds = await v1.refunds.list_async({"limit": 100})
    disputes = await v1.disputes.list_async({"limit": 100})
    lines = {line.id for invoice in invoices.data for line in invoice.lines.data}
    return {
        *(f"invoice_line/{line}" for line in lines),
        *(f"checkout/{session.id}" for session in sessions.data),
        *lines,
        *(refund.id for refund in refunds.data),
        *(dispute.id for dispute in disputes.data),
    }


async def all_adds_up(money: MoneyStack) -> None:
    """The lines make the balance, each after the one before, and the books are clean."""
    running = 0
    for line in await ledger(money):
        running += line.millicredits
        assert line.after == running, line
    assert running == (await money.balance())[0]
    assert await money.stack.breaches() == []


async def test_a_life_with_money_is_explained_line_by_line(money: MoneyStack) -> None:
    await begin_and_grow(money)
    await stumble_and_recover(money)
    await owe_and_pay(money)
    await end(money)
    await every_line_speaks_of_something(money)
    assert await money.look() is False


async def begin_and_grow(money: MoneyStack) -> None:
    """Sign-up, a paid plan, an upgrade, a renewal."""
    # --- sign-up, and a first picture
    assert await money.plan() == ("free", "")
    await money.spend(10_000)
    await all_adds_up(money)

    # --- a paid plan, with a card that will give up later
    await money.wait(None, days=2)
    await money.buy(plan="pro", card=FAILS_LATER)
    start = money.bank.now()
    end = money.period_end(await money.stack.account())
    money.bank.replace_card(await money.customer())
    await money.spend(200_000)
    await all_adds_up(money)

    # --- an upgrade, prorated to the millicredit
    await money.wait(days=12, seconds=345)
    before = (await money.balance())[0]
    await money.change("enterprise")
    month_s = int((end - start).total_seconds())
    left_s = month_s - 12 * DAY_S - 345
    # of pro's share for the time left all is free but what was spent of it
    free_of_pro = PRO_GRANT - (200_000 - (FREE_GRANT - 10_000))
    back = min(PRO_GRANT * left_s // month_s, free_of_pro)
    brought = ENTERPRISE_GRANT * left_s // month_s
    assert (await money.balance())[0] == before - back + brought
    assert await money.plan() == ("enterprise", "active")
    await all_adds_up(money)

    # --- a renewal
    await money.wait_for_renewal()
    await money.wait(days=2)
    assert await money.plan() == ("enterprise", "active")
    assert await money.balance() == (ENTERPRISE_GRANT, 0)
    await all_adds_up(money)


async def stumble_and_recover(money: MoneyStack) -> None:
    """A declined renewal, its recovery, a downgrade."""
    # --- the card declines the next one: the plan stays for the tries, no credits come
    money.bank.replace_card(await money.customer(), FAILS_LATER)
    await money.wait_for_renewal()
    assert await money.plan() == ("enterprise", "past_due")
    await money.wait(days=2)
    assert await money.balance() == (0, 0)
    await all_adds_up(money)

    # --- recovery at the next try
    money.bank.replace_card(await money.customer())
    await money.wait(days=3)
    assert await money.plan() == ("enterprise", "active")
    assert await money.balance() == (ENTERPRISE_GRANT, 0)
    await all_adds_up(money)

    # --- a downgrade: the paid credits stay, the next month is pro's
    await money.change("pro")
    assert await money.plan() == ("pro", "active")
    assert await money.balance() == (ENTERPRISE_GRANT, 0)
    await money.wait_for_renewal()
    await money.wait(days=2)
    assert await money.balance() == (PRO_GRANT, 0)
    await all_adds_up(money)


async def owe_and_pay(money: MoneyStack) -> None:
    """A pack that is disputed when it is spent, a month that pays for it, a refund."""
    # --- a pack beside it, all spent, disputed and lost: what was spent is owed
    await money.buy(pack="small")
    pack = await money.payment()
    await money.spend(PRO_GRANT + PACK_GRANT)
    dispute = money.bank.dispute(pack)
    await money.look()
    money.bank.decide(dispute["id"], "lost")
    await money.look()
    assert await money.balance() == (0, PACK_GRANT)
    await all_adds_up(money)

    # --- the next month pays what is owed, and is refunded in part
    await money.wait_for_renewal()
    assert await money.balance() == (PRO_GRANT - PACK_GRANT, 0)
    await money.refunds.refund(await money.payment(), 190)
    assert await money.balance() == (PRO_GRANT - PACK_GRANT - PRO_GRANT // 10, 0)
    await all_adds_up(money)


async def end(money: MoneyStack) -> None:
    """The subscription is cancelled and runs out."""
    await money.cancel()
    await money.wait_for_renewal()
    assert await money.plan() == ("free", "")
    await money.wait(days=2)
    assert await money.balance() == (FREE_GRANT, 0)
    await all_adds_up(money)


async def every_line_speaks_of_something(money: MoneyStack) -> None:
    """What a line refers to exists: at Stripe, among the jobs, the lots or the periods."""
    at_stripe = await stripes_references(money)
    kinds = set()
    for line in await ledger(money):
        kinds.add(line.kind)
        assert line.description, line
        if line.kind in {"purchase", "clawback", "give_back"}:
            assert line.reference in at_stripe, line
        elif line.kind in {"hold", "capture", "release"}:
            assert (await money.stack.hold(line.reference)).job_id == line.reference
        elif line.kind == "grant":
            period, plan = line.reference.split("/")
            assert await money.stack.sql(
                "SELECT true FROM credit_lots WHERE source = 'monthly' AND source_ref LIKE $1",
                f"%/{period}/{plan}",
            )
        elif line.kind == "expire":
            lot = line.reference.split("/")[0]
            assert await money.stack.sql("SELECT true FROM credit_lots WHERE id = $1", lot)
        else:
            assert line.kind == "repay"
    assert kinds >= {"grant", "purchase", "hold", "capture", "expire", "clawback", "repay"}
    # every paid invoice line and pack is there once
    count = await money.stack.sql("SELECT count(*) FROM transfers WHERE kind = 'purchase'")
    assert count == 1 + 1 + 1 + 1 + 1 + 1 + 1
    assert await money.stack.sql("SELECT count(*) FROM account_pii WHERE user_id = $1", ALICE) == 1
