"""A small shop at the Stripe stand-in: two plans, a pack, and customers who buy them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stripe import Invoice, StripeClient, Subscription
from stripe.checkout import Session

from tests.fakes.stripe_stand_in import PAYS, StripeStandIn

SUCCESS_URL = "http://127.0.0.1:1/done?session={CHECKOUT_SESSION_ID}"
PRO_CENTS, ENTERPRISE_CENTS, PACK_CENTS = 1_900, 9_900, 500


@dataclass
class Shop:
    """The stand-in, the SDK, and what is on offer."""

    stand_in: StripeStandIn
    stripe: StripeClient
    pro: str
    enterprise: str

    async def customer(self, **params: object) -> str:
        made = await self.stripe.v1.customers.create_async(params or {})  # type: ignore[arg-type]
        return made.id

    async def checkout(self, customer: str, price: str, /, **more: object) -> Session:
        return await self.stripe.v1.checkout.sessions.create_async(
            {  # type: ignore[arg-type]
                "mode": "subscription",
                "customer": customer,
                "line_items": [{"price": price, "quantity": 1}],
                "success_url": SUCCESS_URL,
                **more,
            }
        )

    async def subscribe(
        self, customer: str, price: str, card: str = PAYS, **more: object
    ) -> Subscription:
        """A subscription bought at the page."""
        session = await self.checkout(customer, price, **more)
        paid = self.stand_in.pay(session.id, card)
        return await self.subscription(paid["subscription"])

    async def subscription(self, subscription_id: str) -> Subscription:
        return await self.stripe.v1.subscriptions.retrieve_async(subscription_id)

    async def buy_pack(self, customer: str, card: str = PAYS) -> dict[str, Any]:
        """A paid session for a pack."""
        session = await self.stripe.v1.checkout.sessions.create_async(
            {
                "mode": "payment",
                "customer": customer,
                "line_items": [{"price_data": pack_price(), "quantity": 1}],
                "success_url": SUCCESS_URL,
                "payment_intent_data": {"metadata": {"pack": "small"}},
            }
        )
        return self.stand_in.pay(session.id, card)

    async def invoices(self, customer: str) -> list[Invoice]:
        """Newest first."""
        found = await self.stripe.v1.invoices.list_async({"customer": customer, "limit": 100})
        return found.data

    async def change(self, subscription: Subscription, price: str, **more: object) -> Subscription:
        item = subscription["items"].data[0].id
        return await self.stripe.v1.subscriptions.update_async(
            subscription.id,
            {"items": [{"id": item, "price": price}], **more},  # type: ignore[arg-type]
        )


def pack_price() -> Any:  # noqa: ANN401 - a part of the SDK's nested parameters
    return {
        "currency": "usd",
        "unit_amount": PACK_CENTS,
        "product_data": {"name": "1,000 credits"},
    }


async def open_shop(stand_in: StripeStandIn) -> Shop:
    """A shop at a fresh stand-in."""
    client = stand_in.client()
    prices = []
    for name, cents in (("Pro", PRO_CENTS), ("Enterprise", ENTERPRISE_CENTS)):
        price = await client.v1.prices.create_async(
            {
                "currency": "usd",
                "unit_amount": cents,
                "recurring": {"interval": "month"},
                "product_data": {"name": name},
                "lookup_key": name.lower(),
                "metadata": {"plan": name.lower()},
            }
        )
        prices.append(price.id)
    return Shop(stand_in, client, *prices)
