"""Stripe that is away, slow, or fails after it has done what it was asked; looks that race."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from billing.domain.payments import CustomerId, CustomerSnapshot
from billing.domain.plans import Catalogue
from billing.main import open_money
from billing.ports.payments import Payments
from billing.service.sync import CustomerSync
from easel_kit.errors import (
    Conflict,
    DeadlineExceeded,
    DependencyDown,
    Internal,
    InvalidState,
    NotFound,
)
from tests.fakes.billing_money import MoneyStack, money_stack
from tests.fakes.billing_stack import FREE_GRANT, PRO_GRANT, BillingStack
from tests.fakes.stripe_stand_in import FAILS_LATER, StripeStandIn, stripe_stand_in

PACK_GRANT = 100_000


@pytest.fixture
async def bank() -> AsyncIterator[StripeStandIn]:
    """A stand-in of Stripe."""
    async with stripe_stand_in() as running:
        yield running


@pytest.fixture
async def money(idle_stack: BillingStack, bank: StripeStandIn) -> AsyncIterator[MoneyStack]:
    """Billing beside it, with little patience and no retries; the ledger adds up in the end."""
    async with money_stack(idle_stack, bank, timeout_s=1.0) as running:
        yield running
        bank.faults()
        assert await running.stack.breaches() == []


def fault(bank: StripeStandIn, **plan: object) -> None:
    bank.faults(api=[plan])


async def test_while_stripe_is_away_nothing_changes_and_billing_serves(money: MoneyStack) -> None:
    await money.buy(plan="pro")
    before = await money.stack.account()
    for plan in (
        {"kind": "fail", "status": 503},
        {"kind": "fail", "status": 500},
        {"kind": "fail", "status": 429},
        {"kind": "reset"},
    ):
        fault(money.bank, **plan)
        with pytest.raises(DependencyDown):
            await money.look()
    with pytest.raises(DependencyDown):
        await money.payments.cancel_at_period_end("sub_1", cancel=True, key="k")
    await money.spend(1_000)
    money.bank.faults()
    await money.look()
    account = await money.stack.account()
    assert account.subscription == before.subscription
    assert await money.balance() == (FREE_GRANT + PRO_GRANT - 1_000, 0)


async def test_a_slow_stripe_is_given_up_in_time(money: MoneyStack) -> None:
    await money.buy(pack="small")
    fault(money.bank, kind="delay", delay_s=30.0)
    with pytest.raises(DeadlineExceeded):
        await money.look()


@pytest.mark.parametrize("kind", ["fail", "reset"])
async def test_what_was_done_before_the_answer_was_lost_is_not_done_twice(
    money: MoneyStack, kind: str
) -> None:
    once = {"kind": kind, "when": "after", "method": "POST", "status": 500, "times": 1}
    # the page
    fault(money.bank, path="/v1/checkout", **once)
    page = await money.checkout(pack="small", key="a key")
    assert (await money.checkout(pack="small", key="a key")).url == page.url
    money.bank.pay(money.session_of(page.url))
    await money.look()
    # the refund
    fault(money.bank, path="/v1/refunds", **once)
    payment = await money.payment()
    with pytest.raises(DependencyDown):
        await money.refunds.refund(payment, 100)
    await money.refunds.refund(payment, 100)
    assert await money.balance() == (FREE_GRANT + PACK_GRANT * 4 // 5, 0)
    refunds = await money.bank.client().v1.refunds.list_async({"payment_intent": payment})
    assert [refund.amount for refund in refunds.data] == [100]


async def test_an_upgrade_whose_answer_was_lost_is_paid_once(money: MoneyStack) -> None:
    await money.buy(plan="pro")
    fault(money.bank, kind="reset", when="after", method="POST", path="/v1/subscriptions", times=1)
    # the caller of billing repeats what is UNAVAILABLE, with the same outcome
    account = await money.change("enterprise")
    assert account.entitlements.plan.key == "enterprise"
    charges = await money.bank.client().v1.charges.list_async({"limit": 100})
    assert [charge.amount for charge in charges.data] == [29_900 - 1_900, 1_900]


async def test_the_customer_is_made_once_though_its_answer_was_lost(money: MoneyStack) -> None:
    fault(money.bank, kind="reset", when="after", method="POST", path="/v1/customers", times=1)
    await money.checkout(pack="small", key="a key")
    customers = await money.bank.client().v1.customers.list_async({"limit": 100})
    assert [customer.id for customer in customers.data] == [await money.customer()]


async def test_a_wrong_key_is_our_fault_and_says_nothing(
    money: MoneyStack, capsys: pytest.CaptureFixture[str]
) -> None:
    await money.buy(pack="small")
    settings = money.stack.settings
    wrong = settings.model_copy(
        update={
            "stripe": settings.stripe.model_copy(
                update={"secret_key": type(settings.stripe.secret_key)("rk_test_wrong")}
            )
        }
    )
    async with open_money(wrong, money.stack.clock) as (_, _, sync):
        with pytest.raises(Internal, match="refused this request"):
            await sync.sync(await money.customer())
    output = capsys.readouterr().out
    assert "stripe.refused" in output
    assert "rk_test_wrong" not in output


async def test_strangers_are_not_found(money: MoneyStack) -> None:
    with pytest.raises(NotFound):
        await money.sync.sync(CustomerId("cus_stranger"))
    with pytest.raises(NotFound):
        await money.payments.snapshot(CustomerId("cus_stranger"))


# --- looks that race


async def test_many_looks_at_once_end_as_one(money: MoneyStack) -> None:
    page = await money.checkout(plan="pro")
    money.bank.pay(money.session_of(page.url))
    customer = await money.customer()
    changes = await asyncio.gather(*(money.sync.sync(customer) for _ in range(6)))
    assert changes.count(True) == 1
    assert await money.plan() == ("pro", "active")
    assert await money.balance() == (FREE_GRANT + PRO_GRANT, 0)


class SlowEyes:
    """Payments whose next look is held until it is let go; all else goes straight through."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments
        self.looked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.looks = 0

    async def snapshot(self, customer_id: CustomerId) -> CustomerSnapshot:
        """As it was when it was asked for, told when it is let go."""
        found = await self._payments.snapshot(customer_id)
        self.looks += 1
        self.looked.set()
        await self.go_on.wait()
        return found

    def __getattr__(self, name: str) -> object:
        return getattr(self._payments, name)


