"""The Billing Portal: configurations, sessions, and what a customer may do on its page."""

from __future__ import annotations

from stripe.params.billing_portal import (
    ConfigurationCreateParams,
    ConfigurationListParams,
    ConfigurationRetrieveParams,
    SessionCreateParams,
)

from easel_local.stripe import cards, changes, standing
from easel_local.stripe.calls import Call, Endpoint
from easel_local.stripe.customers import living_customer
from easel_local.stripe.objects import Obj, merge_metadata, new_id
from easel_local.stripe.refusal import invalid, missing, wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_CONFIGURATION = "billing_portal.configuration"
_SESSION = "billing_portal.session"


def _make_configuration(world: World, params: Obj, *, is_default: bool) -> Obj:
    now = world.clock.now()
    profile = params.get("business_profile") or {}
    return world.add(
        {
            "id": new_id("bpc"),
            "object": _CONFIGURATION,
            "active": True,
            "application": None,
            "business_profile": {
                name: profile.get(name) or None
                for name in ("headline", "privacy_policy_url", "terms_of_service_url")
            },
            "created": now,
            "default_return_url": params.get("default_return_url") or None,
            "features": _features(params.get("features", {})),
            "is_default": is_default,
            "livemode": False,
            "login_page": {"enabled": False, "url": None},
            "metadata": merge_metadata({}, params.get("metadata", {})),
            "name": params.get("name") or None,
            "updated": now,
        }
    )


def _features(given: Obj) -> Obj:
    def enabled(name: str) -> bool:
        return bool(given.get(name, {}).get("enabled", not given))

    return {
        "customer_update": {"allowed_updates": [], "enabled": False},
        "invoice_history": {"enabled": enabled("invoice_history")},
        "payment_method_update": {
            "enabled": enabled("payment_method_update"),
            "payment_method_configuration": None,
        },
        "subscription_cancel": {
            "cancellation_reason": {"enabled": False, "options": []},
            "enabled": enabled("subscription_cancel"),
            "mode": "at_period_end",
            "proration_behavior": "none",
        },
        "subscription_pause": {
            "duration": {"interval_options": [], "type": "indefinite"},
            "enabled": False,
        },
        "subscription_update": {
            "billing_cycle_anchor": None,
            "default_allowed_updates": [],
            "enabled": False,
            "proration_behavior": "none",
            "schedule_at_period_end": {"conditions": []},
            "trial_update_behavior": "end_trial",
        },
    }


def _default_configuration(world: World) -> Obj:
    for configuration in world.every(_CONFIGURATION):
        if configuration["is_default"]:
            return configuration
    return _make_configuration(world, {}, is_default=True)


def _create_configuration(call: Call) -> Obj:
    return render(call.world, _make_configuration(call.world, call.params, is_default=False))


def _list_configurations(call: Call) -> Obj:
    wanted = call.params
    return call.page(
        configuration
        for configuration in call.world.every(_CONFIGURATION)
        if all(
            configuration[name] == wanted[name]
            for name in ("active", "is_default")
            if name in wanted
        )
    )


def _create_session(call: Call) -> Obj:
    world, params = call.world, call.params
    if "customer" not in params:
        raise missing("customer")
    customer = living_customer(world, params["customer"], param="customer")
    if "configuration" in params:
        configuration = world.get(_CONFIGURATION, params["configuration"], param="configuration")
    else:
        configuration = _default_configuration(world)
    back = params.get("return_url") or configuration["default_return_url"]
    if back is not None and not back.startswith(("http://", "https://")):
        raise invalid("return_url", "not a valid URL", "url_invalid")
    session_id = new_id("bps")
    session = world.add(
        {
            "id": session_id,
            "object": _SESSION,
            "configuration": configuration["id"],
            "created": world.now(customer["id"]),
            "customer": customer["id"],
            "customer_account": None,
            "flow": None,
            "livemode": False,
            "locale": params.get("locale"),
            "on_behalf_of": None,
            "return_url": back,
            "url": f"{world.url}/p/session/{session_id}",
        }
    )
    return render(world, session)


def set_cancel(world: World, session: Obj, subscription_id: str, *, cancel: bool) -> None:
    """The customer cancels a subscription to its period's end, or takes that back.

    Raises:
        Refused: it is no subscription of this customer's, or it has ended.
    """
    subscription = world.get("subscription", subscription_id)
    if subscription["customer"] != session["customer"]:
        raise wrong_state("This subscription is not yours.")
    if subscription["status"] in standing.ENDED:
        raise wrong_state("This subscription has ended.")
    now = world.now(session["customer"])
    before = render(world, subscription)
    changes.set_cancel_at_period_end(world, subscription, cancel=cancel, now=now)
    standing.tell_update(world, subscription, before, now)


def replace_card(world: World, session: Obj, kind: cards.TestCard) -> None:
    """The customer gives another card, for everything from now on.

    Raises:
        Refused: 402, the bank does not let it attach.
    """
    customer = living_customer(world, session["customer"])
    if not kind.attaches:
        raise cards.declined(kind.decline)
    card = cards.attach(world, cards.make_card(world, kind, email=customer["email"]), customer)
    now = world.now(customer["id"])
    customer["invoice_settings"]["default_payment_method"] = card["id"]
    world.emit("customer.updated", render(world, customer), created=now)
    for subscription in world.owned("subscription", customer["id"]):
        if subscription["status"] not in standing.ENDED:
            before = render(world, subscription)
            subscription["default_payment_method"] = card["id"]
            standing.tell_update(world, subscription, before, now)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/billing_portal/configurations",
        ConfigurationCreateParams,
        _create_configuration,
    ),
    Endpoint(
        "GET", "/v1/billing_portal/configurations", ConfigurationListParams, _list_configurations
    ),
    Endpoint(
        "GET",
        "/v1/billing_portal/configurations/{id}",
        ConfigurationRetrieveParams,
        lambda call: render(call.world, call.world.get(_CONFIGURATION, call.id)),
    ),
    Endpoint(
        "POST",
        "/v1/billing_portal/sessions",
        SessionCreateParams,
        _create_session,
        frozenset({"flow_data", "on_behalf_of"}),
    ),
)
