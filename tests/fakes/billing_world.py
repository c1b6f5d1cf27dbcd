"""Customers at a payment provider who live on by a seed, and the events that tell of it.

Everything that happens is in the snapshots from then on; an event only names its customer, or its
payment, as a dispute does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from billing.domain.payments import (
    CustomerId,
    CustomerSnapshot,
    Dispute,
    DisputeStatus,
    Notice,
    PaidLine,
    PaidPack,
    Refund,
    SubscriptionSnapshot,
    SubscriptionStatus,
)

BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)
_MONTH = timedelta(days=30)
_PRICES = {"pro": 1_900, "enterprise": 29_900}
_PACK_CENTS = 500


@dataclass
class _Payment:
    id: str
    cents: int
    returned: int = 0
    is_disputed: bool = False


@dataclass
class _Customer:
    """One life; `number` makes its ids."""

    id: CustomerId
    subscription: SubscriptionSnapshot | None = None
    ended: list[SubscriptionSnapshot] = field(default_factory=list)
    lines: list[PaidLine] = field(default_factory=list)
    packs: list[PaidPack] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    payments: list[_Payment] = field(default_factory=list)
    made: int = 0

    def new_id(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}_{self.id.removeprefix('cus_')}_{self.made:04}"

    def snapshot(self) -> CustomerSnapshot:
        live = [] if self.subscription is None else [self.subscription]
        return CustomerSnapshot(
            customer_id=self.id,
            is_deleted=False,
            subscriptions=(*self.ended, *live),
            lines=tuple(self.lines),
            packs=tuple(self.packs),
            refunds=tuple(self.refunds),
            disputes=tuple(self.disputes),
        )


class World:
    """Of the port `Payments` what a look and reconciliation need."""

    def __init__(self, seed: int, customers: int, *, plan_version: int = 1) -> None:
        self.now = BEGIN
        self.looks = 0
        self._chance = random.Random(f"{seed}/world")
        self._version = plan_version
        self._customers = {
            CustomerId(f"cus_{number:04}"): _Customer(CustomerId(f"cus_{number:04}"))
            for number in range(customers)
        }
        self._events = 0
        self.delay: Callable[[], float] | None = None

    @property
    def customer_ids(self) -> list[CustomerId]:
        """Everyone."""
        return list(self._customers)

    async def snapshot(self, customer_id: CustomerId) -> CustomerSnapshot:
        """The customer's state at one moment of the call."""
        self.looks += 1
        await asyncio.sleep(0)
        seen = self.state_of(customer_id)
        await asyncio.sleep(0 if self.delay is None else self.delay())
        return seen

    def state_of(self, customer_id: CustomerId) -> CustomerSnapshot:
        """As it is at this moment."""
        return self._customers[customer_id].snapshot()

    async def customer_of(self, payment: str) -> CustomerId | None:
        """Who made a payment: its id says so."""
        return CustomerId(f"cus_{payment.split('_')[1]}")

    async def customers(self, *, changed_since: datetime | None) -> AsyncIterator[CustomerId]:
        """Everyone: nobody here stands still for long."""
        del changed_since
        for customer_id in self._customers:
            yield customer_id

    def live_on(self) -> list[Notice]:
        """Something happens to someone; the events that tell of it."""
        self.now += timedelta(minutes=1)
        customer = self._chance.choice(list(self._customers.values()))
        kinds = self._chance.choice(self._possible(customer))()
        return [self._notice(kind, customer) for kind in kinds]

    def _notice(self, kind: str, customer: _Customer) -> Notice:
        self._events += 1
        event_id = f"evt_{self._events:06}"
        if kind.startswith("charge.dispute"):
            return Notice(event_id, kind, None, self.now, customer.disputes[-1].payment)
        return Notice(event_id, kind, customer.id, self.now)

    def _possible(self, customer: _Customer) -> list[Callable[[], list[str]]]:
        actions: list[Callable[[], list[str]]] = [lambda: self._buy_pack(customer)]
        subscription = customer.subscription
        if subscription is None:
            return [*actions, lambda: self._subscribe(customer), lambda: self._subscribe(customer)]
        if subscription.status is SubscriptionStatus.PAST_DUE:
            actions += [lambda: self._recover(customer)] * 2
        else:
            actions += [lambda: self._renew(customer), lambda: self._decline(customer)]
            actions += [lambda: self._change(customer)] * 2
        actions += [lambda: self._mark(customer), lambda: self._end(customer)]
        if any(not one.is_disputed and one.returned < one.cents for one in customer.payments):
            actions += [lambda: self._refund(customer), lambda: self._dispute(customer)]
        return actions

    def _subscribe(self, customer: _Customer) -> list[str]:
        plan = self._chance.choice(list(_PRICES))
        customer.subscription = SubscriptionSnapshot(
            id=customer.new_id("sub"),
            status=SubscriptionStatus.ACTIVE,
            plan_key=plan,
            plan_version=self._version,
            period_start=self.now,
            period_end=self.now + _MONTH,
            cancel_at_period_end=False,
            created_at=self.now,
        )
        self._pay_month(customer)
        return [
            "checkout.session.completed",
            "customer.subscription.created",
            "customer.subscription.updated",
            "invoice.paid",
            "payment_method.attached",
        ]

    def _renew(self, customer: _Customer) -> list[str]:
        self._next_month(customer, SubscriptionStatus.ACTIVE)
        self._pay_month(customer)
        return ["invoice.created", "invoice.paid", "customer.subscription.updated"]

    def _decline(self, customer: _Customer) -> list[str]:
        self._next_month(customer, SubscriptionStatus.PAST_DUE)
        return ["invoice.payment_failed", "customer.subscription.updated"]

    def _recover(self, customer: _Customer) -> list[str]:
        assert customer.subscription is not None
        customer.subscription = replace(customer.subscription, status=SubscriptionStatus.ACTIVE)
        self._pay_month(customer)
        return ["invoice.paid", "customer.subscription.updated"]

    def _change(self, customer: _Customer) -> list[str]:
        """To the other plan: dearer with prorations now, cheaper without a bill."""
        subscription = customer.subscription
        assert subscription is not None
        plan = "enterprise" if subscription.plan_key == "pro" else "pro"
        if plan == "enterprise":
            payment = self._payment(customer, _PRICES["enterprise"] // 2)
            back = -_PRICES["pro"] // 2
            self._line(customer, payment, subscription.plan_key, back, is_proration=True)
            self._line(customer, payment, plan, _PRICES[plan] // 2, is_proration=True)
        customer.subscription = replace(subscription, plan_key=plan)
        return ["customer.subscription.updated", "invoice.paid"]

    def _mark(self, customer: _Customer) -> list[str]:
        subscription = customer.subscription
        assert subscription is not None
        ends = not subscription.cancel_at_period_end
        customer.subscription = replace(subscription, cancel_at_period_end=ends)
        return ["customer.subscription.updated"]

    def _end(self, customer: _Customer) -> list[str]:
        assert customer.subscription is not None
        ended = replace(customer.subscription, status=SubscriptionStatus.CANCELED)
        customer.ended.append(ended)
        customer.subscription = None
        return ["customer.subscription.deleted"]

    def _buy_pack(self, customer: _Customer) -> list[str]:
        payment = self._payment(customer, _PACK_CENTS)
        customer.packs.append(
            PaidPack(
                session_id=customer.new_id("cs"),
                payment=payment,
                pack_key="small",
                pack_version=1,
                amount_cents=_PACK_CENTS,
                paid_at=self.now,
            )
        )
        return ["checkout.session.completed", "payment_intent.succeeded"]

    def _refund(self, customer: _Customer) -> list[str]:
        payment = self._refundable(customer)
        cents = self._chance.randint(1, payment.cents - payment.returned)
        payment.returned += cents
        customer.refunds.append(
            Refund(customer.new_id("re"), payment.id, cents, payment.cents, self.now)
        )
        return ["charge.refunded", "refund.created"]

    def _dispute(self, customer: _Customer) -> list[str]:
        payment = self._refundable(customer)
        payment.is_disputed = True
        customer.disputes.append(
            Dispute(
                customer.new_id("dp"),
                payment.id,
                DisputeStatus.WITHDRAWN,
                payment.cents - payment.returned,
                payment.cents,
                self.now,
            )
        )
        return ["charge.dispute.created", "charge.dispute.funds_withdrawn"]

    def _refundable(self, customer: _Customer) -> _Payment:
        return self._chance.choice(
            [one for one in customer.payments if not one.is_disputed and one.returned < one.cents]
        )

    def _next_month(self, customer: _Customer, status: SubscriptionStatus) -> None:
        assert customer.subscription is not None
        start = customer.subscription.period_end
        customer.subscription = replace(
            customer.subscription, status=status, period_start=start, period_end=start + _MONTH
        )

    def _pay_month(self, customer: _Customer) -> None:
        assert customer.subscription is not None
        plan = customer.subscription.plan_key
        payment = self._payment(customer, _PRICES[plan])
        self._line(customer, payment, plan, _PRICES[plan], is_proration=False)

    def _payment(self, customer: _Customer, cents: int) -> str:
        payment = _Payment(customer.new_id("pi"), cents)
        customer.payments.append(payment)
        return payment.id

    def _line(
        self, customer: _Customer, payment: str, plan: str, cents: int, *, is_proration: bool
    ) -> None:
        subscription = customer.subscription
        assert subscription is not None
        start = subscription.period_start
        if is_proration:
            start += (subscription.period_end - start) / 2
        customer.lines.append(
            PaidLine(
                id=customer.new_id("il"),
                invoice_id=customer.new_id("in"),
                payment=payment,
                plan_key=plan,
                plan_version=self._version,
                amount_cents=cents,
                is_proration=is_proration,
                period_start=start,
                period_end=subscription.period_end,
                paid_at=self.now,
            )
        )
