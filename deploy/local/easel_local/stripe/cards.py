"""Test cards: what each does, payment methods made of them, attaching.

Numbers and names: https://docs.stripe.com/testing. Numbers are never kept, only their last four
digits.
"""

from __future__ import annotations

from dataclasses import dataclass

from easel_local.stripe.objects import Obj, new_id
from easel_local.stripe.refusal import Refused, no_such, wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_EXPIRY_YEAR = 2040


@dataclass(frozen=True, slots=True)
class TestCard:
    """A card of a known behaviour.

    Attributes:
        number: what a person types.
        name: the SDKs' ``pm_card_…``.
        does: the same behaviour in a person's words.
        brand: visa or mastercard.
        decline: code with which every payment fails; empty: it pays.
        attaches: whether it can be attached to a customer.
        later_only: whether its payments fail only while the customer is away (renewals).
        is_disputed: whether its payments are disputed at once.
    """

    number: str
    name: str
    does: str
    brand: str = "visa"
    decline: str = ""
    attaches: bool = True
    later_only: bool = False
    is_disputed: bool = False


CARDS = (
    TestCard("4242424242424242", "pm_card_visa", "pays"),
    TestCard("5555555555554444", "pm_card_mastercard", "pays", brand="mastercard"),
    TestCard(
        "4000000000000002",
        "pm_card_chargeDeclined",
        "is declined",
        decline="generic_decline",
        attaches=False,
    ),
    TestCard(
        "4000000000009995",
        "pm_card_chargeDeclinedInsufficientFunds",
        "has too little money",
        decline="insufficient_funds",
        attaches=False,
    ),
    TestCard(
        "4000000000000341",
        "pm_card_chargeCustomerFail",
        "pays now, fails later",
        decline="generic_decline",
        later_only=True,
    ),
    TestCard(
        "4000000000000259", "pm_card_createDispute", "pays, then is disputed", is_disputed=True
    ),
)
_BY_NUMBER = {card.number: card for card in CARDS}
_BY_NAME = {card.name: card for card in CARDS}


def card_of_number(number: str) -> TestCard | None:
    """The test card of a typed number, spaces and hyphens aside."""
    return _BY_NUMBER.get(number.replace(" ", "").replace("-", ""))


def make_card(world: World, kind: TestCard, *, email: str | None = None) -> Obj:
    """A payment method that nobody owns yet."""
    return world.add(
        {
            "id": new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {
                "address": dict.fromkeys(
                    ("city", "country", "line1", "line2", "postal_code", "state")
                ),
                "email": email,
                "name": None,
                "phone": None,
                "tax_id": None,
            },
            "card": _details(kind),
            "created": world.clock.now(),
            "customer": None,
            "livemode": False,
            "metadata": {},
            "type": "card",
            "_card": kind.name,
        }
    )


def _details(kind: TestCard) -> Obj:
    return {
        "brand": kind.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "US",
        "display_brand": kind.brand,
        "exp_month": 12,
        "exp_year": _EXPIRY_YEAR,
        "fingerprint": f"standin{kind.number[-4:]}",
        "funding": "credit",
        "generated_from": None,
        "last4": kind.number[-4:],
        "networks": {"available": [kind.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def behaviour(card: Obj) -> TestCard:
    """What a payment method does."""
    return _BY_NAME[card["_card"]]


def usable_card(world: World, card_id: str, *, param: str | None = None) -> Obj:
    """A payment method by id; the name of a test card makes a new one, as at Stripe.

    Raises:
        Refused: there is no such.
    """
    if card_id in _BY_NAME:
        return make_card(world, _BY_NAME[card_id])
    return world.get("payment_method", card_id, param=param)


def owned_card(world: World, card_id: str, customer: Obj, *, param: str) -> Obj:
    """A customer's payment method.

    Raises:
        Refused: the customer has no such.
    """
    card = world.find("payment_method", card_id)
    if card is None:
        raise no_such("PaymentMethod", card_id, param=param, in_body=True)
    if card["customer"] != customer["id"]:
        raise wrong_state(
            "The customer does not have a payment method with the ID"
            f" {card_id}. The payment method must be attached to the customer.",
            code="resource_missing",
            param=param,
        )
    return card


def check_attachable(card: Obj) -> None:
    """Pass a card that its bank lets attach.

    Raises:
        Refused: the bank declines it.
    """
    kind = behaviour(card)
    if not kind.attaches:
        raise declined(kind.decline)


def attach(world: World, card: Obj, customer: Obj) -> Obj:
    """Give a card to a customer; its own card once more changes nothing.

    Raises:
        Refused: it is another customer's.
    """
    if card["customer"] == customer["id"]:
        return card
    if card["customer"] is not None or card.get("_was_detached"):
        raise wrong_state(
            "The payment method you provided has already been attached to a customer, or was"
            " detached from one, and cannot be used again.",
            code="payment_method_unexpected_state",
        )
    card["customer"] = customer["id"]
    world.adopt(card)
    world.version += 1
    world.emit("payment_method.attached", render(world, card), created=world.now(customer["id"]))
    return card


def detach(world: World, card: Obj) -> Obj:
    """Take a card from its customer, for good.

    Raises:
        Refused: nobody has it.
    """
    owner = card["customer"]
    if owner is None:
        raise wrong_state(
            "The payment method you provided is not attached to a customer so detachment is"
            " impossible.",
            code="payment_method_unexpected_state",
        )
    customer = world.get("customer", owner)
    if customer["invoice_settings"]["default_payment_method"] == card["id"]:
        customer["invoice_settings"]["default_payment_method"] = None
    for subscription in world.owned("subscription", owner):
        if subscription["default_payment_method"] == card["id"]:
            subscription["default_payment_method"] = None
    card["customer"] = None
    card["_was_detached"] = True
    world.version += 1
    world.emit(
        "payment_method.detached",
        render(world, card),
        {"customer": owner},
        created=world.now(owner),
    )
    return card


_DECLINES = {
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
}


def decline_message(code: str) -> str:
    """What a person is told."""
    return _DECLINES[code]


def declined(code: str, **details: str | Obj | None) -> Refused:
    """A payment that the bank declined: 402, `card_error`."""
    return Refused(
        402,
        decline_message(code),
        kind="card_error",
        code="card_declined",
        details={"decline_code": code, **details},
    )
