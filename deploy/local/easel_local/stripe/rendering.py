"""How objects look from outside: references filled in, `expand` followed, lists cut to pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from easel_local.stripe.objects import Obj, listing, public
from easel_local.stripe.refusal import Refused, invalid, no_such
from easel_local.stripe.world import World

_MAX_EXPAND_DEPTH = 4
_EMBEDDED_LINES = 10
_MAX_LIMIT = 100
_DEFAULT_LIMIT = 10


def render(world: World, obj: Obj) -> Obj:
    """The object as it is sent when nothing is expanded."""
    body: Obj = public(obj)
    if body.get("deleted"):
        return body
    dress = _DRESSES.get(body["object"])
    if dress is not None:
        dress(world, body)
    return body


def _dress_subscription(world: World, body: Obj) -> None:
    for item in body["items"]["data"]:
        price = world.get("price", item["price"])
        item["price"] = public(price)
        item["plan"] = plan_of(price)


def _dress_line_item(world: World, body: Obj) -> None:
    body["price"] = public(world.get("price", body["price"]))
    body.pop("created", None)  # ours: Stripe's line items have no age


def _dress_invoice(_world: World, body: Obj) -> None:
    lines = body["lines"]
    lines["has_more"] = len(lines["data"]) > _EMBEDDED_LINES
    del lines["data"][_EMBEDDED_LINES:]


_DRESSES: dict[str, Callable[[World, Obj], None]] = {
    "subscription": _dress_subscription,
    "item": _dress_line_item,
    "invoice": _dress_invoice,
}


def plan_of(price: Obj) -> Obj:
    """A recurring price in the shape of the older Plan, which subscription items still carry."""
    recurring = price["recurring"] or {}
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": "per_unit",
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring.get("interval", "month"),
        "interval_count": recurring.get("interval_count", 1),
        "livemode": False,
        "metadata": dict(price["metadata"]),
        "meter": None,
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


# --- what is only there when it is asked for --------------------------------------------------


def _session_items(world: World, body: Obj) -> Obj:
    session = world.get("checkout.session", body["id"])
    items = [render(world, item) for item in session["_line_items"]]
    return listing(items, f"/v1/checkout/sessions/{body['id']}/line_items")


def _invoice_payments(world: World, body: Obj) -> Obj:
    payments = [
        render(world, payment)
        for payment in world.owned("invoice_payment", body["customer"])
        if payment["invoice"] == body["id"]
    ]
    return listing(payments, f"/v1/invoice_payments?invoice={body['id']}")


def _charge_refunds(world: World, body: Obj) -> Obj:
    refunds = [r for r in world.every("refund") if r["charge"] == body["id"]]
    data = [render(world, refund) for refund in reversed(refunds)]
    return listing(data, f"/v1/charges/{body['id']}/refunds")


def _customer_subscriptions(world: World, body: Obj) -> Obj:
    live = [
        render(world, subscription)
        for subscription in world.owned("subscription", body["id"])
        if subscription["status"] not in {"canceled", "incomplete_expired"}
    ]
    return listing(reversed(live), f"/v1/customers/{body['id']}/subscriptions")


_INCLUDABLE: dict[tuple[str, str], Callable[[World, Obj], Obj]] = {
    ("checkout.session", "line_items"): _session_items,
    ("invoice", "payments"): _invoice_payments,
    ("charge", "refunds"): _charge_refunds,
    ("customer", "subscriptions"): _customer_subscriptions,
}


def expand(world: World, body: Obj, paths: Iterable[str]) -> Obj:
    """Replace ids by objects along dotted paths.

    Raises:
        Refused: a path that leads through nothing that can be expanded, or too deep.
    """
    for path in paths:
        parts = path.split(".")
        if len(parts) > _MAX_EXPAND_DEPTH + (parts[0] == "data"):
            raise invalid("expand", f"{path} goes deeper than {_MAX_EXPAND_DEPTH} levels")
        _expand(world, body, parts, path)
    return body


def _expand(world: World, here: Any, parts: list[str], path: str) -> None:  # noqa: ANN401 - JSON
    if not parts or here is None:
        return
    if isinstance(here, list):
        for member in here:
            _expand(world, member, parts, path)
        return
    name, rest = parts[0], parts[1:]
    if not isinstance(here, dict):
        raise _not_expandable(path)
    include = _INCLUDABLE.get((str(here.get("object")), name))
    if include is not None and name not in here:
        here[name] = include(world, here)
    if name not in here:
        raise _not_expandable(path)
    if isinstance(here[name], str):
        found = world.anything(here[name])
        if found is None:
            raise _not_expandable(path)
        here[name] = render(world, found)
    elif isinstance(here[name], list):
        here[name] = [_filled(world, member) for member in here[name]]
    _expand(world, here[name], rest, path)


def _filled(world: World, member: Any) -> Any:  # noqa: ANN401 - any JSON value
    found = world.anything(member) if isinstance(member, str) else None
    return member if found is None else render(world, found)


def _not_expandable(path: str) -> Refused:
    return Refused(400, f"This property cannot be expanded ({path}).", param="expand")


# --- pages ------------------------------------------------------------------------------------


def page(world: World, objects: Iterable[Obj], params: Obj, url: str) -> Obj:
    """One page of objects, which come oldest first and are shown newest first.

    Raises:
        Refused: limit out of bounds, or a cursor that is not among them.
    """
    limit = params.get("limit", _DEFAULT_LIMIT)
    if not 1 <= limit <= _MAX_LIMIT:
        raise invalid("limit", f"must be from 1 to {_MAX_LIMIT}", "parameter_invalid_integer")
    shown = [obj for obj in objects if _created_within(obj, params.get("created"))]
    shown.reverse()
    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise invalid("ending_before", "cannot be given together with starting_after")
    if after:
        shown = shown[_position(world, shown, after, "starting_after") + 1 :]
    if before:
        shown = shown[: _position(world, shown, before, "ending_before")]
        chosen, has_more = shown[-limit:], len(shown) > limit
    else:
        chosen, has_more = shown[:limit], len(shown) > limit
    return listing((render(world, obj) for obj in chosen), url, has_more=has_more)


def _position(world: World, shown: list[Obj], object_id: str, param: str) -> int:
    for index, obj in enumerate(shown):
        if obj["id"] == object_id:
            return index
    cursor = world.anything(object_id)
    if cursor is None:
        raise no_such("object", object_id, param=param, in_body=True)
    # It exists but is filtered out: its place is where its age puts it.
    age: int = cursor.get("created", 0)
    return len([obj for obj in shown if obj["created"] >= age]) - 1


def _created_within(obj: Obj, wanted: Obj | int | None) -> bool:
    if wanted is None:
        return True
    created: int = obj["created"]
    if isinstance(wanted, int):
        return created == wanted
    return bool(
        created > wanted.get("gt", -1)
        and created >= wanted.get("gte", 0)
        and created < wanted.get("lt", created + 1)
        and created <= wanted.get("lte", created)
    )
