"""Payment intents and charges: money that a card gives."""

from __future__ import annotations

from stripe.params import (
    ChargeListParams,
    ChargeRetrieveParams,
    PaymentIntentListParams,
    PaymentIntentRetrieveParams,
)

from easel_local.stripe import cards
from easel_local.stripe.calls import Call, Endpoint
from easel_local.stripe.objects import Obj, merge_metadata, new_id
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World


def make_intent(
    world: World,
    customer_id: str | None,
    amount: int,
    currency: str,
    *,
    now: int,
    metadata: dict[str, str] | None = None,
    description: str | None = None,
) -> Obj:
    """An intent to take an amount from a customer; nothing is taken yet."""
    intent_id = new_id("pi")
    intent = world.add(
        {
            "id": intent_id,
            "object": "payment_intent",
            "amount": amount,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic",
            "client_secret": f"{intent_id}_secret_{new_id('s')[2:]}",
            "confirmation_method": "automatic",
            "created": now,
            "currency": currency,
            "customer": customer_id,
            "description": description,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": merge_metadata({}, metadata or {}),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None,
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": None,
            "shipping": None,
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "requires_payment_method",
            "transfer_data": None,
            "transfer_group": None,
        }
    )
    world.emit("payment_intent.created", render(world, intent), created=now)
    return intent


def would_decline(card: Obj | None, *, is_present: bool) -> str:
    """Why a payment would fail now, as a decline code; empty when it would not.

    Args:
        card: None when there is none to charge.
        is_present: whether the customer is there, at a checkout page.
    """
    if card is None:
        return "generic_decline"
    kind = cards.behaviour(card)
    return "" if kind.later_only and is_present else kind.decline


def charge(world: World, intent: Obj, card: Obj | None, *, now: int, is_present: bool) -> bool:
    """Try to take the intent's amount from a card; whether it was given.

    A declined try leaves a failed charge and the reason on the intent; without a card there is no
    charge at all. A card whose payments are disputed is charged, and its dispute is the caller's
    to open, after whatever the payment was for.
    """
    code = would_decline(card, is_present=is_present)
    world.version += 1
    tried = None if card is None else world.add(_charge(intent, card, code, now))
    if tried is None or card is None or code:
        intent["latest_charge"] = None if tried is None else tried["id"]
        intent["last_payment_error"] = _payment_error(world, intent, card, code)
        intent["status"] = "requires_payment_method"
        if tried is not None:
            world.emit("charge.failed", render(world, tried), created=now)
        world.emit("payment_intent.payment_failed", render(world, intent), created=now)
        return False
    intent |= {
        "amount_received": intent["amount"],
        "last_payment_error": None,
        "latest_charge": tried["id"],
        "payment_method": card["id"],
        "status": "succeeded",
    }
    world.emit("charge.succeeded", render(world, tried), created=now)
    world.emit("payment_intent.succeeded", render(world, intent), created=now)
    return True


def _payment_error(world: World, intent: Obj, card: Obj | None, code: str) -> Obj:
    if card is None:
        return {
            "code": "payment_intent_payment_attempt_failed",
            "message": "The customer has no payment method to charge.",
            "type": "invalid_request_error",
        }
    return {
        "charge": intent["latest_charge"],
        "code": "card_declined",
        "decline_code": code,
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": cards.decline_message(code),
        "payment_method": render(world, card),
        "type": "card_error",
    }


def _charge(intent: Obj, card: Obj, code: str, now: int) -> Obj:
    is_paid = not code
    return {
        "id": new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if is_paid else 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": dict(card["billing_details"]),
        "calculated_statement_descriptor": "EASEL STAND-IN",
        "captured": is_paid,
        "created": now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": "card_declined" if code else None,
        "failure_message": cards.decline_message(code) if code else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "on_behalf_of": None,
        "outcome": _outcome(code),
        "paid": is_paid,
        "payment_intent": intent["id"],
        "payment_method": card["id"],
        "payment_method_details": {"card": _card_details(card, intent["amount"]), "type": "card"},
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "succeeded" if is_paid else "failed",
        "transfer_data": None,
        "transfer_group": None,
    }


def _card_details(card: Obj, amount: int) -> Obj:
    kept = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding")
    details = {name: card["card"][name] for name in (*kept, "last4", "wallet")}
    return details | {
        "amount_authorized": amount,
        "installments": None,
        "mandate": None,
        "network": card["card"]["brand"],
        "three_d_secure": None,
    }


def _outcome(code: str) -> Obj:
    return {
        "network_status": "declined_by_network" if code else "approved_by_network",
        "reason": code or None,
        "risk_level": "normal",
        "risk_score": 10,
        "seller_message": "The bank declined." if code else "Payment complete.",
        "type": "issuer_declined" if code else "authorized",
    }


def _list_intents(call: Call) -> Obj:
    return call.page(_of_customer(call, "payment_intent"))


def _list_charges(call: Call) -> Obj:
    wanted = call.params.get("payment_intent")
    found = _of_customer(call, "charge")
    return call.page(c for c in found if wanted is None or c["payment_intent"] == wanted)


def _of_customer(call: Call, kind: str) -> list[Obj]:
    customer_id = call.params.get("customer")
    if customer_id is None:
        return list(call.world.every(kind))
    call.world.get("customer", customer_id, param="customer")
    return list(call.world.owned(kind, customer_id))


ENDPOINTS = (
    Endpoint("GET", "/v1/payment_intents", PaymentIntentListParams, _list_intents),
    Endpoint(
        "GET",
        "/v1/payment_intents/{id}",
        PaymentIntentRetrieveParams,
        lambda call: render(call.world, call.world.get("payment_intent", call.id)),
    ),
    Endpoint("GET", "/v1/charges", ChargeListParams, _list_charges, frozenset({"transfer_group"})),
    Endpoint(
        "GET",
        "/v1/charges/{id}",
        ChargeRetrieveParams,
        lambda call: render(call.world, call.world.get("charge", call.id)),
    ),
)