def slow_sync(money: MoneyStack) -> tuple[SlowEyes, CustomerSync]:
    """A second process that looks slowly."""
    eyes = SlowEyes(money.payments)
    sync = money.sync
    payments: Payments = eyes  # type: ignore[assignment]  # the rest goes through __getattr__
    catalogue: Catalogue = sync._catalogue
    return eyes, CustomerSync(
        payments,
        sync._customers,
        sync._versions,
        catalogue,
        money.stack.clock,
        credit_grace=sync._credit_grace,
    )


async def test_an_old_look_never_overwrites_a_newer_one(money: MoneyStack) -> None:
    await money.buy(plan="pro")
    eyes, slow = slow_sync(money)
    customer = await money.customer()
    old = asyncio.create_task(slow.sync(customer))
    await eyes.looked.wait()
    # meanwhile the subscription ends, and someone faster sees it
    await money.payments.delete_customer(customer)
    await money.look()
    assert await money.plan() == ("free", "")
    eyes.go_on.set()
    assert await old is False
    assert eyes.looks == 2
    assert await money.plan() == ("free", "")


async def test_a_customer_that_never_stands_still_is_a_conflict(money: MoneyStack) -> None:
    await money.buy(pack="small")
    customer = await money.customer()

    class Restless(SlowEyes):
        async def snapshot(self, customer_id: CustomerId) -> CustomerSnapshot:
            await money.look()
            return await super().snapshot(customer_id)

    eyes, slow = slow_sync(money)
    restless = Restless(money.payments)
    restless.go_on.set()
    slow._payments = restless  # type: ignore[assignment]  # as above
    del eyes
    with pytest.raises(Conflict):
        await slow.sync(customer)


async def test_a_decline_is_told_in_words_for_people(money: MoneyStack) -> None:
    await money.buy(plan="pro", card=FAILS_LATER)
    with pytest.raises(InvalidState) as refused:
        await money.change("enterprise")
    assert "Request" not in str(refused.value)
    assert str(refused.value).startswith("Your card was declined")
