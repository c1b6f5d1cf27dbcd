"""The calls about invoices, their lines and their payments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stripe.params import (
    InvoiceCreatePreviewParams,
    InvoiceLineItemListParams,
    InvoiceListParams,
    InvoicePaymentListParams,
    InvoicePaymentRetrieveParams,
    InvoicePayParams,
    InvoiceRetrieveParams,
    InvoiceVoidInvoiceParams,
)

from easel_local.stripe import cards, changes, invoices
from easel_local.stripe.calls import Call, Endpoint
from easel_local.stripe.objects import Obj
from easel_local.stripe.refusal import invalid, missing, not_served, wrong_state
from easel_local.stripe.rendering import render


def _list(call: Call) -> Obj:
    wanted = call.params
    return call.page(
        invoice
        for invoice in _of_customer(call)
        if wanted.get("subscription", invoice["_subscription"]) == invoice["_subscription"]
        and all(
            invoice[name] == wanted[name]
            for name in ("status", "collection_method")
            if name in wanted
        )
    )


def _of_customer(call: Call) -> Iterator[Obj]:
    world, params = call.world, call.params
    if "subscription" in params:
        world.get("subscription", params["subscription"], param="subscription")
    if "customer" not in params:
        return world.every("invoice")
    world.get("customer", params["customer"], param="customer")
    return world.owned("invoice", params["customer"])


def _list_lines(call: Call) -> Obj:
    invoice = call.world.get("invoice", call.id)
    # Stripe lists lines in their own order, the way pages turn round newest-first lists.
    lines = [{**line, "created": invoice["created"]} for line in invoice["lines"]["data"]]
    page = call.page(reversed(lines))
    for line in page["data"]:
        del line["created"]
    return page


def _pay(call: Call) -> Obj:
    world, params = call.world, call.params
    invoice = world.get("invoice", call.id)
    if invoice["status"] not in {"open", "uncollectible"}:
        raise wrong_state(
            f"Invoice is already {invoice['status']}"
            if invoice["status"] == "paid"
            else f"An invoice that is {invoice['status']} cannot be paid.",
            code="invoice_not_editable",
        )
    now = world.now(invoice["customer"])
    if params.get("paid_out_of_band"):
        invoices.mark_paid(world, invoice, now=now, out_of_band=True)
        return render(world, invoice)
    card = None
    if "payment_method" in params:
        customer = world.get("customer", invoice["customer"])
        card = cards.owned_card(world, params["payment_method"], customer, param="payment_method")
    if not invoices.collect(world, invoice, now=now, card=card):
        intent = world.get("payment_intent", invoice["_intent"])
        error = intent["last_payment_error"]
        if error["type"] != "card_error":
            raise wrong_state(error["message"], code="resource_missing")
        raise cards.declined(
            error["decline_code"], charge=error["charge"], payment_intent=render(world, intent)
        )
    return render(world, invoice)


def _void(call: Call) -> Obj:
    world = call.world
    invoice = world.get("invoice", call.id)
    invoices.void(world, invoice, now=world.now(invoice["customer"]))
    return render(world, invoice)


def _preview(call: Call) -> Obj:
    """What the next invoice would be, or the one that a change would cause at once."""
    world, params = call.world, call.params
    if "subscription" not in params:
        raise not_served("create_preview without subscription")
    subscription = world.get("subscription", params["subscription"], param="subscription")
    details = params.get("subscription_details", {})
    for name in sorted(details.keys() - _PREVIEWED):
        raise not_served(f"subscription_details[{name}]")
    change = changes.plan_change(world, subscription, details)
    at_once = change.resets or details.get("proration_behavior") == "always_invoice"
    made = [dict(line) for line in [*subscription["_pending"], *change.lines]]
    until = subscription["items"]["data"][0]["current_period_end"]
    is_last = details.get("cancel_at_period_end", subscription["cancel_at_period_end"])
    if change.resets:
        made += changes.full_lines(world, subscription, change, start=change.now)
    elif not at_once and not is_last:
        made += changes.full_lines(world, subscription, change, start=until)
    if not made:
        raise wrong_state(
            "No upcoming invoices for this subscription.", code="invoice_upcoming_none"
        )
    when = change.now if at_once else until
    invoice = invoices.build(
        world,
        subscription,
        made,
        "upcoming",
        now=when,
        period={"start": change.now, "end": when},
    )
    return render(world, _settled(invoice))


_PREVIEWED = frozenset({"items", "proration_behavior", "proration_date", "cancel_at_period_end"})


def _settled(invoice: Obj) -> Obj:
    """A preview's amounts after the customer's balance."""
    due = max(0, invoice["total"] + invoice["starting_balance"])
    invoice["ending_balance"] = invoice["total"] + invoice["starting_balance"] - due
    invoice["id"] = f"upcoming_{invoice['id']}"
    return invoice | {"amount_due": due, "amount_remaining": due, "auto_advance": False}


def _list_payments(call: Call) -> Obj:
    world, wanted = call.world, call.params
    by_payment = wanted.get("payment", {})
    if "payment_record" in by_payment:
        raise not_served("payment[payment_record]")
    if by_payment and "payment_intent" not in by_payment:
        raise missing("payment[payment_intent]")
    if not by_payment and "invoice" not in wanted and "created" not in wanted:
        raise invalid("invoice", "name the invoice or the payment", "parameter_missing")
    found = world.every("invoice_payment")
    if "invoice" in wanted:
        invoice = world.get("invoice", wanted["invoice"], param="invoice")
        found = world.owned("invoice_payment", invoice["customer"])
    return call.page(payment for payment in found if _is_wanted(payment, wanted, by_payment))


def _is_wanted(payment: Obj, wanted: dict[str, Any], by_payment: dict[str, Any]) -> bool:
    intent = payment["payment"]["payment_intent"]
    return bool(
        wanted.get("invoice", payment["invoice"]) == payment["invoice"]
        and wanted.get("status", payment["status"]) == payment["status"]
        and by_payment.get("payment_intent", intent) == intent
    )


ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/invoices",
        InvoiceListParams,
        _list,
        frozenset({"due_date", "customer_account"}),
    ),
    Endpoint(
        "POST",
        "/v1/invoices/create_preview",
        InvoiceCreatePreviewParams,
        _preview,
        frozenset({"discounts", "invoice_items", "automatic_tax", "schedule", "schedule_details"}),
    ),
    Endpoint(
        "GET",
        "/v1/invoices/{id}",
        InvoiceRetrieveParams,
        lambda call: render(call.world, call.world.get("invoice", call.id)),
    ),
    Endpoint("GET", "/v1/invoices/{id}/lines", InvoiceLineItemListParams, _list_lines),
    Endpoint(
        "POST",
        "/v1/invoices/{id}/pay",
        InvoicePayParams,
        _pay,
        frozenset({"forgive", "mandate", "source"}),
    ),
    Endpoint("POST", "/v1/invoices/{id}/void", InvoiceVoidInvoiceParams, _void),
    Endpoint("GET", "/v1/invoice_payments", InvoicePaymentListParams, _list_payments),
    Endpoint(
        "GET",
        "/v1/invoice_payments/{id}",
        InvoicePaymentRetrieveParams,
        lambda call: render(call.world, call.world.get("invoice_payment", call.id)),
    ),
)
