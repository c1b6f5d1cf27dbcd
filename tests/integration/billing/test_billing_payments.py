"""Money through the whole of billing and the Stripe stand-in: what is paid is had, exactly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from easel.billing.v1 import payments_pb2
from easel_kit.errors import Conflict, InvalidInput, InvalidState, NotFound
from easel_local.stripe.refusal import Refused
from tests.fakes.billing_money import URLS, MoneyStack, money_stack
from tests.fakes.billing_stack import ALICE, BOB, FREE_GRANT, PRO_GRANT, BillingStack
from tests.fakes.stripe_stand_in import DECLINES, FAILS_LATER, StripeStandIn, stripe_stand_in

PRO_CENTS = 1_900
ENTERPRISE_GRANT = 20_000_000
PACK_GRANT = 100_000
DAY_S = 86_400


@pytest.fixture
async def bank() -> AsyncIterator[StripeStandIn]:
    """A stand-in whose subscriptions end unpaid after the last try."""
    async with stripe_stand_in(after_retries="unpaid") as running:
        yield running


@pytest.fixture
async def money(idle_stack: BillingStack, bank: StripeStandIn) -> AsyncIterator[MoneyStack]:
    """Billing beside it; the ledger must add up in the end."""
    async with money_stack(idle_stack, bank) as running:
        yield running
        assert await running.stack.breaches() == []


async def kinds(money: MoneyStack, user: str = ALICE) -> list[tuple[str, int]]:
    return [(line.kind, line.millicredits) for line in reversed(await money.stack.lines(user))]


# --- checkout


async def test_a_paid_plan_is_had_with_its_credits(money: MoneyStack) -> None:
    account = await money.stack.account()
    assert not account.HasField("subscription")
    await money.buy(plan="pro")
    account = await money.stack.account()
    assert account.entitlements.plan.key == "pro"
    assert account.subscription.status == "active"
    assert account.subscription.plan_key == "pro"
    assert not account.subscription.cancel_at_period_end
    assert account.renews_at == account.subscription.period_end
    assert await money.balance() == (FREE_GRANT + PRO_GRANT, 0)
    assert await kinds(money) == [("grant", FREE_GRANT), ("purchase", PRO_GRANT)]
    assert await money.look() is False


async def test_nothing_is_had_before_it_is_paid(money: MoneyStack) -> None:
    page = await money.checkout(plan="pro")
    with pytest.raises(Refused):
        money.bank.pay(money.session_of(page.url), DECLINES)
    await money.look()
    assert await money.plan() == ("free", "")
    assert await money.balance() == (FREE_GRANT, 0)


async def test_the_same_key_is_the_same_page(money: MoneyStack) -> None:
    pages = await asyncio.gather(*(money.checkout(plan="pro", key="a key") for _ in range(4)))
    assert len({page.url for page in pages}) == 1
    assert (await money.checkout(plan="pro", key="another")).url != pages[0].url
    assert (await money.checkout(user=BOB, plan="pro", key="a key")).url != pages[0].url
    with pytest.raises(Conflict):
        await money.checkout(pack="small", key="a key")
    assert await money.stack.sql("SELECT count(*) FROM customers") == 2


async def test_a_crash_after_the_customer_was_made_leaves_one_customer(money: MoneyStack) -> None:
    await money.checkout(pack="small", key="a key")
    page = await money.checkout(pack="small", key="a key")
    before = await money.customer()
    # as if the process had died between Stripe's answer and our row
    await money.stack.sql("DELETE FROM customers")
    assert await money.checkout(pack="small", key="a key") == page
    assert await money.customer() == before


async def test_a_second_subscription_is_refused_even_before_the_first_is_known(
    money: MoneyStack,
) -> None:
    page = await money.checkout(plan="pro")
    money.bank.pay(money.session_of(page.url))
    with pytest.raises(InvalidState, match="there is a subscription"):
        await money.checkout(plan="enterprise")
    assert await money.plan() == ("pro", "active")
    await money.buy(pack="small")
    assert await money.balance() == (FREE_GRANT + PRO_GRANT + PACK_GRANT, 0)


async def test_a_pack_is_bought_on_any_plan_as_often_as_liked(money: MoneyStack) -> None:
    await money.buy(pack="small")
    await money.buy(pack="small")
    assert await money.plan() == ("free", "")
    assert await money.balance() == (FREE_GRANT + 2 * PACK_GRANT, 0)
    assert await money.look() is False


WRONG_ORDERS = (
    ({"user_id": "no user"}, "user_id"),
    ({"plan_key": "Pro!"}, "plan_key"),
    ({"plan_key": "free"}, "plan_key"),
    ({"pack_key": ""}, "pack_key"),
    ({"success_url": "/paid"}, "success_url"),
    ({"success_url": "javascript:alert(1)"}, "success_url"),
    ({"success_url": "https://a.test/" + "x" * 2_048}, "success_url"),
    ({"cancel_url": "https://user@a.test/"}, "cancel_url"),
    ({"cancel_url": "https://a.test:99999/"}, "cancel_url"),
    ({"cancel_url": "https://a b.test/"}, "cancel_url"),
    ({"cancel_url": "ftp://a.test/"}, "cancel_url"),
    ({"idempotency_key": ""}, "idempotency_key"),
    ({"idempotency_key": "k" * 256}, "idempotency_key"),
    ({"idempotency_key": "key\n"}, "idempotency_key"),
)


async def test_wrong_orders_name_the_field(money: MoneyStack) -> None:
    order = {"user_id": ALICE, "plan_key": "pro", "idempotency_key": "a key", **URLS}
    for changes, field in WRONG_ORDERS:
        changed = order | changes
        if "pack_key" in changes:
            del changed["plan_key"]
        with pytest.raises(InvalidInput) as refused:
            await money.stack.money.CreateCheckout(payments_pb2.CreateCheckoutRequest(**changed))
        assert refused.value.field == field, changes


async def test_what_is_not_on_offer_cannot_be_bought(money: MoneyStack) -> None:
    with pytest.raises(NotFound):
        await money.checkout(plan="gold")
    with pytest.raises(NotFound):
        await money.checkout(pack="gold")
    request = payments_pb2.CreateCheckoutRequest(user_id=ALICE, idempotency_key="k", **URLS)
    with pytest.raises(InvalidInput, match="purchase"):
        await money.stack.money.CreateCheckout(request)


async def test_the_portal_is_for_customers(money: MoneyStack) -> None:
    request = payments_pb2.CreatePortalRequest(user_id=ALICE, return_url="https://easel.test/")
    with pytest.raises(InvalidState, match="nothing has been paid for"):
        await money.stack.money.CreatePortal(request)
    await money.buy(pack="small")
    assert (await money.stack.money.CreatePortal(request)).url.startswith(money.bank.url)


# --- changes


async def test_an_upgrade_is_prorated_to_the_millicredit(money: MoneyStack) -> None:
    await money.buy(plan="pro")
    start = money.bank.now()
    end = money.period_end(await money.stack.account())
    await money.wait(days=10, seconds=1_234)
    account = await money.change("enterprise")
    assert account.entitlements.plan.key == "enterprise"
    month_s = int((end - start).total_seconds())
    left_s = month_s - 10 * DAY_S - 1_234
    pro_back = PRO_GRANT * left_s // month_s
    brought = ENTERPRISE_GRANT * left_s // month_s
    assert await money.balance() == (FREE_GRANT + PRO_GRANT - pro_back + brought, 0)
    assert sorted(await kinds(money)) == sorted(
        [
            ("grant", FREE_GRANT),
            ("purchase", PRO_GRANT),
            ("purchase", brought),
            ("clawback", -pro_back),
        ]
    )
    assert await money.look() is False


async def test_an_upgrade_takes_nothing_back_that_is_spent(money: MoneyStack) -> None:
    await money.buy(plan="pro")
    # what is granted expires first and is spent first
    await money.spend(FREE_GRANT + PRO_GRANT)
    await money.wait(days=15)
    await money.change("enterprise")
    available, debt = await money.balance()
    assert debt == 0
    assert available > ENTERPRISE_GRANT * 15 // 31


async def test_a_declined_upgrade_changes_nothing(money: MoneyStack) -> None:
    await money.buy(plan="pro", card=FAILS_LATER)
    before = await money.stack.account()
    with pytest.raises(InvalidState, match="declined"):
        await money.change("enterprise")
    assert await money.stack.account() == before
    # with another card the same wish is a new try, not the old answer
    money.bank.replace_card(await money.customer())
    assert (await money.change("enterprise")).entitlements.plan.key == "enterprise"


async def test_a_cheaper_plan_gives_no_money_back_and_leaves_the_credits(money: MoneyStack) -> None:
    await money.buy(plan="enterprise")
    paid = await money.payment()
    account = await money.change("pro")
    assert account.entitlements.plan.key == "pro"
    assert await money.balance() == (FREE_GRANT + ENTERPRISE_GRANT, 0)
    await money.wait_for_renewal()
    assert await money.plan() == ("pro", "active")
    # the next month costs what pro costs, in full
    newest = await money.payment()
    assert newest != paid
    intent = await money.bank.client().v1.payment_intents.retrieve_async(newest)
    assert intent.amount == PRO_CENTS
    # within the day of grace both months' credits are there
    assert await money.balance() == (ENTERPRISE_GRANT + PRO_GRANT, 0)


async def test_credits_cannot_be_had_again_by_going_down_and_up(money: MoneyStack) -> None:
    await money.buy(plan="enterprise")
    await money.spend(ENTERPRISE_GRANT)
    bought = await money.stack.sql("SELECT sum(granted) FROM credit_lots WHERE payment <> ''")
    for _ in range(3):
        await money.change("pro")
        await money.change("enterprise")
    charged = await money.bank.client().v1.charges.list_async({"limit": 100})
    paid = sum(charge.amount for charge in charged.data)
    granted = await money.stack.sql("SELECT sum(granted) FROM credit_lots WHERE payment <> ''")
    # each of the three was paid for, less the pro month that Stripe takes off
    assert paid == 29_900 + 3 * (29_900 - PRO_CENTS)
    assert granted - bought == 3 * ENTERPRISE_GRANT


async def test_changes_that_make_no_sense_are_refused(money: MoneyStack) -> None:
    with pytest.raises(InvalidState, match="no subscription"):
        await money.change("pro")
    with pytest.raises(InvalidState, match="no subscription"):
        await money.cancel()
    await money.buy(plan="pro")
    with pytest.raises(InvalidInput, match="plan_key"):
        await money.change("free")
    with pytest.raises(NotFound):
        await money.change("gold")
    before = await money.stack.account()
    assert await money.change("pro") == before
    with pytest.raises(InvalidState, match="subscription pays"):
        await money.stack.change_plan("enterprise")


# --- renewals


async def test_a_renewal_brings_a_month_of_credits(money: MoneyStack) -> None:
    await money.buy(plan="pro")
    first = money.period_end(await money.stack.account())
    await money.wait_for_renewal()
    account = await money.stack.account()
    assert money.period_end(account) > first
    assert account.renews_at == account.subscription.period_end
    # the old month's credits have a day of grace
    assert (await money.balance())[0] >= 2 * PRO_GRANT
    await money.wait(days=1)
    assert (await money.balance())[0] == PRO_GRANT


async def test_a_declined_renewal_keeps_the_plan_for_the_tries_then_ends_it(
    money: MoneyStack,
) -> None:
    await money.buy(plan="pro", card=FAILS_LATER)
    await money.wait_for_renewal()
    assert await money.plan() == ("pro", "past_due")
    assert (await money.balance())[0] >= PRO_GRANT
    await money.wait(days=2)
    # nothing was paid for this month, so nothing came
    assert await money.balance() == (0, 0)
    await money.wait(days=14)
    assert await money.plan() == ("free", "")
    assert await money.balance() == (FREE_GRANT, 0)
    assert await money.look() is False


async def test_a_card_that_works_again_recovers_the_month(money: MoneyStack) -> None:
    await money.buy(plan="pro", card=FAILS_LATER)
    await money.wait_for_renewal()
    assert await money.plan() == ("pro", "past_due")
    money.bank.replace_card(await money.customer())
    await money.wait(days=4)
    assert await money.plan() == ("pro", "active")
    assert await money.balance() == (PRO_GRANT, 0)


async def test_cancelling_ends_with_the_period_and_can_be_taken_back(money: MoneyStack) -> None:
    await money.buy(plan="pro")
    assert (await money.cancel()).subscription.cancel_at_period_end
    assert (await money.cancel()).subscription.cancel_at_period_end
    assert not (await money.cancel(resume=True)).subscription.cancel_at_period_end
    assert (await money.cancel()).subscription.cancel_at_period_end
    assert await money.plan() == ("pro", "active")
    await money.wait_for_renewal()
    assert await money.plan() == ("free", "")
    account = await money.stack.account()
    # unspent credits stay until they expire, the free month's come on top
    assert account.balance.available_millicredits >= PRO_GRANT + FREE_GRANT
    assert account.renews_at.ToDatetime(tzinfo=money.bank.now().tzinfo) > money.bank.now()
    await money.wait(days=1)
    assert await money.balance() == (FREE_GRANT, 0)
    await money.buy(plan="pro")
    assert await money.plan() == ("pro", "active")


# --- refunds and disputes


async def test_a_full_refund_takes_all_that_is_unspent(money: MoneyStack) -> None:
    await money.buy(pack="small")
    refund = await money.refunds.refund(await money.payment(), None)
    assert refund.startswith("re_")
    assert await money.balance() == (FREE_GRANT, 0)
    assert await kinds(money) == [
        ("grant", FREE_GRANT),
        ("purchase", PACK_GRANT),
        ("clawback", -PACK_GRANT),
    ]
    with pytest.raises(InvalidState, match="refunded already"):
        await money.refunds.refund(await money.payment(), 100)
    with pytest.raises(NotFound):
        await money.refunds.refund("pi_nobodys", None)


async def test_refunds_in_parts_take_the_whole_in_the_end(money: MoneyStack) -> None:
    await money.buy(pack="small")
    payment = await money.payment()
    for cents in (1, 166, 333):
        await money.refunds.refund(payment, cents)
    assert await money.balance() == (FREE_GRANT, 0)
    assert [amount for kind, amount in await kinds(money) if kind == "clawback"] == [
        -(PACK_GRANT * 1 // 500),
        -(PACK_GRANT * 167 // 500 - PACK_GRANT * 1 // 500),
        -(PACK_GRANT - PACK_GRANT * 167 // 500),
    ]


async def test_the_same_refund_asked_for_again_is_the_same(money: MoneyStack) -> None:
    await money.buy(pack="small")
    payment = await money.payment()
    assert await money.refunds.refund(payment, 100) == await money.refunds.refund(payment, 100)
    assert await money.balance() == (FREE_GRANT + PACK_GRANT * 4 // 5, 0)


async def test_refunded_credits_that_are_spent_are_owed_and_paid_by_the_next(
    money: MoneyStack,
) -> None:
    await money.buy(pack="small")
    await money.spend(FREE_GRANT + PACK_GRANT - 10_000)
    await money.refunds.refund(await money.payment(), None)
    assert await money.balance() == (0, PACK_GRANT - 10_000)
    await money.buy(pack="large")
    assert await money.balance() == (1_000_000 - (PACK_GRANT - 10_000), 0)


async def test_a_dispute_takes_and_a_won_one_gives_back(money: MoneyStack) -> None:
    await money.buy(pack="small")
    dispute = money.bank.dispute(await money.payment())
    await money.look()
    assert await money.balance() == (FREE_GRANT, 0)
    money.bank.decide(dispute["id"], "won")
    await money.look()
    assert await money.balance() == (FREE_GRANT + PACK_GRANT, 0)
    assert await money.look() is False


async def test_a_lost_dispute_stays_taken_and_spent_credits_are_owed(money: MoneyStack) -> None:
    await money.buy(pack="small")
    await money.spend(FREE_GRANT + PACK_GRANT)
    dispute = money.bank.dispute(await money.payment())
    await money.look()
    money.bank.decide(dispute["id"], "lost")
    await money.look()
    assert await money.balance() == (0, PACK_GRANT)


async def test_an_inquiry_takes_nothing(money: MoneyStack) -> None:
    await money.buy(pack="small")
    inquiry = money.bank.dispute(await money.payment(), inquiry=True)
    assert await money.look() is False
    money.bank.decide(inquiry["id"], "warning_closed")
    assert await money.look() is False
    assert await money.balance() == (FREE_GRANT + PACK_GRANT, 0)


async def test_a_dispute_that_was_won_before_anyone_looked_leaves_no_trace(
    money: MoneyStack,
) -> None:
    await money.buy(pack="small")
    dispute = money.bank.dispute(await money.payment())
    money.bank.decide(dispute["id"], "won")
    assert await money.look() is False
    assert await money.balance() == (FREE_GRANT + PACK_GRANT, 0)


# --- the customer goes


async def test_a_deleted_customer_loses_the_plan_and_may_come_back(money: MoneyStack) -> None:
    await money.buy(plan="pro")
    first = await money.customer()
    await money.payments.delete_customer(first)
    await money.payments.delete_customer(first)
    await money.look()
    assert await money.plan() == ("free", "")
    assert (await money.balance())[0] >= PRO_GRANT
    await money.buy(plan="enterprise")
    assert await money.customer() != first
    assert await money.plan() == ("enterprise", "active")
    # the old one is looked at again, and decides nothing any more
    await money.sync.sync(first)
    assert await money.plan() == ("enterprise", "active")


# --- webhooks without an inbox, payments without a key


async def test_without_a_key_nothing_is_paid(idle_stack: BillingStack) -> None:
    order = payments_pb2.CreateCheckoutRequest(
        user_id=ALICE, plan_key="pro", idempotency_key="k", **URLS
    )
    portal = payments_pb2.CreatePortalRequest(user_id=ALICE, return_url="https://a.test")
    change = payments_pb2.ChangeSubscriptionRequest(user_id=ALICE, plan_key="pro")
    webhook = payments_pb2.IngestStripeEventRequest(payload=b"{}", signature="t=1,v1=a")
    async with idle_stack.running() as stack:
        with pytest.raises(InvalidState, match="secret_key is empty"):
            await stack.money.CreateCheckout(order)
        with pytest.raises(InvalidState, match="secret_key is empty"):
            await stack.money.CreatePortal(portal)
        with pytest.raises(InvalidState, match="secret_key is empty"):
            await stack.money.ChangeSubscription(change)
        with pytest.raises(InvalidState, match="secret_key is empty"):
            await stack.money.CancelSubscription(
                payments_pb2.CancelSubscriptionRequest(user_id=ALICE)
            )
        with pytest.raises(InvalidState, match="webhook_secret is empty"):
            await stack.money.IngestStripeEvent(webhook)
        assert (await stack.account()).entitlements.plan.key == "free"


async def test_an_account_that_an_operator_moved_can_subscribe(money: MoneyStack) -> None:
    await money.stack.change_plan("enterprise")
    await money.buy(plan="pro")
    assert await money.plan() == ("pro", "active")
    await money.cancel()
    await money.wait_for_renewal()
    assert await money.plan() == ("free", "")
    await money.wait(days=1)
    assert timedelta(0) < money.bank.now() - await money.stack.sql(
        "SELECT period_start FROM accounts"
    )
