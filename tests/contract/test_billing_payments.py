"""The port `Payments`: Stripe's client against the stand-in, and the fake that tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Protocol

import pytest

from billing.clients.stripe.calls import open_stripe
from billing.clients.stripe.payments import StripePayments
from billing.domain.accounts import AccountId
from billing.domain.payments import Checkout, CustomerId, DisputeStatus
from billing.domain.plans import PackVersion, PlanVersion
from billing.ports.payments import Payments
from billing.storage.plans import read_plan_book
from easel_kit.errors import Conflict, DependencyDown, InvalidState, NotFound
from tests.fakes.billing_payments import MemoryPayments
from tests.fakes.stripe_stand_in import FAILS_LATER, PAYS, StripeStandIn, stripe_stand_in

BOOK = read_plan_book(None)
PLANS = {terms.key: PlanVersion(1, terms) for terms in BOOK.plans}
PRO, ENTERPRISE = PLANS["pro"], PLANS["enterprise"]
SMALL = PackVersion(1, next(terms for terms in BOOK.packs if terms.key == "small"))
URLS = {"success_url": "https://easel.test/paid", "cancel_url": "https://easel.test/not"}
ACCOUNT = AccountId("acc_1")


class Bank(Protocol):
    """A provider and what others do there."""

    payments: Payments

    def now(self) -> datetime: ...
    def pay(self, checkout: Checkout, *, fails_later: bool = False) -> None: ...
    def wait(self, by: timedelta) -> None: ...
    def dispute(self, payment: str) -> str: ...
    def win(self, dispute_id: str) -> None: ...
    def go_away(self) -> None: ...


class MemoryBank:
    """The fake."""

    def __init__(self) -> None:
        self.memory = MemoryPayments()
        self.payments: Payments = self.memory

    def now(self) -> datetime:
        return self.memory.now

    def pay(self, checkout: Checkout, *, fails_later: bool = False) -> None:
        self.memory.pay(checkout.session_id)
        if fails_later:
            for customer in list(self.memory._customers):
                self.memory.break_card(customer)

    def wait(self, by: timedelta) -> None:
        self.memory.now += by

    def dispute(self, payment: str) -> str:
        return self.memory.dispute(payment)

    def win(self, dispute_id: str) -> None:
        self.memory.decide(dispute_id, is_won=True)

    def go_away(self) -> None:
        self.memory.is_away = True


class StandInBank:
    """Stripe's client over HTTP."""

    def __init__(self, stand_in: StripeStandIn, payments: StripePayments) -> None:
        self.stand_in = stand_in
        self.payments: Payments = payments

    def now(self) -> datetime:
        return self.stand_in.now()

    def pay(self, checkout: Checkout, *, fails_later: bool = False) -> None:
        self.stand_in.pay(checkout.session_id, FAILS_LATER if fails_later else PAYS)

    def wait(self, by: timedelta) -> None:
        self.stand_in.advance(by)

    def dispute(self, payment: str) -> str:
        return str(self.stand_in.dispute(payment)["id"])

    def win(self, dispute_id: str) -> None:
        self.stand_in.decide(dispute_id, "won")

    def go_away(self) -> None:
        self.stand_in.faults(api=[{"kind": "reset"}])


@asynccontextmanager
async def stripe_bank() -> AsyncIterator[StandInBank]:
    async with (
        stripe_stand_in() as stand_in,
        open_stripe(stand_in.key, api_url=stand_in.url, timeout_s=30, max_retries=0) as calls,
    ):
        yield StandInBank(stand_in, StripePayments(calls))


@pytest.fixture(params=["memory", "stripe"])
async def bank(request: pytest.FixtureRequest) -> AsyncIterator[Bank]:
    """Each implementation in turn."""
    if request.param == "memory":
        yield MemoryBank()
        return
    async with stripe_bank() as running:
        yield running


async def subscribed(
    bank: Bank, plan: PlanVersion = PRO, *, fails_later: bool = False
) -> CustomerId:
    customer = await bank.payments.create_customer(ACCOUNT, key="customer")
    page = await bank.payments.plan_checkout(customer, plan, key="page", **URLS)
    bank.pay(page, fails_later=fails_later)
    return customer


async def subscription_id(bank: Bank, customer: CustomerId) -> str:
    (subscription,) = (await bank.payments.snapshot(customer)).subscriptions
    return subscription.id


async def test_a_key_names_one_request(bank: Bank) -> None:
    payments = bank.payments
    customer = await payments.create_customer(ACCOUNT, key="a")
    assert await payments.create_customer(ACCOUNT, key="a") == customer
    with pytest.raises(Conflict):
        await payments.create_customer(AccountId("acc_2"), key="a")
    page = await payments.plan_checkout(customer, PRO, key="b", **URLS)
    assert await payments.plan_checkout(customer, PRO, key="b", **URLS) == page
    with pytest.raises(Conflict):
        await payments.plan_checkout(customer, ENTERPRISE, key="b", **URLS)
    assert page.expires_at > bank.now()
    assert page.session_id in page.url


