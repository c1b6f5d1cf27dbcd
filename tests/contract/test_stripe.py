"""What billing relies on at Stripe, held against the stand-in and, with a key, against Stripe.

`STRIPE_TEST_SECRET_KEY=sk_test_… pytest -m stripe tests/contract/test_stripe.py` asks Stripe alone.
"""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe
from stripe import Subscription

from tests.fakes.stripe_places import PLACES, Place, place

DAY_S = 86_400
PRO_CENTS, ENTERPRISE_CENTS = 1_900, 9_900

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=PLACES)
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with place(request.param) as where:
        yield where


async def subscribe(shop: Place, customer: str, price: str) -> Subscription:
    return await shop.client.v1.subscriptions.create_async(
        {
            "customer": customer,
            "items": [{"price": price}],
            "payment_behavior": "error_if_incomplete",
            "metadata": {"account": "acc_1"},
        }
    )


async def invoices(shop: Place, customer: str) -> list[Any]:
    found = await shop.client.v1.invoices.list_async(
        {"customer": customer, "expand": ["data.payments"]}
    )
    return found.data


async def test_a_subscription_is_paid_and_renews(shop: Place) -> None:
    customer = await shop.customer()
    price = await shop.price(PRO_CENTS, plan="pro")
    subscription = await subscribe(shop, customer, price)
    assert subscription.status == "active"
    item = subscription["items"].data[0]
    assert item.price.metadata["plan"] == "pro"
    assert 28 * DAY_S <= item.current_period_end - item.current_period_start <= 31 * DAY_S
    await shop.advance(item.current_period_end - await shop.now() + 2 * 3_600)
    renewed = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert renewed["items"].data[0].current_period_start == item.current_period_end
    found = await invoices(shop, customer)
    assert [one.billing_reason for one in found] == ["subscription_cycle", "subscription_create"]
    for one in found:
        assert (one.status, one.total, one.amount_paid) == ("paid", PRO_CENTS, PRO_CENTS)
        assert one.parent.subscription_details.subscription == subscription.id
        assert one.lines.data[0].pricing.price_details.price == price
        [payment] = one.payments.data
        assert (payment.status, payment.payment.type) == ("paid", "payment_intent")
        assert one.status_transitions.paid_at is not None


async def test_an_upgrade_is_prorated_and_paid_at_once(shop: Place) -> None:
    customer = await shop.customer()
    pro, enterprise = await shop.price(PRO_CENTS), await shop.price(ENTERPRISE_CENTS)
    subscription = await subscribe(shop, customer, pro)
    item = subscription["items"].data[0]
    await shop.advance(10 * DAY_S)
    await shop.client.v1.subscriptions.update_async(
        subscription.id,
        {
            "items": [{"id": item.id, "price": enterprise}],
            "proration_behavior": "always_invoice",
            "payment_behavior": "error_if_incomplete",
        },
    )
    invoice = (await invoices(shop, customer))[0]
    assert (invoice.billing_reason, invoice.status) == ("subscription_update", "paid")
    left = (item.current_period_end - await shop.now()) / (
        item.current_period_end - item.current_period_start
    )
    amounts = sorted(line.amount for line in invoice.lines.data)
    assert amounts == pytest.approx([-PRO_CENTS * left, ENTERPRISE_CENTS * left], abs=2)
    assert sum(amounts) == invoice.total
    for line in invoice.lines.data:
        parent = line.parent
        details = parent.subscription_item_details or parent.invoice_item_details
        assert details.proration
        assert details.subscription == subscription.id
        assert line.period.end == item.current_period_end


async def test_a_declined_renewal_is_past_due_until_it_is_paid(shop: Place) -> None:
    customer = await shop.customer()
    subscription = await subscribe(shop, customer, await shop.price(PRO_CENTS))
    await shop.use_card(customer, "pm_card_chargeCustomerFail")
    end = subscription["items"].data[0].current_period_end
    await shop.advance(end - await shop.now() + 2 * 3_600)
    retrieve = shop.client.v1.subscriptions.retrieve_async
    assert (await retrieve(subscription.id)).status == "past_due"
    unpaid = (await invoices(shop, customer))[0]
    assert (unpaid.status, unpaid.attempted, unpaid.amount_remaining) == ("open", True, PRO_CENTS)
    with pytest.raises(stripe.CardError) as declined:
        await shop.client.v1.invoices.pay_async(unpaid.id)
    assert declined.value.code == "card_declined"
    await shop.use_card(customer, "pm_card_visa")
    assert (await shop.client.v1.invoices.pay_async(unpaid.id)).status == "paid"
    assert (await retrieve(subscription.id)).status == "active"


