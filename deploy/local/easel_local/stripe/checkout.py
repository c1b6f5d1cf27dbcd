"""Checkout Sessions: made by a call, paid on the hosted page (or by a test), or expired."""

from __future__ import annotations

from typing import Any

from stripe.params.checkout import (
    SessionCreateParams,
    SessionExpireParams,
    SessionLineItemListParams,
    SessionListParams,
    SessionRetrieveParams,
)

from easel_local.stripe import cards, payments, reversals, subscriptions
from easel_local.stripe.calls import Call, Endpoint, required_one
from easel_local.stripe.catalog import make_price
from easel_local.stripe.customers import living_customer, make_customer
from easel_local.stripe.objects import Obj, merge_metadata, new_id
from easel_local.stripe.refusal import invalid, missing, not_served, wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_DAY_S, _SHORTEST_S = 86_400, 1_800
_MAX_QUANTITY = 999_999
_FOR_SUBSCRIPTIONS = frozenset({"metadata", "description"})
_FOR_PAYMENTS = frozenset({"metadata", "description", "setup_future_usage", "receipt_email"})


def _create(call: Call) -> Obj:
    world, params = call.world, call.params
    mode: str = params.get("mode", "")
    _check(params, mode)
    customer = None
    if "customer" in params:
        customer = living_customer(world, params["customer"], param="customer")
    customer_id = None if customer is None else customer["id"]
    now = world.now(customer_id)
    until = _expiry(params, now)
    items = [
        _line_item(world, given, mode, f"line_items[{number}]")
        for number, given in enumerate(params["line_items"])
    ]
    currencies = {item["currency"] for item in items}
    if len(currencies) > 1:
        raise invalid("line_items", "all prices must have one currency")
    total = sum(item["amount_total"] for item in items)
    session_id = new_id("cs_test")
    session = _blank(session_id, params) | {
        "amount_subtotal": total,
        "amount_total": total,
        "created": now,
        "currency": currencies.pop(),
        "customer": customer_id,
        "expires_at": until,
        "mode": mode,
        "url": f"{world.url}/c/pay/{session_id}",
        "_line_items": items,
        "_subscription_data": params.get("subscription_data", {}),
        "_payment_intent_data": params.get("payment_intent_data", {}),
    }
    world.add(session)
    world.plan("expire", session, until)
    return render(world, session)


def _check(params: dict[str, Any], mode: str) -> None:
    if not mode:
        raise missing("mode")
    if mode == "setup":
        raise not_served("mode=setup")
    if params.get("ui_mode", "hosted_page") != "hosted_page":
        raise not_served(f"ui_mode={params['ui_mode']}")
    for name in ("line_items", "success_url"):
        if not params.get(name):
            raise missing(name)
    for name in ("success_url", "cancel_url"):
        if name in params and not params[name].startswith(("http://", "https://")):
            raise invalid(name, "not a valid URL", "url_invalid")
    if "customer" in params and "customer_email" in params:
        raise invalid("customer_email", "cannot be given together with customer")
    if params.get("payment_method_types", ["card"]) != ["card"]:
        raise not_served("payment_method_types other than card")
    _check_data(params, mode)


def _check_data(params: dict[str, Any], mode: str) -> None:
    mine, other = "subscription_data", "payment_intent_data"
    allowed = _FOR_SUBSCRIPTIONS
    if mode == "payment":
        mine, other, allowed = other, mine, _FOR_PAYMENTS
    if other in params:
        raise invalid(other, f"cannot be given in {mode} mode")
    for name in sorted(params.get(mine, {}).keys() - allowed):
        raise not_served(f"{mine}[{name}]")
    if mode == "subscription" and "customer_creation" in params:
        raise invalid("customer_creation", "cannot be given in subscription mode")


def _expiry(params: dict[str, Any], now: int) -> int:
    until: int = params.get("expires_at", now + _DAY_S)
    if not now + _SHORTEST_S <= until <= now + _DAY_S:
        raise invalid("expires_at", "must be from 30 minutes to 24 hours from now")
    return until