async def test_a_new_customer_has_nothing(bank: Bank) -> None:
    customer = await bank.payments.create_customer(ACCOUNT, key="a")
    found = await bank.payments.snapshot(customer)
    assert (found.customer_id, found.is_deleted) == (customer, False)
    assert (found.subscriptions, found.lines, found.packs) == ((), (), ())
    assert (found.refunds, found.disputes) == ((), ())


async def test_a_paid_plan_is_a_subscription_and_a_line(bank: Bank) -> None:
    customer = await subscribed(bank)
    found = await bank.payments.snapshot(customer)
    (subscription,), (line,) = found.subscriptions, found.lines
    assert (subscription.status, subscription.plan_key, subscription.plan_version) == (
        "active",
        "pro",
        1,
    )
    assert subscription.period_start == bank.now() == line.paid_at
    assert not subscription.cancel_at_period_end
    assert (line.plan_key, line.plan_version, line.amount_cents) == ("pro", 1, 1_900)
    assert (line.period_start, line.period_end) == (
        subscription.period_start,
        subscription.period_end,
    )
    assert not line.is_proration
    assert await bank.payments.customer_of(line.payment) == customer


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


async def test_a_declined_upgrade_leaves_the_subscription(bank: Bank) -> None:
    customer = await subscribed(bank, fails_later=True)
    before = await bank.payments.snapshot(customer)
    subscription = await subscription_id(bank, customer)
    with pytest.raises(InvalidState):
        await bank.payments.change_plan(subscription, ENTERPRISE, key="up")
    assert await bank.payments.snapshot(customer) == before


async def test_a_downgrade_moves_no_money(bank: Bank) -> None:
    customer = await subscribed(bank, ENTERPRISE)
    before = await bank.payments.snapshot(customer)
    await bank.payments.change_plan(await subscription_id(bank, customer), PRO, key="down")
    found = await bank.payments.snapshot(customer)
    assert found.subscriptions[0].plan_key == "pro"
    assert found.lines == before.lines


async def test_cancelling_and_taking_it_back(bank: Bank) -> None:
    customer = await subscribed(bank)
    subscription = await subscription_id(bank, customer)
    for number, cancel in enumerate((True, True, False)):
        await bank.payments.cancel_at_period_end(subscription, cancel=cancel, key=f"k{number}")
        found = await bank.payments.snapshot(customer)
        assert found.subscriptions[0].cancel_at_period_end is cancel


async def test_refunds_up_to_what_was_paid(bank: Bank) -> None:
    customer = await subscribed(bank)
    payment = (await bank.payments.snapshot(customer)).lines[0].payment
    first = await bank.payments.refund(payment, 900, key="a")
    assert await bank.payments.refund(payment, 900, key="a") == first
    with pytest.raises(InvalidState):
        await bank.payments.refund(payment, 1_001, key="b")
    await bank.payments.refund(payment, None, key="c")
    with pytest.raises(InvalidState):
        await bank.payments.refund(payment, None, key="d")
    refunds = (await bank.payments.snapshot(customer)).refunds
    assert [(one.payment, one.amount_cents, one.paid_cents) for one in refunds] == [
        (payment, 900, 1_900),
        (payment, 1_000, 1_900),
    ]
    with pytest.raises(NotFound):
        await bank.payments.refund("pi_nobodys", None, key="e")


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


async def test_a_deleted_customer_has_nothing_live(bank: Bank) -> None:
    customer = await subscribed(bank)
    await bank.payments.delete_customer(customer)
    await bank.payments.delete_customer(customer)
    await bank.payments.delete_customer(CustomerId("cus_nobody"))
    found = await bank.payments.snapshot(customer)
    assert found.is_deleted
    assert not any(one.status.is_live for one in found.subscriptions)
    with pytest.raises(NotFound):
        await bank.payments.portal(customer, return_url="https://easel.test/")


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


async def test_strangers_are_not_found(bank: Bank) -> None:
    with pytest.raises(NotFound):
        await bank.payments.snapshot(CustomerId("cus_nobody"))
    with pytest.raises(NotFound):
        await bank.payments.plan_checkout(CustomerId("cus_nobody"), PRO, key="a", **URLS)
    with pytest.raises(NotFound):
        await bank.payments.cancel_at_period_end("sub_nobody", cancel=True, key="b")
    with pytest.raises(NotFound):
        await bank.payments.change_plan("sub_nobody", PRO, key="c")
    with pytest.raises(NotFound):
        await bank.payments.customer_of("pi_nobodys")


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
