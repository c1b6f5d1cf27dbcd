"""What users and operators do with money.

No state is taken from what a call answers: afterwards the customer is looked at as a whole.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from billing.domain.accounts import Account
from billing.domain.customers import Customer
from billing.domain.payments import Checkout
from billing.domain.plans import Catalogue, PlanVersion
from billing.ports.payments import Customers, Payments
from billing.service.accounts import Billing
from billing.service.customers import AccountCustomers, request_key
from billing.service.sync import CustomerSync
from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown, InvalidInput, InvalidState
from easel_kit.ids import UserId


@dataclass(frozen=True, slots=True)
class CheckoutOrder:
    """What a user wants to pay for: a plan or a pack, one of the two keys being empty."""

    plan_key: str
    pack_key: str
    success_url: str
    cancel_url: str
    key: str
    """Names this attempt to pay, among those of the user."""


class PaymentDesk:
    """What users ask for where money is concerned."""

    def __init__(
        self,
        billing: Billing,
        payments: Payments,
        customers: AccountCustomers,
        catalogue: Catalogue,
    ) -> None:
        """`billing` knows the accounts, `catalogue` what is on offer."""
        self._billing = billing
        self._payments = payments
        self._customers = customers
        self._catalogue = catalogue

    async def checkout(self, user_id: UserId, order: CheckoutOrder) -> Checkout:
        """A page where the user pays; the same for the same user and key.

        Raises:
            InvalidInput: the plan is free.
            NotFound: no such plan or pack is on offer.
            InvalidState: a plan is asked for beside a live subscription.
            Conflict: the key was used for another order.
        """
        if order.pack_key:
            return await self._pack_checkout(user_id, order)
        plan = self._paid_plan(order.plan_key)
        account = await self._billing.account(user_id)
        await self._customers.refuse_second(account)
        customer = await self._customers.ensured(account)
        return await self._payments.plan_checkout(
            customer.id,
            plan,
            success_url=order.success_url,
            cancel_url=order.cancel_url,
            key=request_key("checkout", account.id, order.key),
        )

    async def portal(self, user_id: UserId, return_url: str) -> str:
        """A page where the user manages cards and invoices.

        Raises:
            InvalidState: the user never came to pay.
        """
        account = await self._billing.account(user_id)
        customer = await self._customers.existing(account)
        return await self._payments.portal(customer.id, return_url=return_url)

    async def change_subscription(self, user_id: UserId, plan_key: str) -> Account:
        """Moves the user's subscription to another paid plan now; idempotent.

        Raises:
            InvalidInput: the plan is free.
            NotFound: no such plan is on offer.
            InvalidState: there is no subscription, or the payment was declined.
        """
        plan = self._paid_plan(plan_key)
        account = await self._billing.account(user_id)
        customer, subscription = await self._customers.subscribed(account)
        key = request_key("change", subscription.id, plan.key, plan.version, customer.version)
        await self._carry_out(customer, self._payments.change_plan(subscription.id, plan, key=key))
        return await self._billing.account(user_id)

    async def cancel_subscription(self, user_id: UserId, *, resume: bool) -> Account:
        """Lets the user's subscription end with its period, or no longer; idempotent.

        Raises:
            InvalidState: there is no subscription.
        """
        account = await self._billing.account(user_id)
        customer, subscription = await self._customers.subscribed(account)
        key = request_key("cancel", subscription.id, not resume, customer.version)
        await self._carry_out(
            customer,
            self._payments.cancel_at_period_end(subscription.id, cancel=not resume, key=key),
        )
        return await self._billing.account(user_id)

    async def _carry_out(self, customer: Customer, request: Awaitable[None]) -> None:
        """Changes something and looks again, also after a failure.

        The look makes the next try's key another one: an old refusal does not answer for it.
        """
        try:
            await request
        except (InvalidState, DependencyDown):
            await self._customers.look_again(customer)
            raise
        await self._customers.look_again(customer)

    async def _pack_checkout(self, user_id: UserId, order: CheckoutOrder) -> Checkout:
        pack = self._catalogue.pack(order.pack_key)
        account = await self._billing.account(user_id)
        customer = await self._customers.ensured(account)
        return await self._payments.pack_checkout(
            customer.id,
            pack,
            success_url=order.success_url,
            cancel_url=order.cancel_url,
            key=request_key("checkout", account.id, order.key),
        )

    def _paid_plan(self, plan_key: str) -> PlanVersion:
        plan = self._catalogue.get(plan_key)
        if plan.terms.price_cents == 0:
            raise InvalidInput("plan_key", "is free: cancel the subscription to get there")
        return plan


class Refunds:
    """Money that an operator gives back."""

    def __init__(
        self, payments: Payments, customers: Customers, sync: CustomerSync, clock: Clock
    ) -> None:
        """`sync` takes back the credits that the money bought."""
        self._payments = payments
        self._customers = customers
        self._sync = sync
        self._clock = clock

    async def refund(self, payment: str, amount_cents: int | None) -> str:
        """Gives a payment back or a part of it, and takes its credits; answers the refund's id.

        The same payment and amount within a day are the same refund.

        Raises:
            NotFound: no such payment.
            InvalidState: it is refunded or disputed already, or that is more than is left.
        """
        key = request_key("refund", payment, "all" if amount_cents is None else amount_cents)
        await self._customers.note_refund(payment, amount_cents, self._clock.now())
        refund = await self._payments.refund(payment, amount_cents, key=key)
        customer_id = await self._payments.customer_of(payment)
        if customer_id is not None and await self._customers.find(customer_id) is not None:
            await self._sync.sync(customer_id)
        return refund
