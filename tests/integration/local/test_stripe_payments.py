"""Packs, refunds, disputes, cards and checkout at the Stripe stand-in, through the real SDK."""

from datetime import timedelta
from typing import Any

import pytest
import stripe

from easel_local.stripe.refusal import Refused
from tests.fakes.stripe_shop import PACK_CENTS, Shop, pack_price
from tests.fakes.stripe_stand_in import IS_DISPUTED


async def test_a_pack_is_paid_once_by_an_intent(shop: Shop) -> None:
    customer = await shop.customer()
    session = await shop.buy_pack(customer)
    assert session["payment_status"] == "paid"
    intent = await shop.stripe.v1.payment_intents.retrieve_async(
        session["payment_intent"], {"expand": ["latest_charge"]}
    )
    assert (intent.status, intent.amount_received) == ("succeeded", PACK_CENTS)
    assert intent.metadata.to_dict() == {"pack": "small"}
    assert intent.latest_charge.paid  # type: ignore[union-attr]
    found = await shop.stripe.v1.checkout.sessions.list_async(
        {"payment_intent": intent.id, "expand": ["data.line_items"]}
    )
    assert [one.id for one in found.data] == [session["id"]]
    items = found.data[0].line_items
    assert items is not None
    assert items.data[0].amount_total == PACK_CENTS
    assert not await shop.invoices(customer)


async def test_refunds_in_parts_add_up_and_end(shop: Shop) -> None:
    intent = (await shop.buy_pack(await shop.customer()))["payment_intent"]
    refund = shop.stripe.v1.refunds.create_async
    first = await refund({"payment_intent": intent, "amount": 120})
    assert (first.status, first.amount, first.payment_intent) == ("succeeded", 120, intent)
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        await refund({"payment_intent": intent, "amount": 381})
    rest = await refund({"payment_intent": intent})
    assert rest.amount == PACK_CENTS - 120
    with pytest.raises(stripe.InvalidRequestError) as over:
        await refund({"payment_intent": intent})
    assert over.value.code == "charge_already_refunded"
    charge = (await shop.stripe.v1.charges.list_async({"payment_intent": intent})).data[0]
    assert (charge.refunded, charge.amount_refunded) == (True, PACK_CENTS)
    listed = await shop.stripe.v1.refunds.list_async({"payment_intent": intent})
    assert [one.id for one in listed.data] == [rest.id, first.id]
    assert (await shop.stripe.v1.refunds.retrieve_async(first.id)).amount == 120


@pytest.mark.parametrize("outcome", ["won", "lost"])
async def test_a_dispute_is_decided(shop: Shop, outcome: str) -> None:
    intent = (await shop.buy_pack(await shop.customer()))["payment_intent"]
    opened = shop.stand_in.dispute(intent)
    with pytest.raises(stripe.InvalidRequestError) as barred:
        await shop.stripe.v1.refunds.create_async({"payment_intent": intent})
    assert barred.value.code == "charge_disputed"
    shop.stand_in.decide(opened["id"], outcome)
    found = (await shop.stripe.v1.disputes.list_async({"payment_intent": intent})).data
    assert [(one.id, one.status, one.amount) for one in found] == [
        (opened["id"], outcome, PACK_CENTS)
    ]
    types = {one.type for one in (await shop.stripe.v1.events.list_async({"limit": 10})).data}
    assert "charge.dispute.closed" in types
    assert ("charge.dispute.funds_reinstated" in types) == (outcome == "won")
    with pytest.raises(Refused):
        shop.stand_in.decide(opened["id"], outcome)


async def test_an_inquiry_moves_no_money_and_close_accepts_a_dispute(shop: Shop) -> None:
    intent = (await shop.buy_pack(await shop.customer()))["payment_intent"]
    inquiry = shop.stand_in.dispute(intent, inquiry=True)
    assert inquiry["status"] == "warning_needs_response"
    closed = shop.stand_in.decide(inquiry["id"], "warning_closed")
    assert closed["status"] == "warning_closed"
    other = (await shop.buy_pack(await shop.customer(), IS_DISPUTED))["payment_intent"]
    dispute = (await shop.stripe.v1.disputes.list_async({"payment_intent": other})).data[0]
    assert dispute.status == "needs_response"
    assert (await shop.stripe.v1.disputes.close_async(dispute.id)).status == "lost"


