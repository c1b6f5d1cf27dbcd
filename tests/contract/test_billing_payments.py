"""The port `Payments`: Stripe's client against Stripe and its stand-in, and the fake of tests.

What needs a clock that moves, or a card's bank that does as it is told, is asked of the stand-in
and the fake; all else of Stripe's test mode too, where `STRIPE_TEST_SECRET_KEY` is given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from billing.clients.stripe.calls import open_stripe
from billing.clients.stripe.payments import StripePayments
from billing.domain.accounts import AccountId
from billing.domain.payments import CustomerId, DisputeStatus
from billing.domain.plans import PlanVersion
from easel_kit.errors import Conflict, DependencyDown, InvalidState, NotFound
from tests.fakes.billing_shops import (
    ACCOUNT,
    ENTERPRISE,
    PRO,
    SMALL,
    URLS,
    Bank,
    MemoryBank,
    Shop,
    api_shop,
    stripe_bank,
)


@pytest.fixture(params=["memory", "stand-in"])
async def bank(request: pytest.FixtureRequest) -> AsyncIterator[Bank]:
    """Each implementation that a test can move."""
    if request.param == "memory":
        yield MemoryBank()
        return
    async with stripe_bank() as running:
        yield running


@pytest.fixture(
    params=["memory", "stand-in", "api", pytest.param("stripe", marks=pytest.mark.stripe)]
)
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """Each implementation in turn; `api` is the stand-in, asked as Stripe is."""
    if request.param == "memory":
        yield MemoryBank()
    elif request.param == "stand-in":
        async with stripe_bank() as bank:
            yield bank
    else:
        async with api_shop(real=request.param == "stripe") as running:
            yield running


async def subscribed(
    shop: Shop, plan: PlanVersion = PRO, *, fails_later: bool = False
) -> CustomerId:
    customer = await shop.payments.create_customer(ACCOUNT, key=shop.key("customer"))
    await shop.subscribe(customer, plan, fails_later=fails_later)
    return customer


async def subscription_id(shop: Shop, customer: CustomerId) -> str:
    (subscription,) = (await shop.payments.snapshot(customer)).subscriptions
    return subscription.id


async def test_a_key_names_one_request(shop: Shop) -> None:
    payments = shop.payments
    customer = await payments.create_customer(ACCOUNT, key=shop.key("a"))
    assert await payments.create_customer(ACCOUNT, key=shop.key("a")) == customer
    with pytest.raises(Conflict):
        await payments.create_customer(AccountId("acc_2"), key=shop.key("a"))
    page = await payments.plan_checkout(customer, PRO, key=shop.key("b"), **URLS)
    assert await payments.plan_checkout(customer, PRO, key=shop.key("b"), **URLS) == page
    with pytest.raises(Conflict):
        await payments.plan_checkout(customer, ENTERPRISE, key=shop.key("b"), **URLS)
    assert page.expires_at > shop.now()
    assert page.session_id in page.url


async def test_a_new_customer_has_nothing(shop: Shop) -> None:
    customer = await shop.payments.create_customer(ACCOUNT, key=shop.key("a"))
    found = await shop.payments.snapshot(customer)
    assert (found.customer_id, found.is_deleted) == (customer, False)
    assert (found.subscriptions, found.lines, found.packs) == ((), (), ())
    assert (found.refunds, found.disputes) == ((), ())


async def test_a_paid_plan_is_a_subscription_and_a_line(shop: Shop) -> None:
    customer = await subscribed(shop)
    found = await shop.payments.snapshot(customer)
    (subscription,), (line,) = found.subscriptions, found.lines
    assert (subscription.status, subscription.plan_key, subscription.plan_version) == (
        "active",
        "pro",
        1,
    )
    for at in (subscription.period_start, line.paid_at):
        assert abs(at - shop.now()) <= shop.slack
    assert not subscription.cancel_at_period_end
    assert (line.plan_key, line.plan_version, line.amount_cents) == ("pro", 1, 1_900)
    assert (line.period_start, line.period_end) == (
        subscription.period_start,
        subscription.period_end,
    )
    assert not line.is_proration
    assert await shop.payments.customer_of(line.payment) == customer


async def test_a_paid_pack_is_a_pack_and_no_subscription(bank: Bank) -> None:
    customer = await bank.payments.create_customer(ACCOUNT, key="a")
    page = await bank.payments.pack_checkout(customer, SMALL, key="b", **URLS)
    assert (await bank.payments.snapshot(customer)).packs == ()
    bank.pay(page)
    found = await bank.payments.snapshot(customer)
    (pack,) = found.packs
    assert (pack.session_id, pack.pack_key, pack.pack_version) == (page.session_id, "small", 1)
    assert (pack.amount_cents, pack.paid_at) == (500, bank.now())
    assert (found.subscriptions, found.lines) == ((), ())


async def test_an_upgrade_pays_the_difference_now(bank: Bank) -> None:
    customer = await subscribed(bank)
    bank.wait(timedelta(days=10))
    subscription = await subscription_id(bank, customer)
    await bank.payments.change_plan(subscription, ENTERPRISE, key="up")
    await bank.payments.change_plan(subscription, ENTERPRISE, key="up again")
    found = await bank.payments.snapshot(customer)
    assert found.subscriptions[0].plan_key == "enterprise"
    back, due = sorted(found.lines[1:], key=lambda line: line.amount_cents)
    assert (back.plan_key, due.plan_key) == ("pro", "enterprise")
    assert back.amount_cents < 0 < due.amount_cents
    for line in (back, due):
        assert line.is_proration
        assert (line.period_start, line.period_end) == (bank.now(), found.lines[0].period_end)
    assert back.payment == due.payment != found.lines[0].payment


async def test_a_declined_upgrade_leaves_the_subscription(shop: Shop) -> None:
    customer = await subscribed(shop, fails_later=True)
    before = await shop.payments.snapshot(customer)
    subscription = await subscription_id(shop, customer)
    with pytest.raises(InvalidState):
        await shop.payments.change_plan(subscription, ENTERPRISE, key=shop.key("up"))
    assert await shop.payments.snapshot(customer) == before


async def test_a_downgrade_moves_no_money(shop: Shop) -> None:
    customer = await subscribed(shop, ENTERPRISE)
    before = await shop.payments.snapshot(customer)
    await shop.payments.change_plan(
        await subscription_id(shop, customer), PRO, key=shop.key("down")
    )
    found = await shop.payments.snapshot(customer)
    assert found.subscriptions[0].plan_key == "pro"
    assert found.lines == before.lines


async def test_cancelling_and_taking_it_back(shop: Shop) -> None:
    customer = await subscribed(shop)
    subscription = await subscription_id(shop, customer)
    for number, cancel in enumerate((True, True, False)):
        await shop.payments.cancel_at_period_end(
            subscription, cancel=cancel, key=shop.key(f"k{number}")
        )
        found = await shop.payments.snapshot(customer)
        assert found.subscriptions[0].cancel_at_period_end is cancel


async def test_refunds_up_to_what_was_paid(shop: Shop) -> None:
    customer = await subscribed(shop)
    payment = (await shop.payments.snapshot(customer)).lines[0].payment
    first = await shop.payments.refund(payment, 900, key=shop.key("a"))
    assert await shop.payments.refund(payment, 900, key=shop.key("a")) == first
    with pytest.raises(InvalidState):
        await shop.payments.refund(payment, 1_001, key=shop.key("b"))
    await shop.payments.refund(payment, None, key=shop.key("c"))
    with pytest.raises(InvalidState):
        await shop.payments.refund(payment, None, key=shop.key("d"))
    refunds = (await shop.payments.snapshot(customer)).refunds
    assert [(one.payment, one.amount_cents, one.paid_cents) for one in refunds] == [
        (payment, 900, 1_900),
        (payment, 1_000, 1_900),
    ]
    with pytest.raises(NotFound):
        await shop.payments.refund("pi_nobodys", None, key=shop.key("e"))


async def test_a_dispute_and_its_end(bank: Bank) -> None:
    customer = await subscribed(bank)
    payment = (await bank.payments.snapshot(customer)).lines[0].payment
    dispute = bank.dispute(payment)
    (found,) = (await bank.payments.snapshot(customer)).disputes
    assert (found.id, found.payment, found.status) == (dispute, payment, DisputeStatus.WITHDRAWN)
    assert (found.amount_cents, found.paid_cents) == (1_900, 1_900)
    with pytest.raises(InvalidState):
        await bank.payments.refund(payment, None, key="a")
    bank.win(dispute)
    (found,) = (await bank.payments.snapshot(customer)).disputes
    assert found.status is DisputeStatus.WON


async def test_a_deleted_customer_has_nothing_live(shop: Shop) -> None:
    customer = await subscribed(shop)
    await shop.payments.delete_customer(customer)
    await shop.payments.delete_customer(customer)
    await shop.payments.delete_customer(CustomerId("cus_nobody"))
    found = await shop.payments.snapshot(customer)
    assert found.is_deleted
    assert not any(one.status.is_live for one in found.subscriptions)
    with pytest.raises(NotFound):
        await shop.payments.portal(customer, return_url="https://easel.test/")


async def test_who_has_changed(bank: Bank) -> None:
    old = await subscribed(bank)
    bank.wait(timedelta(days=2))
    since = bank.now()
    new = await bank.payments.create_customer(AccountId("acc_2"), key="new")
    page = await bank.payments.pack_checkout(new, SMALL, key="pack", **URLS)
    bank.pay(page)
    assert {one async for one in bank.payments.customers(changed_since=None)} == {old, new}
    assert {one async for one in bank.payments.customers(changed_since=since)} == {new}
    payment = (await bank.payments.snapshot(old)).lines[0].payment
    bank.dispute(payment)
    # a dispute names its payment alone
    assert {one async for one in bank.payments.customers(changed_since=since)} == {old, new}


async def test_strangers_are_not_found(shop: Shop) -> None:
    with pytest.raises(NotFound):
        await shop.payments.snapshot(CustomerId("cus_nobody"))
    with pytest.raises(NotFound):
        await shop.payments.plan_checkout(CustomerId("cus_nobody"), PRO, key=shop.key("a"), **URLS)
    with pytest.raises(NotFound):
        await shop.payments.cancel_at_period_end("sub_nobody", cancel=True, key=shop.key("b"))
    with pytest.raises(NotFound):
        await shop.payments.change_plan("sub_nobody", PRO, key=shop.key("c"))
    with pytest.raises(NotFound):
        await shop.payments.customer_of("pi_nobodys")


async def test_a_provider_that_is_away_is_down(bank: Bank) -> None:
    customer = await subscribed(bank)
    bank.go_away()
    with pytest.raises(DependencyDown):
        await bank.payments.snapshot(customer)
    with pytest.raises(DependencyDown):
        await bank.payments.create_customer(ACCOUNT, key="z")
    with pytest.raises(DependencyDown):
        _ = [one async for one in bank.payments.customers(changed_since=None)]


# --- what only Stripe has


async def test_many_pages_are_read_to_their_end() -> None:
    async with stripe_bank() as bank:
        customer = await bank.payments.create_customer(ACCOUNT, key="a")
        for number in range(103):
            page = await bank.payments.pack_checkout(customer, SMALL, key=f"{number}", **URLS)
            bank.pay(page)
        found = await bank.payments.snapshot(customer)
        assert len({pack.session_id for pack in found.packs}) == 103


async def test_another_process_sells_at_the_same_price() -> None:
    async with (
        stripe_bank() as bank,
        open_stripe(
            bank.stand_in.key, api_url=bank.stand_in.url, timeout_s=30, max_retries=0
        ) as calls,
    ):
        customer = await bank.payments.create_customer(ACCOUNT, key="a")
        await bank.payments.plan_checkout(customer, PRO, key="b", **URLS)
        await StripePayments(calls).plan_checkout(customer, PRO, key="c", **URLS)
        prices = await calls.v1.prices.list_async({"limit": 100})
        assert [(price.lookup_key, price.unit_amount) for price in prices.data] == [
            ("easel_pro_v1", 1_900)
        ]
        metadata = prices.data[0].metadata.to_dict()
        assert metadata == {"plan_key": "pro", "plan_version": "1"}
        customers = await calls.v1.customers.list_async({"limit": 100})
        assert [one.metadata.to_dict() for one in customers.data if one.metadata] == [
            {"account_id": ACCOUNT}
        ]
