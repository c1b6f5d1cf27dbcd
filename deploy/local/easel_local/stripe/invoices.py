"""Invoices: drafted, finalized, charged, tried again, voided."""

from __future__ import annotations

from easel_local.stripe import payments, reversals, standing
from easel_local.stripe.objects import Obj, new_id
from easel_local.stripe.refusal import wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_DAY_S = 86_400


def draft(
    world: World, subscription: Obj, lines: list[Obj], reason: str, *, now: int, period: Obj
) -> Obj:
    """A new draft with these lines and whatever waited for the next invoice.

    Args:
        world: where it is kept.
        subscription: whose it is; it becomes its `latest_invoice`.
        lines: of this invoice alone.
        reason: its `billing_reason`.
        now: the time.
        period: ``start`` and ``end`` of the invoice itself.
    """
    every = [*subscription["_pending"], *lines]
    invoice = build(world, subscription, every, reason, now=now, period=period)
    subscription["_pending"] = []
    world.add(invoice)
    subscription["latest_invoice"] = invoice["id"]
    for line in invoice["lines"]["data"]:
        _remember_line(subscription, invoice, line)
    world.emit("invoice.created", render(world, invoice), created=now)
    return invoice


def _remember_line(subscription: Obj, invoice: Obj, line: Obj) -> None:
    """Let an item know the line it was last paid by, for the credit of a later change."""
    if line["amount"] < 0:
        return
    paid_item = line["parent"]["subscription_item_details"]["subscription_item"]
    for item in subscription["items"]["data"]:
        if item["id"] == paid_item:
            item["_line"] = {"invoice": invoice["id"], "invoice_line_items": [line["id"]]}


def build(
    world: World, subscription: Obj, lines: list[Obj], reason: str, *, now: int, period: Obj
) -> Obj:
    """A draft that nobody keeps yet."""
    customer = world.get("customer", subscription["customer"])
    invoice_id = new_id("in")
    total = sum(line["amount"] for line in lines)
    for line in lines:
        line["invoice"] = invoice_id
    url = f"/v1/invoices/{invoice_id}/lines"
    return _blank(customer, invoice_id) | {
        "amount_due": max(0, total),
        "amount_remaining": max(0, total),
        "billing_reason": reason,
        "created": now,
        "currency": subscription["currency"],
        "default_payment_method": None,
        "lines": {"object": "list", "data": lines, "has_more": False, "url": url},
        "parent": {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        },
        "period_end": period["end"],
        "period_start": period["start"],
        "starting_balance": customer.get("balance", 0),
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "test_clock": world.clock_of(subscription["customer"]),
        "total": total,
        "total_excluding_tax": total,
        "_subscription": subscription["id"],
        "_intent": None,
    }


def _blank(customer: Obj, invoice_id: str) -> Obj:
    return {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Easel (stand-in)",
        "account_tax_ids": None,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "collection_method": "charge_automatically",
        "custom_fields": None,
        "customer": customer["id"],
        "customer_address": customer.get("address"),
        "customer_email": customer.get("email"),
        "customer_name": customer.get("name"),
        "customer_phone": customer.get("phone"),
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": dict.fromkeys(
            ("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")
        ),
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": None,
    }


def finalize(world: World, invoice: Obj, *, now: int) -> None:
    """Number it, settle it with the customer's balance, and ask for what is left."""
    customer = world.get("customer", invoice["customer"])
    balance, total = customer.get("balance", 0), invoice["total"]
    due = max(0, total + balance)
    customer["balance"] = total + balance - due
    invoice |= {
        "amount_due": due,
        "amount_remaining": due,
        "starting_balance": balance,
        "ending_balance": customer["balance"],
        "effective_at": now,
        "status": "open",
        "number": f"{customer.get('invoice_prefix')}-{customer.get('next_invoice_sequence'):04}",
        "automatically_finalizes_at": None,
        "hosted_invoice_url": f"{world.url}/i/{invoice['id']}",
    }
    customer["next_invoice_sequence"] += 1
    invoice["status_transitions"]["finalized_at"] = now
    if due:
        _ask_for(world, invoice, now)
    world.version += 1
    world.emit("invoice.finalized", render(world, invoice), created=now)


def _ask_for(world: World, invoice: Obj, now: int) -> None:
    """The intent and the invoice payment for what is due."""
    intent = payments.make_intent(
        world,
        invoice["customer"],
        invoice["amount_due"],
        invoice["currency"],
        now=now,
        description=f"Subscription: invoice {invoice['number']}",
    )
    invoice["_intent"] = intent["id"]
    world.add(
        {
            "id": new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": invoice["amount_due"],
            "created": now,
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
            "_owner": invoice["customer"],
        }
    )


