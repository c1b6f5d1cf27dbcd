"""Webhooks as the stand-in sends them, through gRPC into the inbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from billing.domain.payments import Notice
from easel.billing.v1 import payments_pb2
from easel_kit.errors import InvalidInput, Unauthenticated
from tests.fakes.billing_money import MoneyStack, money_stack
from tests.fakes.billing_stack import BillingStack
from tests.fakes.stripe_stand_in import StripeStandIn, stripe_stand_in


class ListInbox:
    """The port `Inbox`, kept in a list."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    async def keep(self, notice: Notice, now: datetime) -> bool:
        """Keeps each event once."""
        del now
        is_new = notice.event_id not in {one.event_id for one in self.notices}
        if is_new:
            self.notices.append(notice)
        return is_new


@pytest.fixture
def inbox() -> ListInbox:
    return ListInbox()


@pytest.fixture
async def bank() -> AsyncIterator[StripeStandIn]:
    """A stand-in of Stripe."""
    async with stripe_stand_in() as running:
        yield running


@pytest.fixture
async def money(
    idle_stack: BillingStack, bank: StripeStandIn, inbox: ListInbox
) -> AsyncIterator[MoneyStack]:
    """Billing beside it, which takes its webhooks."""
    async with money_stack(idle_stack, bank, inbox=inbox) as running:

        async def send(payload: bytes, signature: str) -> int:
            await ingest(running, payload, signature)
            return 200

        bank.deliver_to(send)
        yield running


async def ingest(money: MoneyStack, payload: bytes, signature: str) -> None:
    await money.stack.money.IngestStripeEvent(
        payments_pb2.IngestStripeEventRequest(payload=payload, signature=signature)
    )


async def test_each_event_is_kept_once_and_names_whom_to_look_at(
    money: MoneyStack, bank: StripeStandIn, inbox: ListInbox
) -> None:
    bank.faults(deliveries={"duplicate": 1.0})
    await money.buy(plan="pro")
    bank.dispute(await money.payment())
    await bank.delivered()
    customer = await money.customer()
    kept = {notice.type: notice for notice in inbox.notices}
    assert {
        "customer.created",
        "checkout.session.completed",
        "customer.subscription.created",
        "invoice.paid",
        "charge.dispute.created",
    } <= kept.keys()
    for kind, notice in kept.items():
        # the rest are of things without a customer, or told of by an invoice as well
        if kind.startswith(("customer.", "checkout.", "invoice.", "charge.", "payment_intent.")):
            assert notice.customer_id == customer, kind
    # a dispute names its payment alone; whose it is, the credits know
    assert kept["charge.dispute.created"].payment == await money.payment()
    assert len({notice.event_id for notice in inbox.notices}) == len(inbox.notices)


async def test_what_is_not_stripes_is_not_kept(
    money: MoneyStack, bank: StripeStandIn, inbox: ListInbox
) -> None:
    seen: list[tuple[bytes, str]] = []

    async def hold(payload: bytes, signature: str) -> int:
        seen.append((payload, signature))
        return 200

    bank.deliver_to(hold)
    await money.checkout(pack="small")
    await bank.delivered()
    payload, signature = seen[0]
    with pytest.raises(Unauthenticated):
        await ingest(money, payload + b" ", signature)
    with pytest.raises(InvalidInput, match="payload"):
        await ingest(money, b"", signature)
    with pytest.raises(InvalidInput, match="payload"):
        await ingest(money, b"{" * (512 * 1024 + 1), signature)
    with pytest.raises(InvalidInput, match="signature"):
        await ingest(money, payload, "t=1,v1=" + "a" * 5_000)
    await money.wait(None, seconds=301)
    with pytest.raises(Unauthenticated, match="too old"):
        await ingest(money, payload, signature)
    assert inbox.notices == []