def _line_item(world: World, given: Obj, mode: str, param: str) -> Obj:
    for name in ("tax_rates", "adjustable_quantity"):
        if name in given and given[name] != {"enabled": False}:
            raise not_served(f"{param}[{name}]")
    if required_one(given, "price", "price_data") == "price":
        price = world.get("price", given["price"], param=f"{param}[price]")
        if not price["active"]:
            raise wrong_state(f"The price {price['id']} is inactive.", param=f"{param}[price]")
    else:
        price = make_price(world, given["price_data"], param=f"{param}[price_data]", is_inline=True)
    quantity = given.get("quantity")
    if quantity is None:
        raise missing(f"{param}[quantity]")
    if not 1 <= quantity <= _MAX_QUANTITY:
        raise invalid(f"{param}[quantity]", f"from 1 to {_MAX_QUANTITY}")
    if (price["recurring"] is not None) != (mode == "subscription"):
        raise invalid(
            f"{param}[price]",
            "subscription mode takes recurring prices, payment mode one-time ones",
        )
    amount = price["unit_amount"] * quantity
    return {
        "id": new_id("li"),
        "object": "item",
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "created": world.clock.now(),
        "currency": price["currency"],
        "description": world.get("product", price["product"])["name"],
        "metadata": merge_metadata({}, given.get("metadata", {})),
        "price": price["id"],
        "quantity": quantity,
    }


def _blank(session_id: str, params: dict[str, Any]) -> Obj:
    return {
        "id": session_id,
        "object": "checkout.session",
        "after_expiration": None,
        "allow_promotion_codes": None,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer_creation": params.get("customer_creation"),
        "customer_details": None,
        "customer_email": params.get("customer_email"),
        "discounts": [],
        "invoice": None,
        "invoice_creation": None,
        "livemode": False,
        "locale": params.get("locale"),
        "metadata": merge_metadata({}, params.get("metadata", {})),
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": params.get("payment_method_collection", "always"),
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "permissions": None,
        "recovered_from": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "wallet_options": None,
    }


def pay(world: World, session: Obj, kind: cards.TestCard) -> Obj:
    """A person pays on the page; the session afterwards.

    Raises:
        Refused: it is not open, or (402) the card is declined and the session stays open.
    """
    if session["status"] != "open":
        raise wrong_state(f"This Checkout Session is {session['status']}.")
    if session["amount_total"] and kind.decline and not kind.later_only:
        raise cards.declined(kind.decline)
    customer = _customer_of(world, session)
    card = cards.make_card(world, kind, email=session["customer_email"])
    if session["mode"] == "subscription" and customer is not None:
        _subscribe(world, session, customer, card)
    else:
        _take_once(world, session, customer, card)
    session |= {
        "customer": None if customer is None else customer["id"],
        "customer_details": _details(session, customer),
        "payment_status": "paid" if session["amount_total"] else "no_payment_required",
        "status": "complete",
        "url": None,
    }
    world.adopt(session)
    world.forget("expire", session)
    world.version += 1
    now = world.now(session["customer"])
    world.emit("checkout.session.completed", render(world, session), created=now)
    if session["payment_intent"] is not None:
        reversals.dispute_if_planned(world, world.get("payment_intent", session["payment_intent"]))
    return session


def _customer_of(world: World, session: Obj) -> Obj | None:
    """The session's customer, made where it has none and the mode needs one."""
    if session["customer"] is not None:
        return living_customer(world, session["customer"], param="customer")
    if session["mode"] == "subscription" or session["customer_creation"] == "always":
        email = session["customer_email"]
        return make_customer(world, {"email": email} if email else {})
    return None