def collect(
    world: World, invoice: Obj, *, now: int, is_present: bool = False, card: Obj | None = None
) -> bool:
    """Try to have an open invoice paid; whether it is.

    Args:
        world: where it is.
        invoice: open.
        now: the time.
        is_present: whether the customer is there.
        card: to charge instead of the subscription's or the customer's own.
    """
    if not invoice["amount_remaining"]:
        mark_paid(world, invoice, now=now)
        return True
    intent = world.get("payment_intent", invoice["_intent"])
    subscription = world.get("subscription", invoice["_subscription"])
    chosen = card or card_for(world, subscription)
    invoice["attempted"] = True
    invoice["attempt_count"] += 1
    if payments.charge(world, intent, chosen, now=now, is_present=is_present):
        mark_paid(world, invoice, now=now)
        reversals.dispute_if_planned(world, intent)
        return True
    _try_again_later(world, invoice, subscription, now)
    return False


def card_for(world: World, subscription: Obj) -> Obj | None:
    """The card that a subscription's invoices are charged to."""
    customer = world.get("customer", subscription["customer"])
    card_id = (
        subscription["default_payment_method"]
        or customer.get("invoice_settings", {}).get("default_payment_method")
    )  # fmt: skip
    return None if card_id is None else world.find("payment_method", card_id)


def mark_paid(world: World, invoice: Obj, *, now: int, out_of_band: bool = False) -> None:
    """It is paid, by its intent or (out of band, or with nothing due) without."""
    invoice |= {
        "attempted": True,
        "amount_paid": invoice["amount_due"],
        "amount_remaining": 0,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "paid",
    }
    invoice["status_transitions"]["paid_at"] = now
    world.forget("retry", invoice)
    world.version += 1
    _close_payment(world, invoice, "canceled" if out_of_band else "paid", now)
    for kind in ("invoice.paid", "invoice.payment_succeeded"):
        world.emit(kind, render(world, invoice), created=now)
    subscription = world.get("subscription", invoice["_subscription"])
    is_latest = subscription["latest_invoice"] == invoice["id"]
    if is_latest and subscription["status"] in {"incomplete", "past_due", "unpaid"}:
        world.forget("incomplete", subscription)
        standing.set_status(world, subscription, "active", now)


def _close_payment(world: World, invoice: Obj, status: str, now: int) -> None:
    for payment in world.owned("invoice_payment", invoice["customer"]):
        if payment["invoice"] == invoice["id"] and payment["status"] == "open":
            payment["status"] = status
            payment["status_transitions"][f"{status}_at"] = now
            if status == "paid":
                payment["amount_paid"] = payment["amount_requested"]
                world.emit("invoice_payment.paid", render(world, payment), created=now)


def _try_again_later(world: World, invoice: Obj, subscription: Obj, now: int) -> None:
    """Note the failure, plan the next try, or give up as the rules say."""
    tries = world.rules.retry_days
    number = invoice["attempt_count"] - 1
    is_first_of_all = invoice["billing_reason"] == "subscription_create"
    has_next = not is_first_of_all and invoice["auto_advance"] and number < len(tries)
    invoice["next_payment_attempt"] = now + tries[number] * _DAY_S if has_next else None
    if has_next:
        world.plan("retry", invoice, invoice["next_payment_attempt"])
    world.version += 1
    world.emit("invoice.payment_failed", render(world, invoice), created=now)
    if is_first_of_all or subscription["status"] in standing.ENDED:
        return
    if subscription["status"] == "active":
        standing.set_status(world, subscription, "past_due", now)
    if not has_next and invoice["auto_advance"]:
        _give_up(world, invoice, subscription, now)


def _give_up(world: World, invoice: Obj, subscription: Obj, now: int) -> None:
    invoice["auto_advance"] = False
    end_state = world.rules.after_retries
    if end_state == "canceled":
        standing.end(world, subscription, now, reason="payment_failed")
    elif subscription["status"] != end_state:
        standing.set_status(world, subscription, end_state, now)


def void(world: World, invoice: Obj, *, now: int) -> None:
    """Nobody shall pay it any more.

    Raises:
        Refused: it is neither open nor uncollectible.
    """
    if invoice["status"] not in {"open", "uncollectible"}:
        raise wrong_state(
            f"You can only pass in open or uncollectible invoices. This one is {invoice['status']}."
        )
    invoice |= {"status": "void", "auto_advance": False, "next_payment_attempt": None}
    invoice["status_transitions"]["voided_at"] = now
    world.forget("retry", invoice)
    if invoice["_intent"] is not None:
        intent = world.get("payment_intent", invoice["_intent"])
        intent |= {"status": "canceled", "canceled_at": now, "cancellation_reason": "void_invoice"}
        world.emit("payment_intent.canceled", render(world, intent), created=now)
    _close_payment(world, invoice, "canceled", now)
    world.version += 1
    world.emit("invoice.voided", render(world, invoice), created=now)
