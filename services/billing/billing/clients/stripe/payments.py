"""The port `Payments` at Stripe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import stripe
from stripe.checkout import Session

from billing.clients.stripe.calls import StripeCalls
from billing.clients.stripe.prices import StripePrices, pack_metadata, plan_ref
from billing.clients.stripe.snapshot import SnapshotReader
from billing.clients.stripe.webhooks import customer_or_payment
from billing.domain.accounts import AccountId
from billing.domain.payments import Checkout, CustomerId, CustomerSnapshot
from billing.domain.plans import PackVersion, PlanVersion
from easel_kit.errors import Internal, NotFound

_ACCOUNT = "account_id"
# all events that tell of something in a snapshot; see docs/operations/payments.md
_EVENT_TYPES = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)


class StripePayments:
    """The port `Payments`."""

    def __init__(self, calls: StripeCalls) -> None:
        """`calls` leads to Stripe or its stand-in."""
        self._calls = calls
        self._v1 = calls.v1
        self._prices = StripePrices(calls)
        self._reader = SnapshotReader(calls, self._prices)

    async def create_customer(self, account_id: AccountId, *, key: str) -> CustomerId:
        """A customer that carries the account's pseudonymous id and nothing else."""
        customer = await self._calls.call(
            self._v1.customers.create_async({"metadata": {_ACCOUNT: account_id}}, _once(key))
        )
        return CustomerId(customer.id)

    async def plan_checkout(
        self,
        customer_id: CustomerId,
        plan: PlanVersion,
        *,
        success_url: str,
        cancel_url: str,
        key: str,
    ) -> Checkout:
        """A page that starts a subscription to a paid plan."""
        price = await self._prices.of_plan(plan)
        call = self._v1.checkout.sessions.create_async(
            {
                "mode": "subscription",
                "customer": customer_id,
                "line_items": [{"price": price, "quantity": 1}],
                "success_url": success_url,
                "cancel_url": cancel_url,
            },
            _once(key),
        )
        return _checkout(await self._calls.call(call, kind="customer", key=customer_id))

    async def pack_checkout(
        self,
        customer_id: CustomerId,
        pack: PackVersion,
        *,
        success_url: str,
        cancel_url: str,
        key: str,
    ) -> Checkout:
        """A page that sells a pack once."""
        price = await self._prices.of_pack(pack)
        call = self._v1.checkout.sessions.create_async(
            {
                "mode": "payment",
                "customer": customer_id,
                "line_items": [{"price": price, "quantity": 1}],
                "metadata": pack_metadata(pack),
                "success_url": success_url,
                "cancel_url": cancel_url,
            },
            _once(key),
        )
        return _checkout(await self._calls.call(call, kind="customer", key=customer_id))

    async def portal(self, customer_id: CustomerId, *, return_url: str) -> str:
        """The URL of a page where the customer manages cards, invoices and subscription."""
        session = await self._calls.call(
            self._v1.billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": return_url}
            ),
            kind="customer",
            key=customer_id,
        )
        return session.url

    async def change_plan(self, subscription_id: str, plan: PlanVersion, *, key: str) -> None:
        """Moves a subscription to another paid plan now; an upgrade's difference is paid now.

        A cheaper plan gives no money back: the credits of the month that was paid stay, and money
        for them too would let them be spent and bought again for nothing.

        Raises:
            InvalidState: the payment was declined; the subscription is as before.
        """
        subscription = await self._subscription(subscription_id)
        for item in subscription["items"].data:
            reference = plan_ref(item.price)
            if reference is not None:
                break
        else:
            raise NotFound("subscription", subscription_id)
        if (reference.key, reference.version) == (plan.key, plan.version):
            return
        params: Any = {
            "items": [{"id": item.id, "price": await self._prices.of_plan(plan)}],
            "proration_behavior": "none",
        }
        if plan.terms.price_cents > (item.price.unit_amount or 0):
            params["proration_behavior"] = "always_invoice"
            params["payment_behavior"] = "error_if_incomplete"
        call = self._v1.subscriptions.update_async(subscription_id, params, _once(key))
        await self._calls.call(call, kind="subscription", key=subscription_id)

    async def cancel_at_period_end(self, subscription_id: str, *, cancel: bool, key: str) -> None:
        """Lets a subscription end with its period, or takes that back."""
        call = self._v1.subscriptions.update_async(
            subscription_id, {"cancel_at_period_end": cancel}, _once(key)
        )
        await self._calls.call(call, kind="subscription", key=subscription_id)

    async def delete_customer(self, customer_id: CustomerId) -> None:
        """Ends all subscriptions at once and deletes the customer; no error when gone."""
        try:
            await self._calls.call(
                self._v1.customers.delete_async(customer_id), kind="customer", key=customer_id
            )
        except NotFound:
            return

    async def refund(self, payment: str, amount_cents: int | None, *, key: str) -> str:
        """Gives money back, all of it or a part; answers the refund's id.

        Raises:
            NotFound: no such payment.
            InvalidState: it is refunded or disputed already.
        """
        params: stripe.params.RefundCreateParams = {"payment_intent": payment}
        if amount_cents is not None:
            params["amount"] = amount_cents
        call = self._v1.refunds.create_async(params, _once(key))
        return (await self._calls.call(call, kind="payment", key=payment)).id

    async def snapshot(self, customer_id: CustomerId) -> CustomerSnapshot:
        """Everything of the customer, as it is now."""
        return await self._reader.read(customer_id)

    async def customer_of(self, payment: str) -> CustomerId | None:
        """Who made a payment; None: no customer did."""
        found = await self._calls.call(
            self._v1.payment_intents.retrieve_async(payment), kind="payment", key=payment
        )
        customer = found.customer
        if customer is None:
            return None
        return CustomerId(customer if isinstance(customer, str) else customer.id)

    async def customers(self, *, changed_since: datetime | None) -> AsyncIterator[CustomerId]:
        """Customers with our account id: all, or those with an event since then.

        Stripe keeps events for 30 days. A customer with an event may be another application's.
        """
        if changed_since is None:
            async for customer in self._calls.pages(self._v1.customers.list_async):
                if _ACCOUNT in (customer.metadata or ()):
                    yield CustomerId(customer.id)
            return
        seen: set[str] = set()
        async for event in self._calls.pages(
            self._v1.events.list_async,
            types=list(_EVENT_TYPES),
            created={"gte": int(changed_since.timestamp())},
        ):
            named = customer_or_payment(event.data.object.to_dict())
            if named in seen:
                continue
            seen.add(named)
            found = await self._found(named)
            if found == named or (found is not None and found not in seen):
                seen.add(found)
                yield found

    async def _found(self, named: str) -> CustomerId | None:
        if not named.startswith("pi_"):
            return CustomerId(named) if named else None
        try:
            return await self.customer_of(named)
        except NotFound:
            return None

    async def _subscription(self, subscription_id: str) -> stripe.Subscription:
        return await self._calls.call(
            self._v1.subscriptions.retrieve_async(subscription_id),
            kind="subscription",
            key=subscription_id,
        )


def _once(key: str) -> stripe.RequestOptions:
    return {"idempotency_key": key}


def _checkout(session: Session) -> Checkout:
    if session.url is None:
        raise Internal("the payment provider gave a page without an address")
    return Checkout(session.id, session.url, datetime.fromtimestamp(session.expires_at, UTC))