def _details(session: Obj, customer: Obj | None) -> Obj:
    known = customer or {}
    return {
        "address": None,
        "business_name": None,
        "email": known.get("email") or session["customer_email"],
        "individual_name": None,
        "name": known.get("name"),
        "phone": known.get("phone"),
        "tax_exempt": "none",
        "tax_ids": [],
    }


def _subscribe(world: World, session: Obj, customer: Obj, card: Obj) -> None:
    cards.attach(world, card, customer)
    items = [
        (world.get("price", item["price"]), item["quantity"]) for item in session["_line_items"]
    ]
    params = session["_subscription_data"] | {"default_payment_method": card["id"]}
    subscription = subscriptions.make(world, customer, items, params)
    session["subscription"] = subscription["id"]
    subscriptions.start(world, subscription, is_present=True)
    session["invoice"] = subscription["latest_invoice"]


def _take_once(world: World, session: Obj, customer: Obj | None, card: Obj) -> None:
    data = session["_payment_intent_data"]
    if customer is not None and "setup_future_usage" in data:
        cards.attach(world, card, customer)
    if not session["amount_total"]:
        return
    customer_id = None if customer is None else customer["id"]
    now = world.now(customer_id)
    intent = payments.make_intent(
        world,
        customer_id,
        session["amount_total"],
        session["currency"],
        now=now,
        metadata=data.get("metadata"),
        description=data.get("description"),
    )
    session["payment_intent"] = intent["id"]
    payments.charge(world, intent, card, now=now, is_present=True)


def expire(world: World, session: Obj, now: int) -> None:
    """Nobody can pay it any more; nothing happens if it is not open."""
    if session["status"] != "open":
        return
    session |= {"status": "expired", "url": None}
    world.forget("expire", session)
    world.version += 1
    world.emit("checkout.session.expired", render(world, session), created=now)


def _expire(call: Call) -> Obj:
    session = call.world.get("checkout.session", call.id)
    if session["status"] != "open":
        raise wrong_state(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout'
            f" Session has a status of {session['status']}."
        )
    expire(call.world, session, call.world.now(session["customer"]))
    return render(call.world, session)


def _list(call: Call) -> Obj:
    world, wanted = call.world, call.params
    found = world.every("checkout.session")
    if "customer" in wanted:
        world.get("customer", wanted["customer"], param="customer")
        found = world.owned("checkout.session", wanted["customer"])
    names = ("subscription", "payment_intent", "status")
    email = wanted.get("customer_details", {}).get("email")
    return call.page(
        session
        for session in found
        if all(session[name] == wanted[name] for name in names if name in wanted)
        and (email is None or (session["customer_details"] or {}).get("email") == email)
    )


def _list_items(call: Call) -> Obj:
    session = call.world.get("checkout.session", call.id)
    return call.page(reversed(session["_line_items"]))


_EXTRAS = frozenset(
    {
        "adaptive_pricing",
        "after_expiration",
        "allow_promotion_codes",
        "automatic_tax",
        "consent_collection",
        "custom_fields",
        "discounts",
        "invoice_creation",
        "managed_payments",
        "optional_items",
        "payment_method_data",
        "phone_number_collection",
        "return_url",
        "setup_intent_data",
        "shipping_address_collection",
        "shipping_options",
        "tax_id_collection",
    }
)

ENDPOINTS = (
    Endpoint("POST", "/v1/checkout/sessions", SessionCreateParams, _create, _EXTRAS),
    Endpoint("GET", "/v1/checkout/sessions", SessionListParams, _list, frozenset({"payment_link"})),
    Endpoint(
        "GET",
        "/v1/checkout/sessions/{id}",
        SessionRetrieveParams,
        lambda call: render(call.world, call.world.get("checkout.session", call.id)),
    ),
    Endpoint("POST", "/v1/checkout/sessions/{id}/expire", SessionExpireParams, _expire),
    Endpoint(
        "GET", "/v1/checkout/sessions/{id}/line_items", SessionLineItemListParams, _list_items
    ),
)