async def test_cards_attach_once_and_are_listed(shop: Shop) -> None:
    customer, other = await shop.customer(), await shop.customer()
    methods = shop.stripe.v1.payment_methods
    with pytest.raises(stripe.CardError):
        await methods.attach_async("pm_card_chargeDeclined", {"customer": customer})
    card = await methods.attach_async("pm_card_mastercard", {"customer": customer})
    assert card.card is not None
    assert (card.card.brand, card.card.last4) == ("mastercard", "4444")
    with pytest.raises(stripe.InvalidRequestError):
        await methods.attach_async(card.id, {"customer": other})
    listed = await shop.stripe.v1.customers.payment_methods.list_async(customer)
    assert [one.id for one in listed.data] == [card.id]
    updated = await shop.stripe.v1.customers.update_async(
        customer, {"invoice_settings": {"default_payment_method": card.id}}
    )
    assert updated.invoice_settings is not None
    assert updated.invoice_settings.default_payment_method == card.id
    assert (await methods.detach_async(card.id)).customer is None
    with pytest.raises(stripe.InvalidRequestError):
        await methods.attach_async(card.id, {"customer": customer})
    assert not (await methods.list_async({"customer": customer})).data


async def test_a_session_expires_by_time_or_by_call(shop: Shop) -> None:
    customer = await shop.customer()
    soon = int(shop.stand_in.now().timestamp()) + 1_800
    first = await shop.checkout(customer, shop.pro, expires_at=soon)
    second = await shop.checkout(customer, shop.pro)
    shop.stand_in.advance(timedelta(minutes=30))
    sessions = shop.stripe.v1.checkout.sessions
    assert (await sessions.retrieve_async(first.id)).status == "expired"
    assert (await sessions.expire_async(second.id)).url is None
    with pytest.raises(stripe.InvalidRequestError):
        await sessions.expire_async(second.id)
    with pytest.raises(Refused):
        shop.stand_in.pay(second.id)
    listed = await sessions.list_async({"customer": customer, "status": "expired"})
    assert len(listed.data) == 2


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"mode": "payment"}, "line_items[0][price]"),
        ({"line_items": [{"quantity": 1}]}, "price"),
        ({"line_items": [{"price_data": pack_price()}]}, "line_items[0][quantity]"),
        ({"line_items": []}, "line_items"),
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"payment_intent_data": {"metadata": {"a": "b"}}}, "payment_intent_data"),
        ({"customer": "cus_none"}, "customer"),
        ({"expires_at": 1_800_000_000}, "expires_at"),
        ({"subscription_data": {"trial_period_days": 3}}, "subscription_data[trial_period_days]"),
        ({"allow_promotion_codes": True}, "allow_promotion_codes"),
    ],
)
async def test_what_cannot_be_sold_is_refused(
    shop: Shop, wrong: dict[str, object], param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.checkout(await shop.customer(), shop.pro, **wrong)
    assert refused.value.param == param


async def test_prices_are_found_by_their_keys(shop: Shop) -> None:
    prices = shop.stripe.v1.prices
    found = await prices.list_async({"lookup_keys": ["pro"], "active": True})
    assert [price.id for price in found.data] == [shop.pro]
    fresh: Any = {
        "currency": "usd",
        "unit_amount": 2_900,
        "recurring": {"interval": "month"},
        "product": found.data[0].product,
        "lookup_key": "pro",
    }
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        await prices.create_async(fresh)
    fresh["transfer_lookup_key"] = True
    moved = await prices.create_async(fresh)
    found = await prices.list_async({"lookup_keys": ["pro"]})
    assert [price.id for price in found.data] == [moved.id]
    await prices.update_async(moved.id, {"active": False})
    with pytest.raises(stripe.InvalidRequestError, match="inactive"):
        await shop.checkout(await shop.customer(), moved.id)
