"""The lines of invoices: a full period of a price, and parts of one, given back or bought."""

from __future__ import annotations

from datetime import UTC, datetime

from easel_local.stripe.objects import Obj, new_id
from easel_local.stripe.periods import share
from easel_local.stripe.world import World


def full_line(world: World, subscription: Obj, item: Obj, start: int, end: int) -> Obj:
    """A whole period of an item."""
    price = world.get("price", item["price"])
    amount = price["unit_amount"] * item["quantity"]
    recurring = price["recurring"]
    text = (
        f"{item['quantity']} x {_product_name(world, price)}"
        f" (at {money(price['unit_amount'], price['currency'])} / {recurring['interval']})"
    )
    line = _line(price, amount, item["quantity"], text, start=start, end=end)
    return line | {"parent": _parent(subscription, item, proration=False, details=None)}


def proration_lines(
    world: World, subscription: Obj, item: Obj, change: tuple[str, int], now: int
) -> list[Obj]:
    """What a change in the middle of a period gives back and costs, both to the cent.

    Args:
        world: where prices are.
        subscription: as it was.
        item: as it was.
        change: the new price's id and quantity.
        now: the time of the change.
    """
    start, end = item["current_period_start"], item["current_period_end"]
    new_price, new_quantity = change
    unused = _part(world, item["price"], item["quantity"], (start, end, now), is_credit=True)
    remaining = _part(world, new_price, new_quantity, (start, end, now), is_credit=False)
    credited = item.get("_line")
    unused["parent"] = _parent(
        subscription, item, proration=True, details={"credited_items": credited}
    )
    remaining["parent"] = _parent(
        subscription, item, proration=True, details={"credited_items": None}
    )
    return [unused, remaining]


def credit_line(world: World, subscription: Obj, item: Obj, now: int) -> Obj:
    """What the unused rest of an item's period gives back."""
    change = (item["price"], item["quantity"])
    return proration_lines(world, subscription, item, change, now)[0]


def _part(
    world: World, price_id: str, quantity: int, times: tuple[int, int, int], *, is_credit: bool
) -> Obj:
    start, end, now = times
    price = world.get("price", price_id)
    amount = share(price["unit_amount"] * quantity, start, end, now)
    day = datetime.fromtimestamp(now, UTC).strftime("%d %b %Y")
    word = "Unused" if is_credit else "Remaining"
    text = f"{word} time on {_product_name(world, price)} after {day}"
    return _line(price, -amount if is_credit else amount, quantity, text, start=now, end=end)


def _line(price: Obj, amount: int, quantity: int, text: str, *, start: int, end: int) -> Obj:
    return {
        "id": new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": text,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "parent": None,
        "period": {"end": end, "start": start},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity,
        "subtotal": amount,
        "taxes": [],
    }


def _parent(subscription: Obj, item: Obj, *, proration: bool, details: Obj | None) -> Obj:
    return {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": new_id("ii") if proration else None,
            "proration": proration,
            "proration_details": details or {"credited_items": None},
            "subscription": subscription["id"],
            "subscription_item": item["id"],
        },
        "type": "subscription_item_details",
    }


def _product_name(world: World, price: Obj) -> str:
    return str(world.get("product", price["product"])["name"])


def money(cents: int, currency: str) -> str:
    """An amount for people: ``$19.00``, ``EUR 19.00``."""
    sign = "-" if cents < 0 else ""
    mark = "$" if currency == "usd" else f"{currency.upper()} "
    return f"{sign}{mark}{abs(cents) // 100}.{abs(cents) % 100:02}"