async def test_a_declined_upgrade_leaves_the_plan(shop: Place) -> None:
    customer = await shop.customer()
    pro, enterprise = await shop.price(PRO_CENTS), await shop.price(ENTERPRISE_CENTS)
    subscription = await subscribe(shop, customer, pro)
    await shop.use_card(customer, "pm_card_chargeCustomerFail")
    with pytest.raises(stripe.CardError):
        await shop.client.v1.subscriptions.update_async(
            subscription.id,
            {
                "items": [{"id": subscription["items"].data[0].id, "price": enterprise}],
                "proration_behavior": "always_invoice",
                "payment_behavior": "error_if_incomplete",
            },
        )
    kept = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert (kept.status, kept["items"].data[0].price.id) == ("active", pro)


async def test_it_ends_with_its_period(shop: Place) -> None:
    customer = await shop.customer()
    subscription = await subscribe(shop, customer, await shop.price(PRO_CENTS))
    update = shop.client.v1.subscriptions.update_async
    end = subscription["items"].data[0].current_period_end
    assert (await update(subscription.id, {"cancel_at_period_end": True})).cancel_at_period_end
    assert not (await update(subscription.id, {"cancel_at_period_end": False})).cancel_at_period_end
    await update(subscription.id, {"cancel_at_period_end": True})
    await shop.advance(end - await shop.now() + 3_600)
    found = await shop.client.v1.subscriptions.list_async({"customer": customer, "status": "all"})
    assert [(one.id, one.status) for one in found.data] == [(subscription.id, "canceled")]
    assert len(await invoices(shop, customer)) == 1


async def test_refunds_give_back_no_more_than_was_paid(shop: Place) -> None:
    customer = await shop.customer()
    await subscribe(shop, customer, await shop.price(PRO_CENTS))
    intent = (await invoices(shop, customer))[0].payments.data[0].payment.payment_intent
    refund = shop.client.v1.refunds.create_async
    assert (await refund({"payment_intent": intent, "amount": 400})).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError):
        await refund({"payment_intent": intent, "amount": PRO_CENTS})
    assert (await refund({"payment_intent": intent})).amount == PRO_CENTS - 400
    with pytest.raises(stripe.InvalidRequestError) as over:
        await refund({"payment_intent": intent})
    assert over.value.code == "charge_already_refunded"


async def test_a_key_names_one_request(shop: Place) -> None:
    options: Any = {"idempotency_key": str(uuid.uuid4())}
    create = shop.client.v1.customers.create_async
    first = await create({"test_clock": shop.clock, "name": "a"}, options)
    assert (await create({"test_clock": shop.clock, "name": "a"}, options)).id == first.id
    with pytest.raises(stripe.IdempotencyError):
        await create({"test_clock": shop.clock, "name": "b"}, options)


async def test_refusals_say_what_is_wrong(shop: Place) -> None:
    wrong: list[tuple[Any, str, str]] = [
        ({"bogus": "1"}, "parameter_unknown", "bogus"),
        ({"address": {"bogus": "1"}}, "parameter_unknown", "address[bogus]"),
        ({"test_clock": "clock_none"}, "resource_missing", "test_clock"),
    ]
    for params, code, param in wrong:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.client.v1.customers.create_async(params)
        assert (refused.value.code, refused.value.param) == (code, param)
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await shop.client.v1.customers.retrieve_async("cus_none")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


async def test_a_checkout_is_open_until_it_expires(shop: Place) -> None:
    customer = await shop.customer()
    session = await shop.client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "customer": customer,
            "line_items": [{"price": await shop.price(PRO_CENTS), "quantity": 1}],
            "success_url": "https://example.com/done?session={CHECKOUT_SESSION_ID}",
            "client_reference_id": "acc_1",
        }
    )
    assert (session.status, session.payment_status, session.amount_total) == (
        *("open", "unpaid"),
        PRO_CENTS,
    )
    assert session.url
    assert (await shop.client.v1.checkout.sessions.expire_async(session.id)).status == "expired"


async def test_a_deleted_customer_is_gone_with_its_subscription(shop: Place) -> None:
    customer = await shop.customer()
    subscription = await subscribe(shop, customer, await shop.price(PRO_CENTS))
    assert (await shop.client.v1.customers.delete_async(customer)).deleted
    assert (await shop.client.v1.customers.retrieve_async(customer)).deleted
    ended = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert ended.status == "canceled"
