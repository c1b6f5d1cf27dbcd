"""What billing's payments do with one account, each step in a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from billing.domain.accounts import AccountId, Period, PlanSource, months_after
from billing.domain.plans import PlanVersion
from billing.domain.purchases import Clawback, Purchase, PurchaseSource
from billing.storage.plans import PostgresPlans
from billing.storage.purchases import claw_back, give_back, grant_purchase, move_plan
from easel_kit.db import Connection, open_pool
from tests.fakes.billing_stack import BillingStack, work

PACK = 100_000


class Till:
    """Buys, takes back, gives back and moves plans for one account."""

    def __init__(self, stack: BillingStack, account_id: AccountId) -> None:
        self.stack = stack
        self.id = account_id

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[tuple[Connection, datetime]]:
        """A transaction, and the time."""
        async with self.stack.transaction() as lent:
            yield lent, self.stack.clock.now()

    async def buy(self, reference: str, amount: int = PACK, days: int = 365) -> bool:
        """Buys credits by the payment `pi_<reference>`."""
        async with self.begin() as (lent, now):
            purchase = Purchase(
                PurchaseSource.CHECKOUT,
                reference,
                f"pi_{reference}",
                amount,
                now + timedelta(days=days),
                "100 credits",
            )
            return await grant_purchase(lent, self.id, purchase, now)

    async def claw(
        self, reference: str, of: str, amount: int = PACK, *, may_owe: bool = True
    ) -> bool:
        """Takes credits of the payment `pi_<of>` back."""
        async with self.begin() as (lent, now):
            clawback = Clawback(reference, f"pi_{of}", amount, "Refunded", may_owe=may_owe)
            return await claw_back(lent, self.id, clawback, now)

    async def give(self, reference: str) -> bool:
        """Gives back what a clawback took."""
        async with self.begin() as (lent, now):
            return await give_back(lent, self.id, reference, now)

    async def move(self, key: str, source: PlanSource, period: Period | None = None) -> bool:
        """Sets the plan, by default for a month from now."""
        async with (
            open_pool(self.stack.url, schema="billing", name="test", max_size=1) as pool,
            self.begin() as (lent, now),
        ):
            plan: PlanVersion = await PostgresPlans(pool).get(key, 1)
            period = period or Period(now, months_after(now, 1))
            return await move_plan(lent, self.id, plan, period, source, now)

    async def spend(self, millicredits: int) -> None:
        """Captures a hold of that price."""
        placed = await self.stack.place(
            of=work(width_px=1024, height_px=1024, pixel_steps=millicredits * 100)
        )
        assert placed.hold.amount_millicredits == millicredits
        await self.stack.capture(placed.hold.job_id)

    async def state(self) -> tuple[int, int, int]:
        """Available, held and owed; everything adds up."""
        assert await self.stack.breaches() == []
        balance = (await self.stack.account()).balance
        return (
            balance.available_millicredits,
            balance.held_millicredits,
            balance.debt_millicredits,
        )
