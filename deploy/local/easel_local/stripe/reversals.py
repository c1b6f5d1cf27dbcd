"""Money that goes back: refunds, and disputes opened and closed by the card's bank."""

from __future__ import annotations

from stripe.params import (
    DisputeCloseParams,
    DisputeListParams,
    DisputeRetrieveParams,
    RefundCreateParams,
    RefundListParams,
    RefundRetrieveParams,
)

from easel_local.stripe import cards
from easel_local.stripe.calls import Call, Endpoint, required_one
from easel_local.stripe.objects import Obj, merge_metadata, new_id
from easel_local.stripe.refusal import invalid, wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_EVIDENCE_DAYS = 9
_DAY_S = 86_400
_OPEN = frozenset({"needs_response", "under_review", "warning_needs_response"})
_CLOSED = {"won": "won", "lost": "lost", "warning_closed": "warning_closed"}


def _charge_of(world: World, params: Obj) -> Obj:
    """The charge that a parameter names, in itself or by its payment intent."""
    if required_one(params, "payment_intent", "charge") == "charge":
        return world.get("charge", params["charge"], param="charge")
    intent = world.get("payment_intent", params["payment_intent"], param="payment_intent")
    if intent["status"] != "succeeded":
        raise wrong_state(
            f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
            code="payment_intent_unexpected_state",
        )
    return world.get("charge", intent["latest_charge"])


def _create_refund(call: Call) -> Obj:
    world = call.world
    charge = _charge_of(world, call.params)
    amount = _refundable(charge, call.params.get("amount"))
    now = world.now(charge["customer"])
    refund = world.add(
        {
            "id": new_id("re"),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None,
            "charge": charge["id"],
            "created": now,
            "currency": charge["currency"],
            "destination_details": {
                "card": {"reference_status": "pending", "type": "refund"},
                "type": "card",
            },
            "metadata": merge_metadata({}, call.params.get("metadata", {})),
            "payment_intent": charge["payment_intent"],
            "reason": call.params.get("reason"),
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "succeeded",
            "transfer_reversal": None,
            "_owner": charge["customer"],
        }
    )
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    world.emit("charge.refunded", render(world, charge), created=now)
    world.emit("refund.created", render(world, refund), created=now)
    return render(world, refund)


def _refundable(charge: Obj, asked: int | None) -> int:
    left: int = charge["amount_captured"] - charge["amount_refunded"]
    if charge["disputed"] and charge.get("_dispute_state") != "won":
        raise wrong_state(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.",
            code="charge_disputed",
        )
    if charge["status"] != "succeeded":
        raise wrong_state(f"Charge {charge['id']} failed; there is nothing to refund.")
    if left == 0:
        raise wrong_state(
            f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded"
        )
    amount = left if asked is None else asked
    if amount < 1:
        raise invalid("amount", "must be at least 1", "parameter_invalid_integer")
    if amount > left:
        raise wrong_state(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            param="amount",
        )
    return amount


def open_dispute(
    world: World,
    charge: Obj,
    *,
    amount: int | None = None,
    reason: str = "fraudulent",
    is_inquiry: bool = False,
) -> Obj:
    """A card's owner contests a payment.

    Args:
        world: where it is.
        charge: what is contested.
        amount: how much of it, all when None.
        reason: as Stripe names them.
        is_inquiry: a warning, by which no money moves.

    Raises:
        Refused: it failed, or is contested already, or the amount cannot be.
    """
    if charge["status"] != "succeeded" or charge["disputed"]:
        raise wrong_state(f"Charge {charge['id']} cannot be disputed (any more).")
    contested = charge["amount"] if amount is None else amount
    if not 1 <= contested <= charge["amount"]:
        raise invalid("amount", f"must be from 1 to {charge['amount']}")
    now = world.now(charge["customer"])
    status = "warning_needs_response" if is_inquiry else "needs_response"
    dispute = world.add(_dispute(charge, contested, reason, status, now))
    charge["disputed"] = True
    charge["_dispute_state"] = status
    world.emit("charge.dispute.created", render(world, dispute), created=now)
    if not is_inquiry:
        world.emit("charge.dispute.funds_withdrawn", render(world, dispute), created=now)
    return dispute


