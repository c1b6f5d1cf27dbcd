"""Stripe in memory: the port `Payments`, and what users and banks do at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TypeVar, cast

from billing.domain.accounts import AccountId, months_after
from billing.domain.payments import (
    Checkout,
    CustomerId,
    CustomerSnapshot,
    Dispute,
    DisputeStatus,
    PaidLine,
    PaidPack,
    Refund,
    SubscriptionSnapshot,
    SubscriptionStatus,
)
from billing.domain.plans import PackVersion, PlanVersion
from easel_kit.errors import Conflict, DependencyDown, InvalidState, NotFound

Answer = TypeVar("Answer")

_PAGE_TTL = timedelta(hours=24)


@dataclass
class _Customer:
    id: CustomerId
    changed_at: datetime
    card_works: bool = True
    is_deleted: bool = False
    subscriptions: dict[str, SubscriptionSnapshot] = field(default_factory=dict)
    lines: list[PaidLine] = field(default_factory=list)
    packs: list[PaidPack] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    disputes: dict[str, Dispute] = field(default_factory=dict)
    paid: dict[str, int] = field(default_factory=dict)
    """Cents by payment."""


@dataclass(frozen=True)
class _Page:
    customer: _Customer
    plan: PlanVersion | None = None
    pack: PackVersion | None = None


class MemoryPayments:
    """The port `Payments`; a month's end comes only with `renew`."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = now
        self.is_away = False
        self._ids = count(1)
        self._answers: dict[str, tuple[object, object]] = {}
        self._customers: dict[CustomerId, _Customer] = {}
        self._pages: dict[str, _Page] = {}
        self._plans: dict[tuple[str, int], PlanVersion] = {}

    # --- the port

    async def create_customer(self, account_id: AccountId, *, key: str) -> CustomerId:
        """A customer."""

        def make() -> CustomerId:
            customer = _Customer(CustomerId(self._id("cus")), self.now)
            self._customers[customer.id] = customer
            return customer.id

        return self._once(key, account_id, make)

    async def plan_checkout(
        self,
        customer_id: CustomerId,
        plan: PlanVersion,
        *,
        success_url: str,
        cancel_url: str,
        key: str,
    ) -> Checkout:
        """A page for a plan."""
        self._plans[plan.key, plan.version] = plan
        wish = (customer_id, plan.key, plan.version, success_url, cancel_url)
        return self._once(key, wish, lambda: self._open(_Page(self._live(customer_id), plan)))

    async def pack_checkout(
        self,
        customer_id: CustomerId,
        pack: PackVersion,
        *,
        success_url: str,
        cancel_url: str,
        key: str,
    ) -> Checkout:
        """A page for a pack."""
        wish = (customer_id, pack.key, pack.version, success_url, cancel_url)
        return self._once(key, wish, lambda: self._open(_Page(self._live(customer_id), pack=pack)))

    async def portal(self, customer_id: CustomerId, *, return_url: str) -> str:
        """A page that does nothing."""
        del return_url
        return f"https://portal.test/{self._live(customer_id).id}"

    async def change_plan(self, subscription_id: str, plan: PlanVersion, *, key: str) -> None:
        """Moves a subscription."""
        self._reach()
        self._plans[plan.key, plan.version] = plan
        customer, subscription = self._subscription(subscription_id)
        old = self._plans[subscription.plan_key, subscription.plan_version]
        if (old.key, old.version) == (plan.key, plan.version):
            return

        def move() -> None:
            if plan.terms.price_cents > old.terms.price_cents:
                self._upgrade(customer, subscription, old, plan)
            self._set(customer, replace(subscription, plan_key=plan.key, plan_version=plan.version))

        self._once(key, (subscription_id, plan.key, plan.version), move)

    async def cancel_at_period_end(self, subscription_id: str, *, cancel: bool, key: str) -> None:
        """Lets a subscription end, or not."""
        self._reach()
        customer, subscription = self._subscription(subscription_id)
        self._once(
            key,
            (subscription_id, cancel),
            lambda: self._set(customer, replace(subscription, cancel_at_period_end=cancel)),
        )

    async def delete_customer(self, customer_id: CustomerId) -> None:
        """Deletes a customer."""
        self._reach()
        customer = self._customers.get(customer_id)
        if customer is None or customer.is_deleted:
            return
        customer.is_deleted = True
        for one in list(customer.subscriptions.values()):
            self._set(customer, replace(one, status=SubscriptionStatus.CANCELED))

    async def refund(self, payment: str, amount_cents: int | None, *, key: str) -> str:
        """Gives money back."""
        self._reach()
        customer = self._payer(payment)

        def give() -> str:
            if any(
                one.payment == payment and one.status is DisputeStatus.WITHDRAWN
                for one in customer.disputes.values()
            ):
                raise InvalidState("this payment is disputed")
            left = customer.paid[payment] - sum(
                one.amount_cents for one in customer.refunds if one.payment == payment
            )
            amount = left if amount_cents is None else amount_cents
            if left == 0 or amount > left:
                raise InvalidState("this payment is refunded already")
            made = Refund(self._id("re"), payment, amount, customer.paid[payment], self.now)
            customer.refunds.append(made)
            customer.changed_at = self.now
            return made.id

        return self._once(key, (payment, amount_cents), give)

    async def snapshot(self, customer_id: CustomerId) -> CustomerSnapshot:
        """Everything of a customer."""
        self._reach()
        customer = self._customers.get(customer_id)
        if customer is None:
            raise NotFound("customer", customer_id)
        return CustomerSnapshot(
            customer_id,
            customer.is_deleted,
            tuple(customer.subscriptions.values()),
            tuple(customer.lines),
            tuple(customer.packs),
            tuple(customer.refunds),
            tuple(customer.disputes.values()),
        )

    async def customer_of(self, payment: str) -> CustomerId | None:
        """Who paid."""
        self._reach()
        return self._payer(payment).id

    async def customers(self, *, changed_since: datetime | None) -> AsyncIterator[CustomerId]:
        """All customers, or those that changed."""
        self._reach()
        for customer in list(self._customers.values()):
            if changed_since is None:
                if not customer.is_deleted:
                    yield customer.id
            elif customer.changed_at >= changed_since:
                yield customer.id

    # --- what users and banks do

    def pay(self, session_id: str) -> None:
        """Pays a page."""
        page = self._pages.pop(session_id)
        customer = page.customer
        if page.pack is not None:
            terms = page.pack.terms
            payment = self._charge(customer, terms.price_cents)
            customer.packs.append(
                PaidPack(
                    session_id,
                    payment,
                    terms.key,
                    page.pack.version,
                    terms.price_cents,
                    self.now,
                )
            )
        elif page.plan is not None:
            subscription = SubscriptionSnapshot(
                id=self._id("sub"),
                status=SubscriptionStatus.ACTIVE,
                plan_key=page.plan.key,
                plan_version=page.plan.version,
                period_start=self.now,
                period_end=months_after(self.now, 1),
                cancel_at_period_end=False,
                created_at=self.now,
            )
            self._set(customer, subscription)
            self._month(customer, subscription)

    def renew(self, subscription_id: str) -> None:
        """The period is over: the next one is paid, or the subscription ends."""
        customer, subscription = self._subscription(subscription_id)
        self.now = max(self.now, subscription.period_end)
        if subscription.cancel_at_period_end:
            self._set(customer, replace(subscription, status=SubscriptionStatus.CANCELED))
            return
        following = replace(
            subscription,
            period_start=subscription.period_end,
            period_end=months_after(subscription.period_end, 1),
            status=SubscriptionStatus.ACTIVE
            if customer.card_works
            else SubscriptionStatus.PAST_DUE,
        )
        self._set(customer, following)
        if customer.card_works:
            self._month(customer, following)

    def break_card(self, customer_id: CustomerId) -> None:
        """The card declines from now on."""
        self._live(customer_id).card_works = False

    def dispute(self, payment: str) -> str:
        """The bank takes a payment back; answers the dispute's id."""
        customer = self._payer(payment)
        cents = customer.paid[payment]
        made = Dispute(self._id("du"), payment, DisputeStatus.WITHDRAWN, cents, cents, self.now)
        customer.disputes[made.id] = made
        customer.changed_at = self.now
        return made.id

    def decide(self, dispute_id: str, *, is_won: bool) -> None:
        """The bank decides."""
        for customer in self._customers.values():
            if dispute_id in customer.disputes and is_won:
                customer.disputes[dispute_id] = replace(
                    customer.disputes[dispute_id], status=DisputeStatus.WON
                )
                customer.changed_at = self.now

    # --- inside

    def _reach(self) -> None:
        if self.is_away:
            raise DependencyDown("the payment provider does not answer")

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._ids)}"

    def _once(self, key: str, wish: object, do: Callable[[], Answer]) -> Answer:
        """Carries a request out once; the same key answers the same again, refusals too."""
        self._reach()
        if key not in self._answers:
            answer: object
            try:
                answer = do()
            except InvalidState as refusal:
                answer = refusal
            self._answers[key] = (wish, answer)
        known, answered = self._answers[key]
        if known != wish:
            raise Conflict("this key was used for something else")
        if isinstance(answered, InvalidState):
            raise answered
        return cast("Answer", answered)

    def _open(self, page: _Page) -> Checkout:
        session = self._id("cs")
        self._pages[session] = page
        return Checkout(session, f"https://pay.test/{session}", self.now + _PAGE_TTL)

    def _live(self, customer_id: CustomerId) -> _Customer:
        customer = self._customers.get(customer_id)
        if customer is None or customer.is_deleted:
            raise NotFound("customer", customer_id)
        return customer

    def _subscription(self, subscription_id: str) -> tuple[_Customer, SubscriptionSnapshot]:
        for customer in self._customers.values():
            if subscription_id in customer.subscriptions:
                return customer, customer.subscriptions[subscription_id]
        raise NotFound("subscription", subscription_id)

    def _payer(self, payment: str) -> _Customer:
        for customer in self._customers.values():
            if payment in customer.paid:
                return customer
        raise NotFound("payment", payment)

    def _set(self, customer: _Customer, subscription: SubscriptionSnapshot) -> None:
        customer.subscriptions[subscription.id] = subscription
        customer.changed_at = self.now

    def _charge(self, customer: _Customer, cents: int) -> str:
        payment = self._id("pi")
        customer.paid[payment] = cents
        customer.changed_at = self.now
        return payment

    def _month(self, customer: _Customer, subscription: SubscriptionSnapshot) -> None:
        plan = self._plans[subscription.plan_key, subscription.plan_version]
        payment = self._charge(customer, plan.terms.price_cents)
        customer.lines.append(
            self._line(plan, payment, plan.terms.price_cents, subscription, is_proration=False)
        )

    def _upgrade(
        self,
        customer: _Customer,
        subscription: SubscriptionSnapshot,
        old: PlanVersion,
        new: PlanVersion,
    ) -> None:
        if not customer.card_works:
            raise InvalidState("Your card was declined.")
        month_s = (subscription.period_end - subscription.period_start).total_seconds()
        left = (subscription.period_end - self.now).total_seconds() / month_s
        back, due = (-round(old.terms.price_cents * left), round(new.terms.price_cents * left))
        payment = self._charge(customer, due + back)
        rest = replace(subscription, period_start=self.now)
        customer.lines.append(self._line(old, payment, back, rest, is_proration=True))
        customer.lines.append(self._line(new, payment, due, rest, is_proration=True))

    def _line(
        self,
        plan: PlanVersion,
        payment: str,
        cents: int,
        period: SubscriptionSnapshot,
        *,
        is_proration: bool,
    ) -> PaidLine:
        return PaidLine(
            id=self._id("il"),
            invoice_id=payment.replace("pi", "in"),
            payment=payment,
            plan_key=plan.key,
            plan_version=plan.version,
            amount_cents=cents,
            is_proration=is_proration,
            period_start=period.period_start,
            period_end=period.period_end,
            paid_at=self.now,
        )
