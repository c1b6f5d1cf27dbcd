"""The customer of an account at the payment provider, made when money is first spoken of."""

from __future__ import annotations

import hashlib

from billing.domain.accounts import Account
from billing.domain.customers import Customer
from billing.domain.payments import SubscriptionSnapshot
from billing.ports.payments import Customers, Payments
from billing.service.sync import CustomerSync
from easel_kit.clock import Clock
from easel_kit.errors import InvalidState


class AccountCustomers:
    """Customers by account, beside the subscription that decides its plan."""

    def __init__(
        self, payments: Payments, customers: Customers, sync: CustomerSync, clock: Clock
    ) -> None:
        """`sync` looks again where what is kept may be old."""
        self._payments = payments
        self._customers = customers
        self._sync = sync
        self._clock = clock

    async def existing(self, account: Account) -> Customer:
        """The account's customer.

        Raises:
            InvalidState: there is none.
        """
        customer = await self._customers.of_account(account.id)
        if customer is None or customer.is_deleted:
            raise InvalidState("nothing has been paid for yet")
        return customer

    async def ensured(self, account: Account) -> Customer:
        """The account's customer, made when there is none; at most one, whoever asks how often."""
        known = await self._customers.of_account(account.id)
        if known is not None and not known.is_deleted:
            return known
        # a deleted customer is followed by another one
        key = request_key("customer", account.id, "" if known is None else known.id)
        customer_id = await self._payments.create_customer(account.id, key=key)
        return await self._customers.add(account.id, customer_id, self._clock.now())

    async def subscribed(self, account: Account) -> tuple[Customer, SubscriptionSnapshot]:
        """The account's customer and the subscription that decides its plan.

        Raises:
            InvalidState: there is none.
        """
        customer = await self._customers.of_account(account.id)
        if customer is not None and await self._customers.subscription(account.id) is None:
            # it may have begun a moment ago
            await self._sync.sync(customer.id)
            customer = await self._customers.of_account(account.id)
        subscription = await self._customers.subscription(account.id)
        if customer is None or subscription is None:
            raise InvalidState("there is no subscription")
        return customer, subscription

    async def refuse_second(self, account: Account) -> None:
        """Looks again whether the account has a subscription.

        Raises:
            InvalidState: it has: one that was paid for a moment ago must not be paid for again.
        """
        customer = await self._customers.of_account(account.id)
        if customer is None:
            return
        await self._sync.sync(customer.id)
        if await self._customers.subscription(account.id) is not None:
            raise InvalidState("there is a subscription: change it instead of starting another")

    async def look_again(self, customer: Customer) -> None:
        """Applies what the payment provider says now."""
        await self._sync.sync(customer.id)


def request_key(*parts: object) -> str:
    """A name for a request to the payment provider: 64 hexadecimal digits of SHA-256."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()