def _dispute(charge: Obj, amount: int, reason: str, status: str, now: int) -> Obj:
    return {
        "id": new_id("dp"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charge["id"],
        "created": now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now + _EVIDENCE_DAYS * _DAY_S,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": status == "warning_needs_response",
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": charge["payment_method_details"]["card"]["brand"],
                "case_type": "inquiry" if status.startswith("warning") else "chargeback",
                "network": charge["payment_method_details"]["card"]["network"],
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": reason,
        "status": status,
        "_owner": charge["customer"],
    }


def close_dispute(world: World, dispute: Obj, outcome: str) -> Obj:
    """The bank decides.

    Args:
        world: where it is.
        dispute: still open.
        outcome: ``won``, ``lost`` or, of an inquiry, ``warning_closed``.

    Raises:
        Refused: it is closed already, or the outcome cannot be.
    """
    if dispute["status"] not in _OPEN:
        raise wrong_state(f"Dispute {dispute['id']} is already closed.")
    is_inquiry = dispute["status"].startswith("warning")
    if outcome not in _CLOSED or (outcome == "warning_closed") != is_inquiry:
        raise invalid("outcome", "won or lost; of an inquiry warning_closed")
    charge = world.get("charge", dispute["charge"])
    now = world.now(charge["customer"])
    dispute["status"] = outcome
    dispute["is_charge_refundable"] = outcome != "lost"
    charge["_dispute_state"] = "lost" if outcome == "lost" else "won"
    world.version += 1
    if outcome == "won":
        world.emit("charge.dispute.funds_reinstated", render(world, dispute), created=now)
    world.emit("charge.dispute.closed", render(world, dispute), created=now)
    return dispute


def dispute_if_planned(world: World, intent: Obj) -> None:
    """Open the dispute of a card whose payments are always contested."""
    if intent["status"] != "succeeded" or intent["payment_method"] is None:
        return
    card = world.get("payment_method", intent["payment_method"])
    if cards.behaviour(card).is_disputed:
        open_dispute(world, world.get("charge", intent["latest_charge"]))


def _list(call: Call, kind: str) -> Obj:
    wanted = call.params
    intent_id = wanted.get("payment_intent")
    intent = None if intent_id is None else call.world.find("payment_intent", intent_id)
    objects = (
        call.world.owned(kind, intent["customer"]) if intent is not None else call.world.every(kind)
    )
    return call.page(
        obj
        for obj in objects
        if all(obj[name] == wanted[name] for name in ("charge", "payment_intent") if name in wanted)
    )


def _close(call: Call) -> Obj:
    dispute = call.world.get("dispute", call.id)
    outcome = "warning_closed" if dispute["status"].startswith("warning") else "lost"
    return render(call.world, close_dispute(call.world, dispute, outcome))


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/refunds",
        RefundCreateParams,
        _create_refund,
        frozenset({"origin", "customer", "refund_application_fee", "reverse_transfer"}),
    ),
    Endpoint("GET", "/v1/refunds", RefundListParams, lambda call: _list(call, "refund")),
    Endpoint(
        "GET",
        "/v1/refunds/{id}",
        RefundRetrieveParams,
        lambda call: render(call.world, call.world.get("refund", call.id)),
    ),
    Endpoint("GET", "/v1/disputes", DisputeListParams, lambda call: _list(call, "dispute")),
    Endpoint(
        "GET",
        "/v1/disputes/{id}",
        DisputeRetrieveParams,
        lambda call: render(call.world, call.world.get("dispute", call.id)),
    ),
    Endpoint("POST", "/v1/disputes/{id}/close", DisputeCloseParams, _close),
)
