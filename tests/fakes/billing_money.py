"""Billing beside the Stripe stand-in: users pay, time passes, billing looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import count

from pydantic import SecretStr

from billing.domain.payments import CustomerId
from billing.main import open_money
from billing.ports.inbox import Keeper
from billing.ports.payments import Payments
from billing.service.payments import Refunds
from billing.service.sync import CustomerSync
from billing.settings import StripeSettings
from easel.billing.v1 import billing_pb2 as pb
from easel.billing.v1 import payments_pb2
from tests.fakes.billing_stack import ALICE, BillingStack
from tests.fakes.stripe_stand_in import PAYS, StripeStandIn

URLS = {"success_url": "https://easel.test/paid", "cancel_url": "https://easel.test/not"}
# a renewal's invoice is a draft for an hour
_DRAFT = timedelta(hours=2)


class MoneyStack:
    """A billing, its Stripe, and one clock for both."""

    def __init__(
        self,
        stack: BillingStack,
        bank: StripeStandIn,
        payments: Payments,
        refunds: Refunds,
        sync: CustomerSync,
    ) -> None:
        self.stack = stack
        self.bank = bank
        self.payments = payments
        self.refunds = refunds
        self.sync = sync
        self._keys = count()

    # --- what users do

    async def checkout(
        self, *, user: str = ALICE, plan: str = "", pack: str = "", key: str = ""
    ) -> payments_pb2.CreateCheckoutResponse:
        """Asks for a page to pay at."""
        request = payments_pb2.CreateCheckoutRequest(
            user_id=user, idempotency_key=key or f"key {next(self._keys)}", **URLS
        )
        if pack:
            request.pack_key = pack
        else:
            request.plan_key = plan
        return await self.stack.money.CreateCheckout(request)

    async def buy(
        self, *, user: str = ALICE, plan: str = "", pack: str = "", card: str = PAYS
    ) -> str:
        """Asks for a page, pays there, and lets billing look; answers the session's id."""
        page = await self.checkout(user=user, plan=plan, pack=pack)
        session = self.session_of(page.url)
        self.bank.pay(session, card)
        await self.look(user)
        return session

    async def change(self, plan: str, user: str = ALICE) -> pb.Account:
        """Moves the subscription."""
        answer = await self.stack.money.ChangeSubscription(
            payments_pb2.ChangeSubscriptionRequest(user_id=user, plan_key=plan)
        )
        return answer.account

    async def cancel(self, *, user: str = ALICE, resume: bool = False) -> pb.Account:
        """Lets the subscription end with its period, or no longer."""
        answer = await self.stack.money.CancelSubscription(
            payments_pb2.CancelSubscriptionRequest(user_id=user, resume=resume)
        )
        return answer.account

    # --- time

    async def wait(self, user: str | None = ALICE, **by: float) -> None:
        """Lets time pass, for both, and billing look at the user's customer."""
        self.bank.advance(timedelta(**by))
        self.stack.clock.set(self.bank.now())
        if user is not None:
            await self.look(user)

    async def wait_for_renewal(self, user: str = ALICE) -> None:
        """Lets the subscription's period end, and its next invoice be charged."""
        account = await self.stack.account(user)
        end = account.subscription.period_end.ToDatetime(tzinfo=self.bank.now().tzinfo)
        self.bank.advance_to(end + _DRAFT)
        self.stack.clock.set(self.bank.now())
        await self.look(user)

    # --- what billing knows

    async def look(self, user: str = ALICE) -> bool:
        """Brings the user's customer to what Stripe says; whether that changed anything."""
        return await self.sync.sync(await self.customer(user))

    async def customer(self, user: str = ALICE) -> CustomerId:
        """The user's newest customer."""
        found = await self.stack.sql(
            "SELECT c.id FROM customers c JOIN account_pii p USING (account_id)"
            " WHERE p.user_id = $1 ORDER BY c.is_deleted, c.created_at DESC LIMIT 1",
            user,
        )
        return CustomerId(found)

    async def payment(self, number: int = -1, user: str = ALICE) -> str:
        """The user's payments by age; the newest one by default."""
        paid = await self.bank.client().v1.payment_intents.list_async(
            {"customer": await self.customer(user), "limit": 100}
        )
        good = [intent.id for intent in reversed(paid.data) if intent.status == "succeeded"]
        return good[number]

    async def balance(self, user: str = ALICE) -> tuple[int, int]:
        """Available and owed millicredits."""
        balance = (await self.stack.account(user)).balance
        return balance.available_millicredits, balance.debt_millicredits

    async def plan(self, user: str = ALICE) -> tuple[str, str]:
        """The plan's key and the subscription's status; empty: there is none."""
        account = await self.stack.account(user)
        return account.entitlements.plan.key, account.subscription.status

    async def spend(self, millicredits: int, user: str = ALICE) -> None:
        """Spends credits on a job of that price."""
        # at the built-in model's factor a millicredit is 100 pixels times steps
        work = pb.Work(
            model_key="shapes-64",
            width_px=64,
            height_px=64,
            steps=1,
            image_count=1,
            pixel_steps=millicredits * 100,
        )
        placed = await self.stack.place(user, of=work)
        assert placed.hold.amount_millicredits == millicredits
        await self.stack.capture(placed.hold.job_id)

    @staticmethod
    def session_of(url: str) -> str:
        """The id of the Checkout Session whose page has that URL."""
        return next(part for part in url.replace("?", "/").split("/") if part.startswith("cs_"))

    def period_end(self, account: pb.Account) -> datetime:
        """Of the account's subscription."""
        return account.subscription.period_end.ToDatetime(tzinfo=self.bank.now().tzinfo)


def stripe_settings(
    bank: StripeStandIn, *, timeout_s: float = 30.0, max_retries: int = 0
) -> StripeSettings:
    """Billing's settings for the stand-in."""
    return StripeSettings(
        secret_key=SecretStr(bank.key),
        api_url=bank.url,
        webhook_secret=SecretStr(bank.secret),
        timeout_s=timeout_s,
        max_retries=max_retries,
    )


@asynccontextmanager
async def money_stack(
    stack: BillingStack,
    bank: StripeStandIn,
    *,
    timeout_s: float = 30.0,
    max_retries: int = 0,
    inbox: Keeper | None = None,
) -> AsyncIterator[MoneyStack]:
    """Runs billing beside the stand-in, its clock set by the stand-in's."""
    stack.clock.set(bank.now())
    settings = stripe_settings(bank, timeout_s=timeout_s, max_retries=max_retries)
    async with (
        stack.running(stripe=settings, inbox=inbox),
        open_money(stack.settings, stack.clock) as (payments, customers, sync),
    ):
        refunds = Refunds(payments, customers, sync, stack.clock)
        yield MoneyStack(stack, bank, payments, refunds, sync)
