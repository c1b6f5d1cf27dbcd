"""Stripe's test mode and its stand-in behind one face, so that one test tells of both."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

import pytest
import stripe
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from tests.fakes.stripe_stand_in import stripe_stand_in

_ADVANCE_DEADLINE_S = 240.0
PlaceName = Literal["stand-in", "stripe"]
PLACES = ["stand-in", pytest.param("stripe", marks=pytest.mark.stripe)]


class RealStripe(BaseSettings):
    """The key of an account's test mode, from `STRIPE_TEST_SECRET_KEY`."""

    stripe_test_secret_key: SecretStr = SecretStr("")


@dataclass(frozen=True)
class Place:
    """Where a test runs. Everything that it makes hangs on its test clock, and goes with it."""

    client: stripe.StripeClient
    clock: str

    async def now(self) -> int:
        """The clock's time."""
        return (
            await self.client.v1.test_helpers.test_clocks.retrieve_async(self.clock)
        ).frozen_time

    async def advance(self, seconds: int) -> None:
        """Move the clock and wait until what happens on the way has happened."""
        clocks = self.client.v1.test_helpers.test_clocks
        target = await self.now() + seconds
        await clocks.advance_async(self.clock, {"frozen_time": target})
        deadline = time.monotonic() + _ADVANCE_DEADLINE_S
        while (clock := await clocks.retrieve_async(self.clock)).status != "ready":
            assert clock.status == "advancing"
            assert time.monotonic() < deadline
            await asyncio.sleep(2)

    async def customer(self, card: str = "pm_card_visa") -> str:
        """A customer with a card that its subscriptions are charged to."""
        made = await self.client.v1.customers.create_async({"test_clock": self.clock})
        await self.use_card(made.id, card)
        return made.id

    async def use_card(self, customer: str, card: str) -> None:
        """Make another card the one that is charged."""
        attached = await self.client.v1.payment_methods.attach_async(card, {"customer": customer})
        await self.client.v1.customers.update_async(
            customer, {"invoice_settings": {"default_payment_method": attached.id}}
        )

    async def price(self, cents: int, **metadata: str) -> str:
        """A monthly price."""
        made = await self.client.v1.prices.create_async(
            {
                "currency": "usd",
                "unit_amount": cents,
                "recurring": {"interval": "month"},
                "product_data": {"name": f"Easel test {cents}"},
                "metadata": metadata,
            }
        )
        return made.id


@contextlib.asynccontextmanager
async def place(name: PlaceName) -> AsyncIterator[Place]:
    """One of the two; skips the test where Stripe is meant and no key is given."""
    key = RealStripe().stripe_test_secret_key.get_secret_value()
    if name == "stripe" and not key:
        pytest.skip("STRIPE_TEST_SECRET_KEY is not set")
    async with contextlib.AsyncExitStack() as stack:
        if name == "stripe":
            assert key.startswith(("sk_test_", "rk_test_")), "never with a live key"
            http = stripe.HTTPXClient()
            stack.push_async_callback(http.close_async)
            client = stripe.StripeClient(key, http_client=http, max_network_retries=2)
        else:
            client = (await stack.enter_async_context(stripe_stand_in())).client()
        clocks = client.v1.test_helpers.test_clocks
        clock = await clocks.create_async({"frozen_time": int(time.time()), "name": "easel tests"})
        try:
            yield Place(client, clock.id)
        finally:
            await clocks.delete_async(clock.id)
