"""Customers and the cards attached to them."""

from __future__ import annotations

from stripe.params import (
    CustomerCreateParams,
    CustomerDeleteParams,
    CustomerListParams,
    CustomerPaymentMethodListParams,
    CustomerRetrieveParams,
    CustomerUpdateParams,
    PaymentMethodAttachParams,
    PaymentMethodDetachParams,
    PaymentMethodListParams,
    PaymentMethodRetrieveParams,
)

from easel_local.stripe import cards, subscriptions
from easel_local.stripe.calls import Call, Endpoint
from easel_local.stripe.objects import Obj, changed, merge_metadata, new_id
from easel_local.stripe.refusal import Refused, invalid
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_PLAIN = ("name", "email", "phone", "description", "address", "shipping", "preferred_locales")


def make_customer(world: World, params: Obj) -> Obj:
    """A new customer of checked parameters.

    Raises:
        Refused: its test clock or its card does not exist.
    """
    bound = params.get("test_clock")
    if bound is not None:
        world.get("test_helpers.test_clock", bound, param="test_clock")
    created = (
        world.clock.now()
        if bound is None
        else world.get("test_helpers.test_clock", bound)["frozen_time"]
    )
    customer_id = new_id("cus")
    customer = {
        "id": customer_id,
        "object": "customer",
        "address": None,
        "balance": params.get("balance", 0),
        "created": created,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": customer_id[-8:].upper(),
        "invoice_settings": _invoice_settings(None),
        "livemode": False,
        "metadata": merge_metadata({}, params.get("metadata", {})),
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": params.get("tax_exempt", "none") or "none",
        "test_clock": bound,
        "_clock": bound,
    } | {name: params[name] or None for name in _PLAIN if name in params}
    first = None
    if "payment_method" in params:
        first = cards.usable_card(world, params["payment_method"], param="payment_method")
        cards.check_attachable(first)
    world.add(customer)
    if first is not None:
        cards.attach(world, first, customer)
    default = params.get("invoice_settings", {}).get("default_payment_method")
    if default:
        card = cards.owned_card(world, default, customer, param="invoice_settings")
        customer["invoice_settings"] = _invoice_settings(card["id"])
    world.emit("customer.created", render(world, customer), created=created)
    return customer


def _invoice_settings(card_id: str | None) -> Obj:
    return {
        "custom_fields": None,
        "default_payment_method": card_id,
        "footer": None,
        "rendering_options": None,
    }


def living_customer(world: World, customer_id: str, *, param: str | None = None) -> Obj:
    """A customer that was not deleted.

    Raises:
        Refused: there is none.
    """
    customer = world.get("customer", customer_id, param=param)
    if customer.get("deleted"):
        raise Refused(
            400 if param else 404,
            f"No such customer: '{customer_id}'",
            code="resource_missing",
            param=param or "id",
        )
    return customer


def _create(call: Call) -> Obj:
    return render(call.world, make_customer(call.world, call.params))


def _retrieve(call: Call) -> Obj:
    return render(call.world, call.world.get("customer", call.id))


def _update(call: Call) -> Obj:
    world = call.world
    customer = living_customer(world, call.id)
    before = render(world, customer)
    default = call.params.get("invoice_settings", {}).get("default_payment_method")
    if default:
        card = cards.owned_card(world, default, customer, param="invoice_settings")
        customer["invoice_settings"]["default_payment_method"] = card["id"]
    elif default == "":
        customer["invoice_settings"]["default_payment_method"] = None
    customer.update(call.given(*_PLAIN, "balance"))
    if "metadata" in call.params:
        customer["metadata"] = merge_metadata(customer["metadata"], call.params["metadata"])
    after = render(world, customer)
    if after != before:
        world.version += 1
        world.emit(
            "customer.updated", after, changed(before, after), created=world.now(customer["id"])
        )
    return after


def _delete(call: Call) -> Obj:
    return delete_customer(call.world, living_customer(call.world, call.id))


def delete_customer(world: World, customer: Obj) -> Obj:
    """Delete a customer and end its subscriptions at once; what is left of it is its id."""
    now = world.now(customer["id"])
    for subscription in world.owned("subscription", customer["id"]):
        if subscription["status"] not in subscriptions.ENDED:
            subscriptions.end(world, subscription, now)
    for card in world.owned("payment_method", customer["id"]):
        card["customer"] = None
    world.emit("customer.deleted", render(world, customer), created=now)
    rest = {"id": customer["id"], "object": "customer", "deleted": True}
    clock = customer["_clock"]
    customer.clear()
    customer.update(rest, _clock=clock)
    world.version += 1
    return rest


def _list(call: Call) -> Obj:
    wanted = call.params
    if "test_clock" in wanted:
        call.world.get("test_helpers.test_clock", wanted["test_clock"], param="test_clock")
    return call.page(
        customer
        for customer in call.world.every("customer")
        if not customer.get("deleted")
        and ("email" not in wanted or customer["email"] == wanted["email"])
        # Stripe leaves the customers of test clocks out unless they are asked for.
        and customer["_clock"] == wanted.get("test_clock")
    )


def _list_cards(call: Call) -> Obj:
    customer = living_customer(call.world, call.id)
    if call.params.get("type", "card") != "card":
        return call.page([])
    owned = call.world.owned("payment_method", customer["id"])
    return call.page(card for card in owned if card["customer"] == customer["id"])


def _retrieve_card(call: Call) -> Obj:
    return render(call.world, cards.usable_card(call.world, call.id))


def _attach(call: Call) -> Obj:
    if "customer" not in call.params:
        raise invalid("customer", "name the customer", "parameter_missing")
    customer = living_customer(call.world, call.params["customer"], param="customer")
    card = cards.usable_card(call.world, call.id)
    cards.check_attachable(card)
    return render(call.world, cards.attach(call.world, card, customer))


def _detach(call: Call) -> Obj:
    card = call.world.get("payment_method", call.id)
    return render(call.world, cards.detach(call.world, card))


def _list_all_cards(call: Call) -> Obj:
    if "customer" not in call.params:
        return call.page([])
    customer = living_customer(call.world, call.params["customer"], param="customer")
    owned = call.world.owned("payment_method", customer["id"])
    return call.page(card for card in owned if card["customer"] == customer["id"])


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/customers",
        CustomerCreateParams,
        _create,
        frozenset({"cash_balance", "source", "tax", "tax_id_data"}),
    ),
    Endpoint("GET", "/v1/customers", CustomerListParams, _list),
    Endpoint("GET", "/v1/customers/{id}", CustomerRetrieveParams, _retrieve),
    Endpoint(
        "POST",
        "/v1/customers/{id}",
        CustomerUpdateParams,
        _update,
        frozenset({"cash_balance", "source", "default_source", "tax"}),
    ),
    Endpoint("DELETE", "/v1/customers/{id}", CustomerDeleteParams, _delete),
    Endpoint(
        "GET", "/v1/customers/{id}/payment_methods", CustomerPaymentMethodListParams, _list_cards
    ),
    Endpoint("GET", "/v1/payment_methods", PaymentMethodListParams, _list_all_cards),
    Endpoint("GET", "/v1/payment_methods/{id}", PaymentMethodRetrieveParams, _retrieve_card),
    Endpoint("POST", "/v1/payment_methods/{id}/attach", PaymentMethodAttachParams, _attach),
    Endpoint("POST", "/v1/payment_methods/{id}/detach", PaymentMethodDetachParams, _detach),
)
