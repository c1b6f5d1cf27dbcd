"""The calls about subscriptions."""

from __future__ import annotations

from typing import Any

from stripe.params import (
    SubscriptionCancelParams,
    SubscriptionCreateParams,
    SubscriptionListParams,
    SubscriptionRetrieveParams,
    SubscriptionUpdateParams,
)

from easel_local.stripe import cards, changes, lines, standing, subscriptions
from easel_local.stripe.calls import Call, Endpoint
from easel_local.stripe.customers import living_customer
from easel_local.stripe.objects import Obj, merge_metadata
from easel_local.stripe.refusal import invalid, missing, no_such, not_served, wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World


def _create(call: Call) -> Obj:
    world, params = call.world, call.params
    if "customer" not in params:
        raise missing("customer")
    customer = living_customer(world, params["customer"], param="customer")
    if "default_payment_method" in params:
        cards.owned_card(
            world, params["default_payment_method"], customer, param="default_payment_method"
        )
    behavior = params.get("payment_behavior", "allow_incomplete")
    if behavior == "pending_if_incomplete":
        raise not_served("payment_behavior=pending_if_incomplete")
    items = _asked_items(world, params.get("items", []))
    if behavior == "error_if_incomplete":
        card_id = (
            params.get("default_payment_method")
            or customer["invoice_settings"]["default_payment_method"]
        )
        card = world.find("payment_method", card_id) if card_id else None
        subscriptions.check_card(card)
    subscription = subscriptions.make(world, customer, items, params)
    subscriptions.start(world, subscription, may_charge=behavior != "default_incomplete")
    return render(world, subscription)


def _asked_items(world: World, given: list[Obj]) -> list[tuple[Obj, int]]:
    if not given:
        raise missing("items")
    items = []
    for number, item in enumerate(given):
        for name in sorted(item.keys() - {"price", "quantity", "metadata"}):
            raise not_served(f"items[{number}][{name}]")
        if "price" not in item:
            raise missing(f"items[{number}][price]")
        price = world.get("price", item["price"], param=f"items[{number}][price]")
        if not price["active"]:
            raise wrong_state(f"The price {price['id']} is inactive.", param="items[0][price]")
        items.append((price, item.get("quantity", 1)))
    return items


def _update(call: Call) -> Obj:
    world, params = call.world, call.params
    subscription = world.get("subscription", call.id)
    now = world.now(subscription["customer"])
    if subscription["status"] in standing.ENDED:
        _check_may_update_ended(params)
    if params.get("cancel_at_period_end") and params.get("cancel_at"):
        raise invalid("cancel_at", "cannot be given together with cancel_at_period_end")
    _check_plain(world, subscription, params)
    if "items" in params:
        changes.change_items(world, subscription, params)
    before = render(world, subscription)
    _set_plain(world, subscription, call, now)
    return standing.tell_update(world, subscription, before, now)


def _check_may_update_ended(params: dict[str, Any]) -> None:
    if params.keys() - {"metadata", "cancellation_details", "expand"}:
        raise wrong_state(
            "A canceled subscription can only update its cancellation_details and metadata."
        )


def _check_plain(world: World, subscription: Obj, params: dict[str, Any]) -> None:
    """Refuse before anything changes."""
    if "default_payment_method" in params:
        customer = world.get("customer", subscription["customer"])
        card_id = params["default_payment_method"]
        cards.owned_card(world, card_id, customer, param="default_payment_method")
    when = params.get("cancel_at")
    if isinstance(when, str) and when:
        raise not_served(f"cancel_at={when}")
    if isinstance(when, int) and when <= world.now(subscription["customer"]):
        raise invalid("cancel_at", "must be in the future")


def _set_plain(world: World, subscription: Obj, call: Call, now: int) -> None:
    params = call.params
    if "metadata" in params:
        subscription["metadata"] = merge_metadata(subscription["metadata"], params["metadata"])
    subscription.update(call.given("default_payment_method", "description"))
    if "cancellation_details" in params:
        given = {k: v or None for k, v in params["cancellation_details"].items()}
        subscription["cancellation_details"] |= {
            name: given[name] for name in ("comment", "feedback") if name in given
        }
    if "cancel_at_period_end" in params:
        if params["cancel_at_period_end"] != subscription["cancel_at_period_end"]:
            cancel = params["cancel_at_period_end"]
            changes.set_cancel_at_period_end(world, subscription, cancel=cancel, now=now)
    elif "cancel_at" in params:
        changes.set_cancel_at(world, subscription, params["cancel_at"] or None, now)


def _cancel(call: Call) -> Obj:
    world = call.world
    subscription = world.get("subscription", call.id)
    if subscription["status"] in standing.ENDED:
        raise no_such("subscription", call.id)
    now = world.now(subscription["customer"])
    if call.params.get("invoice_now"):
        _invoice_the_rest(world, subscription, now, is_prorated=call.params.get("prorate", False))
    if subscription["status"] not in standing.ENDED:
        standing.end(world, subscription, now, reason="cancellation_requested")
    return render(world, subscription)


def _invoice_the_rest(world: World, subscription: Obj, now: int, *, is_prorated: bool) -> None:
    returned = [
        lines.credit_line(world, subscription, item, now)
        for item in subscription["items"]["data"]
        if is_prorated
    ]
    if returned or subscription["_pending"]:
        changes.invoice_now(world, subscription, returned, now)


def _list(call: Call) -> Obj:
    world, wanted = call.world, call.params
    customer_id = wanted.get("customer")
    if customer_id is not None:
        world.get("customer", customer_id, param="customer")
        found = world.owned("subscription", customer_id)
    else:
        bound = wanted.get("test_clock")
        found = (s for s in world.every("subscription") if s["test_clock"] == bound)
    return call.page(subscription for subscription in found if _is_wanted(subscription, wanted))


def _is_wanted(subscription: Obj, wanted: dict[str, Any]) -> bool:
    status = wanted.get("status")
    is_status = {
        None: subscription["status"] not in standing.ENDED,
        "all": True,
        "ended": subscription["status"] in standing.ENDED,
    }.get(status, subscription["status"] == status)
    items = subscription["items"]["data"]
    is_price = "price" not in wanted or any(i["price"] == wanted["price"] for i in items)
    method = wanted.get("collection_method", "charge_automatically")
    return is_status and is_price and subscription["collection_method"] == method


_EXTRAS = frozenset(
    {
        "add_invoice_items",
        "application_fee_percent",
        "automatic_tax",
        "billing_cycle_anchor",
        "billing_cycle_anchor_config",
        "billing_schedules",
        "billing_thresholds",
        "backdate_start_date",
        "default_source",
        "default_tax_rates",
        "discounts",
        "pause_collection",
        "pending_invoice_item_interval",
        "transfer_data",
        "trial_end",
        "trial_period_days",
    }
)

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/subscriptions",
        SubscriptionCreateParams,
        _create,
        _EXTRAS | {"cancel_at", "cancel_at_period_end"},
    ),
    Endpoint(
        "GET",
        "/v1/subscriptions",
        SubscriptionListParams,
        _list,
        frozenset({"automatic_tax", "current_period_end", "current_period_start", "plan"}),
    ),
    Endpoint(
        "GET",
        "/v1/subscriptions/{id}",
        SubscriptionRetrieveParams,
        lambda call: render(call.world, call.world.get("subscription", call.id)),
    ),
    Endpoint("POST", "/v1/subscriptions/{id}", SubscriptionUpdateParams, _update, _EXTRAS),
    Endpoint("DELETE", "/v1/subscriptions/{id}", SubscriptionCancelParams, _cancel),
)
