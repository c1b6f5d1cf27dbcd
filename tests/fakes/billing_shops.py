"""Payment providers as tests meet them: what billing calls, and what people do there."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from billing.clients.stripe.calls import StripeCalls, open_stripe
from billing.clients.stripe.payments import StripePayments
from billing.domain.accounts import AccountId
from billing.domain.payments import Checkout, CustomerId
from billing.domain.plans import PackVersion, PlanVersion
from billing.ports.payments import Payments
from billing.storage.plans import read_plan_book
from easel_kit.ids import new_id
from tests.fakes.billing_payments import MemoryPayments
from tests.fakes.stripe_places import RealStripe
from tests.fakes.stripe_stand_in import FAILS_LATER, PAYS, StripeStandIn, stripe_stand_in

BOOK = read_plan_book(None)
PLANS = {terms.key: PlanVersion(1, terms) for terms in BOOK.plans}
PRO, ENTERPRISE = PLANS["pro"], PLANS["enterprise"]
SMALL = PackVersion(1, next(terms for terms in BOOK.packs if terms.key == "small"))
URLS = {"success_url": "https://easel.test/paid", "cancel_url": "https://easel.test/not"}
ACCOUNT = AccountId("acc_1")
_SLACK = timedelta(minutes=5)


class Shop(Protocol):
    """A provider where people subscribe."""

    payments: Payments
    slack: timedelta
    """How far its clock and `now` may be apart."""

    def now(self) -> datetime: ...
    def key(self, name: str) -> str:
        """An idempotency key of this test alone."""
        ...

    async def subscribe(
        self, customer: CustomerId, plan: PlanVersion, *, fails_later: bool
    ) -> None:
        """With a card that pays; with `fails_later` it is declined from then on."""
        ...


class Bank(Shop, Protocol):
    """A provider whose clock and banks a test moves."""

    def pay(self, checkout: Checkout, *, fails_later: bool = False) -> None: ...
    def wait(self, by: timedelta) -> None: ...
    def dispute(self, payment: str) -> str: ...
    def win(self, dispute_id: str) -> None: ...
    def go_away(self) -> None: ...


class _Paying(ABC):
    """People subscribe on the page."""

    payments: Payments

    def key(self, name: str) -> str:
        return name

    async def subscribe(
        self, customer: CustomerId, plan: PlanVersion, *, fails_later: bool
    ) -> None:
        page = await self.payments.plan_checkout(customer, plan, key="page", **URLS)
        self.pay(page, fails_later=fails_later)

    @abstractmethod
    def pay(self, checkout: Checkout, *, fails_later: bool = False) -> None:
        """Types a card on the page and sends it."""


class MemoryBank(_Paying):
    """The fake."""

    def __init__(self) -> None:
        self.memory = MemoryPayments()
        self.payments: Payments = self.memory
        self.slack = timedelta()

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


class StandInBank(_Paying):
    """Stripe's client over HTTP."""

    def __init__(self, stand_in: StripeStandIn, payments: StripePayments) -> None:
        self.stand_in = stand_in
        self.payments: Payments = payments
        self.slack = timedelta()

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


class ApiShop:
    """Stripe, or its stand-in, by Stripe's public API alone.

    No call of the API pays on a hosted page: the subscription is made as that page makes it.
    """

    def __init__(self, calls: StripeCalls) -> None:
        self.payments: Payments = StripePayments(calls)
        self.slack = _SLACK
        self._v1 = calls.v1
        self._run = new_id("run")

    def now(self) -> datetime:
        return datetime.now(UTC)

    def key(self, name: str) -> str:
        return f"{self._run}-{name}"

    async def subscribe(
        self, customer: CustomerId, plan: PlanVersion, *, fails_later: bool
    ) -> None:
        page = self.key(f"page-{plan.terms.key}")
        await self.payments.plan_checkout(customer, plan, key=page, **URLS)  # makes the price
        prices = await self._v1.prices.list_async(
            {"lookup_keys": [f"easel_{plan.terms.key}_v{plan.version}"]}
        )
        card = await self._card(customer, "pm_card_visa")
        made = await self._v1.subscriptions.create_async(
            {
                "customer": customer,
                "items": [{"price": prices.data[0].id}],
                "default_payment_method": card,
            }
        )
        assert made.status == "active"
        if fails_later:
            broken = await self._card(customer, "pm_card_chargeCustomerFail")
            await self._v1.subscriptions.update_async(made.id, {"default_payment_method": broken})

    async def _card(self, customer: CustomerId, card: str) -> str:
        return (await self._v1.payment_methods.attach_async(card, {"customer": customer})).id

    async def clear(self, since: float) -> None:
        """Deletes the customers that tests have made since then (Unix seconds)."""
        made = await self._v1.customers.list_async({"created": {"gte": int(since)}, "limit": 100})
        for one in made.data:
            metadata = one.metadata.to_dict() if one.metadata else {}
            if metadata.get("account_id") in {ACCOUNT, "acc_2"}:
                await self.payments.delete_customer(CustomerId(one.id))


@asynccontextmanager
async def api_shop(*, real: bool) -> AsyncIterator[ApiShop]:
    """Stripe's test mode where a key is given, else the test is skipped; or the stand-in."""
    if not real:
        async with (
            stripe_stand_in() as stand_in,
            open_stripe(stand_in.key, api_url=stand_in.url, timeout_s=30, max_retries=0) as calls,
        ):
            yield ApiShop(calls)
        return
    key = RealStripe().stripe_test_secret_key.get_secret_value()
    if not key:
        pytest.skip("STRIPE_TEST_SECRET_KEY is not set")
    assert key.startswith(("sk_test_", "rk_test_")), "never with a live key"
    began = time.time()
    async with open_stripe(key, api_url="", timeout_s=60, max_retries=2) as calls:
        shop = ApiShop(calls)
        try:
            yield shop
        finally:
            await shop.clear(began)
