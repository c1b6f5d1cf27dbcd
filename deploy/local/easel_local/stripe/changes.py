"""Changes of a running subscription: another price or quantity, with what that costs or returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from easel_local.stripe import cards, invoices, lines, payments, standing
from easel_local.stripe.objects import Obj
from easel_local.stripe.periods import period_end
from easel_local.stripe.refusal import invalid, missing, not_served, wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_MAX_QUANTITY = 999_999
_IN_ITEMS = frozenset({"id", "price", "quantity", "metadata"})


@dataclass(frozen=True, slots=True)
class Change:
    """What an update of items comes to.

    Attributes:
        items: item, new price, new quantity, of those that change.
        lines: what the change gives back and costs; empty without proration.
        resets: whether a new period starts now, with the full new price on an invoice of its own.
        now: when.
    """

    items: tuple[tuple[Obj, Obj, int], ...]
    lines: list[Obj]
    resets: bool
    now: int


def plan_change(world: World, subscription: Obj, params: dict[str, Any]) -> Change:
    """Work out what new items mean; nothing is changed yet.

    Args:
        world: where it is.
        subscription: as it is.
        params: ``items``, ``proration_behavior``, ``proration_date``.

    Raises:
        Refused: an item that cannot be.
    """
    now = world.now(subscription["customer"])
    moment = params.get("proration_date", now)
    pairs = [
        _pair(world, subscription, given, f"items[{number}]")
        for number, given in enumerate(params.get("items", []))
    ]
    changes = tuple(pair for pair in pairs if _differs(*pair))
    for item, _price, _quantity in changes:
        if not item["current_period_start"] <= moment <= item["current_period_end"]:
            raise invalid("proration_date", "must lie in the current period")
    resets = any(_starts_anew(world, item, price) for item, price, _quantity in changes)
    made: list[Obj] = []
    if params.get("proration_behavior", "create_prorations") != "none":
        for item, price, quantity in changes:
            both = lines.proration_lines(world, subscription, item, (price["id"], quantity), moment)
            made += both[:1] if resets else both
    return Change(changes, made, resets, now)


def _pair(world: World, subscription: Obj, given: Obj, param: str) -> tuple[Obj, Obj, int]:
    for name in sorted(given.keys() - _IN_ITEMS):
        raise not_served(f"{param}[{name}]")
    if "id" not in given:
        raise missing(f"{param}[id]")  # Stripe would add an item beside the others
    for item in subscription["items"]["data"]:
        if item["id"] == given["id"]:
            break
    else:
        raise invalid(f"{param}[id]", "no item of this subscription", "resource_missing")
    price_id = given.get("price", item["price"])
    price = world.get("price", price_id, param=f"{param}[price]")
    if price["recurring"] is None or price["currency"] != subscription["currency"]:
        raise invalid(f"{param}[price]", "must be recurring and in the subscription's currency")
    if not price["active"] and price_id != item["price"]:
        raise wrong_state(f"The price {price_id} is inactive.", param=f"{param}[price]")
    quantity = given.get("quantity", item["quantity"])
    if not 1 <= quantity <= _MAX_QUANTITY:
        raise invalid(f"{param}[quantity]", f"from 1 to {_MAX_QUANTITY}")
    return item, price, quantity


def _differs(item: Obj, price: Obj, quantity: int) -> bool:
    return bool(item["price"] != price["id"] or item["quantity"] != quantity)


def _starts_anew(world: World, item: Obj, price: Obj) -> bool:
    """Whether the cycle starts again: another interval, or from nothing to something."""
    old = world.get("price", item["price"])
    was_free = old["unit_amount"] == 0 and price["unit_amount"] > 0
    rhythms = [(p["recurring"]["interval"], p["recurring"]["interval_count"]) for p in (old, price)]
    return was_free or rhythms[0] != rhythms[1]


def full_lines(world: World, subscription: Obj, change: Change, *, start: int) -> list[Obj]:
    """Whole periods from start on, of the items as the change leaves them."""
    new = {item["id"]: (price, quantity) for item, price, quantity in change.items}
    made = []
    for item in subscription["items"]["data"]:
        price, quantity = new.get(item["id"], (world.get("price", item["price"]), item["quantity"]))
        anchor = start if change.resets else subscription["billing_cycle_anchor"]
        until = period_end(anchor, start, price["recurring"])
        after = {**item, "price": price["id"], "quantity": quantity}
        made.append(lines.full_line(world, subscription, after, start, until))
    return made


def change_items(world: World, subscription: Obj, params: dict[str, Any]) -> None:
    """Carry a change of items out, with its invoice where one is asked for.

    Raises:
        Refused: 402 when the payment would be declined and `payment_behavior` is
            `error_if_incomplete`; then nothing has changed.
    """
    change = plan_change(world, subscription, params)
    if not change.items:
        return
    if subscription["status"] == "incomplete":
        raise wrong_state("An incomplete subscription cannot be changed before its first payment.")
    behavior = params.get("payment_behavior", "allow_incomplete")
    if behavior == "pending_if_incomplete":
        raise not_served("payment_behavior=pending_if_incomplete")
    at_once = change.resets or params.get("proration_behavior") == "always_invoice"
    now_due = list(change.lines)
    if change.resets:
        now_due += full_lines(world, subscription, change, start=change.now)
    if at_once and behavior == "error_if_incomplete":
        _check_payment(world, subscription, now_due)
    before = render(world, subscription)
    _apply(world, subscription, change)
    standing.tell_update(world, subscription, before, change.now)
    if not at_once:
        subscription["_pending"] = [*subscription["_pending"], *change.lines]
    elif now_due or subscription["_pending"]:
        may_charge = behavior != "default_incomplete"
        invoice_now(world, subscription, now_due, change.now, may_charge=may_charge)


def _check_payment(world: World, subscription: Obj, now_due: list[Obj]) -> None:
    balance = world.get("customer", subscription["customer"])["balance"]
    total = sum(line["amount"] for line in [*subscription["_pending"], *now_due])
    if total + balance > 0:
        card = invoices.card_for(world, subscription)
        if code := payments.would_decline(card, is_present=False):
            raise cards.declined(code)


def _apply(world: World, subscription: Obj, change: Change) -> None:
    for item, price, quantity in change.items:
        item["price"], item["quantity"] = price["id"], quantity
    if change.resets:
        subscription["billing_cycle_anchor"] = change.now
        recurring = change.items[0][1]["recurring"]
        until = period_end(change.now, change.now, recurring)
        for item in subscription["items"]["data"]:
            item["current_period_start"], item["current_period_end"] = change.now, until
        world.plan("renew", subscription, until)
    world.version += 1


def invoice_now(
    world: World, subscription: Obj, now_due: list[Obj], now: int, *, may_charge: bool = True
) -> Obj:
    """An invoice between two renewals, finalized and charged at once."""
    period = {"start": now, "end": now}
    invoice = invoices.draft(
        world, subscription, now_due, "subscription_update", now=now, period=period
    )
    invoices.finalize(world, invoice, now=now)
    if may_charge or not invoice["amount_due"]:
        invoices.collect(world, invoice, now=now)
    return invoice


def set_cancel_at_period_end(world: World, subscription: Obj, *, cancel: bool, now: int) -> None:
    """Let it end with its period, or go on."""
    subscription["cancel_at_period_end"] = cancel
    until = subscription["items"]["data"][0]["current_period_end"]
    subscription["cancel_at"] = until if cancel else None
    subscription["canceled_at"] = now if cancel else None
    subscription["cancellation_details"]["reason"] = "cancellation_requested" if cancel else None
    world.forget("cancel", subscription)


def set_cancel_at(world: World, subscription: Obj, when: int | None, now: int) -> None:
    """Let it end at a time of its own.

    Raises:
        Refused: that time is over.
    """
    if when is not None and when <= now:
        raise invalid("cancel_at", "must be in the future")
    set_cancel_at_period_end(world, subscription, cancel=False, now=now)
    if when is not None:
        subscription["cancel_at"], subscription["canceled_at"] = when, now
        world.plan("cancel", subscription, when)
