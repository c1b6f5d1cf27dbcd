"""Subscriptions: how they start, renew and end. Changes of plan are in `changes.py`."""

from __future__ import annotations

from easel_local.stripe import cards, invoices, lines, payments, standing
from easel_local.stripe.objects import Obj, merge_metadata, new_id
from easel_local.stripe.periods import period_end
from easel_local.stripe.refusal import invalid, wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.standing import ENDED, end
from easel_local.stripe.world import World

__all__ = ["ENDED", "complete", "end", "expire_incomplete", "make", "renew", "start"]

_INCOMPLETE_S = 23 * 3_600
_MAX_QUANTITY = 999_999


def make(world: World, customer: Obj, items: list[tuple[Obj, int]], params: Obj) -> Obj:
    """A subscription that starts now; nothing is invoiced yet.

    Args:
        world: where it is kept.
        customer: whose it is.
        items: recurring prices and quantities.
        params: ``metadata``, ``description``, ``default_payment_method``.

    Raises:
        Refused: prices that do not go together, or too many.
    """
    _check_items(items)
    now = world.now(customer["id"])
    subscription_id = new_id("sub")
    first = items[0][0]
    until = period_end(now, now, first["recurring"])
    made = [_item(subscription_id, price["id"], quantity, now, until) for price, quantity in items]
    subscription = _blank(customer, subscription_id) | {
        "billing_cycle_anchor": now,
        "created": now,
        "currency": first["currency"],
        "default_payment_method": params.get("default_payment_method"),
        "description": params.get("description"),
        "items": {
            "object": "list",
            "data": made,
            "has_more": False,
            "total_count": len(made),
            "url": f"/v1/subscription_items?subscription={subscription_id}",
        },
        "metadata": merge_metadata({}, params.get("metadata") or {}),
        "start_date": now,
        "test_clock": customer["test_clock"],
    }
    world.add(subscription)
    world.plan("renew", subscription, until)
    customer["currency"] = customer["currency"] or first["currency"]
    return subscription


def _check_items(items: list[tuple[Obj, int]]) -> None:
    first = items[0][0] if items else None
    for price, quantity in items:
        if price["recurring"] is None or first is None or first["recurring"] is None:
            raise wrong_state(
                "The price specified is set to `type=one_time` but this field only accepts prices"
                " with `type=recurring`.",
                param="items[0][price]",
            )
        if price["currency"] != first["currency"]:
            raise invalid("items", "all prices must have one currency")
        if _rhythm(price) != _rhythm(first):
            raise invalid("items", "all prices must have one interval")
        if not 1 <= quantity <= _MAX_QUANTITY:
            raise invalid("items[0][quantity]", f"from 1 to {_MAX_QUANTITY}")


def _rhythm(price: Obj) -> tuple[str, int]:
    return price["recurring"]["interval"], price["recurring"]["interval_count"]


def _item(subscription_id: str, price_id: str, quantity: int, start: int, until: int) -> Obj:
    return {
        "id": new_id("si"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": start,
        "current_period_end": until,
        "current_period_start": start,
        "discounts": [],
        "metadata": {},
        "price": price_id,
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def _blank(customer: Obj, subscription_id: str) -> Obj:
    return {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": None, "type": "classic"},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "customer": customer["id"],
        "customer_account": None,
        "days_until_due": None,
        "default_source": None,
        "default_tax_rates": [],
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "latest_invoice": None,
        "livemode": False,
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "status": "incomplete",
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
        "_pending": [],
    }


def start(
    world: World, subscription: Obj, *, is_present: bool = False, may_charge: bool = True
) -> bool:
    """Invoice the first period and try to have it paid; whether it was.

    Declined, or not tried as may_charge is false, it is `incomplete` and expires after 23 hours.
    """
    now = subscription["start_date"]
    draft_lines = [
        lines.full_line(
            world, subscription, item, item["current_period_start"], item["current_period_end"]
        )
        for item in subscription["items"]["data"]
    ]
    period = {"start": now, "end": now}
    invoice = invoices.draft(
        world, subscription, draft_lines, "subscription_create", now=now, period=period
    )
    world.emit("customer.subscription.created", render(world, subscription), created=now)
    invoices.finalize(world, invoice, now=now)
    world.plan("incomplete", subscription, now + _INCOMPLETE_S)
    if invoice["amount_due"] and not may_charge:
        return False
    return invoices.collect(world, invoice, now=now, is_present=is_present)


def renew(world: World, subscription: Obj, now: int) -> None:
    """A period is over: end it where that was asked, else begin and invoice the next."""
    if subscription["status"] in ENDED or subscription["status"] == "incomplete":
        return
    if subscription["cancel_at_period_end"]:
        end(world, subscription, now, reason="cancellation_requested")
        return
    before = render(world, subscription)
    items = subscription["items"]["data"]
    old_start = items[0]["current_period_start"]
    recurring = world.get("price", items[0]["price"])["recurring"]
    until = period_end(subscription["billing_cycle_anchor"], now, recurring)
    for item in items:
        item["current_period_start"], item["current_period_end"] = now, until
    world.plan("renew", subscription, until)
    full = [lines.full_line(world, subscription, item, now, until) for item in items]
    period = {"start": old_start, "end": now}
    invoice = invoices.draft(
        world, subscription, full, "subscription_cycle", now=now, period=period
    )
    if subscription["status"] == "unpaid":
        invoice["auto_advance"] = False  # as at Stripe: it stays a draft
    else:
        invoice["automatically_finalizes_at"] = now + world.rules.draft_s
        world.plan("finalize", invoice, now + world.rules.draft_s)
    standing.tell_update(world, subscription, before, now)


def complete(world: World, invoice: Obj, now: int) -> None:
    """A renewal's draft has waited long enough: finalize and charge it."""
    if invoice["status"] == "draft":
        invoices.finalize(world, invoice, now=now)
        invoices.collect(world, invoice, now=now)


def retry(world: World, invoice: Obj, now: int) -> None:
    """Try once more to have a renewal paid."""
    if invoice["status"] == "open":
        invoices.collect(world, invoice, now=now)


def expire_incomplete(world: World, subscription: Obj, now: int) -> None:
    """The first payment never came."""
    if subscription["status"] != "incomplete":
        return
    before = render(world, subscription)
    subscription["status"] = "incomplete_expired"
    subscription["ended_at"] = now
    world.forget("renew", subscription)
    invoices.void(world, world.get("invoice", subscription["latest_invoice"]), now=now)
    standing.tell_update(world, subscription, before, now)


def end_as_planned(world: World, subscription: Obj, now: int) -> None:
    """A `cancel_at` has come."""
    if subscription["status"] not in ENDED:
        end(world, subscription, now, reason="cancellation_requested")


def check_card(card: Obj | None) -> None:
    """Pass a card whose payments succeed while its owner is away.

    Raises:
        Refused: 402, they do not.
    """
    if code := payments.would_decline(card, is_present=False):
        raise cards.declined(code)
