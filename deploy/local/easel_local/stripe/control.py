"""What no Stripe has, under ``/_stand-in``: clock, faults, deliveries, disputes, paying by a test.

Bodies are JSON, so that no page of another origin can send one unasked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from easel_local.stripe import cards, checkout, portal, reversals, timekeeping
from easel_local.stripe.api import bounded_body
from easel_local.stripe.faults import Faults, Plan
from easel_local.stripe.objects import Obj, new_id
from easel_local.stripe.refusal import Refused, invalid, no_such
from easel_local.stripe.rendering import render
from easel_local.stripe.snapshot import Snapshot
from easel_local.stripe.webhooks import Courier
from easel_local.stripe.world import World

_LONGEST_S = 5 * 366 * 86_400
_MAX_TIME = 4_102_444_800  # the year 2100


class Strict(BaseModel):
    """A body without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyBody = TypeVar("AnyBody", bound=BaseModel)


class MoveClock(Strict):
    """How to move the clock; first it is stopped or let run, then moved."""

    stopped: bool | None = None
    advance_s: int | None = Field(None, ge=0, le=_LONGEST_S)
    set: int | None = Field(None, ge=0, le=_MAX_TIME)


class PayCheckout(Strict):
    """With which card; a number of https://docs.stripe.com/testing."""

    card: Annotated[str, Field(max_length=30)] = "4242424242424242"


class OpenDispute(Strict):
    """Which payment is contested, and how."""

    charge: str | None = None
    payment_intent: str | None = None
    amount: int | None = None
    reason: Literal["fraudulent", "duplicate", "product_not_received", "general"] = "fraudulent"
    inquiry: bool = False


class CloseDispute(Strict):
    """How the bank decides."""

    outcome: Literal["won", "lost", "warning_closed"]


class Webhook(Strict):
    """Where events are delivered."""

    url: Annotated[str, Field(max_length=2_000, pattern=r"^(https?://.*)?$")]


class Control:
    """The stand-in's own calls."""

    def __init__(self, world: World, faults: Faults, courier: Courier, snapshot: Snapshot) -> None:
        """Control these."""
        self._world = world
        self._faults = faults
        self._courier = courier
        self._snapshot = snapshot

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            self._route("/clock", self._clock, "GET"),
            self._route("/clock", self._move, "POST"),
            self._route("/faults", self._show_faults, "GET"),
            self._route("/faults", self._set_faults, "PUT"),
            self._route("/webhook", self._set_webhook, "PUT"),
            self._route("/deliveries", self._deliveries, "GET"),
            self._route("/deliveries/{id}/redeliver", self._redeliver, "POST"),
            self._route("/disputes", self._open_dispute, "POST"),
            self._route("/disputes/{id}/close", self._close_dispute, "POST"),
            self._route("/checkout/{id}/pay", self._pay, "POST"),
            self._route("/portal/{id}/card", self._replace_card, "POST"),
        ]

    def _route(
        self, path: str, work: Callable[[Request], Awaitable[dict[str, Any]]], method: str
    ) -> Route:
        async def endpoint(request: Request) -> JSONResponse:
            request_id = new_id("req")
            timekeeping.catch_up(self._world)
            try:
                answer = await work(request)
            except Refused as refused:
                return JSONResponse(refused.body(request_id), refused.status)
            await self._snapshot.save()
            return JSONResponse(answer)

        return Route(f"/_stand-in{path}", endpoint, methods=[method])

    async def _clock(self, _request: Request) -> dict[str, Any]:
        clock = self._world.clock
        return {"now": clock.now(), "stopped": clock.is_stopped}

    async def _move(self, request: Request) -> dict[str, Any]:
        self.move(await _read(request, MoveClock))
        return await self._clock(request)

    def move(self, wanted: MoveClock) -> None:
        """Move the clock; what falls due on the way happens before this returns."""
        clock = self._world.clock
        if wanted.stopped is not None:
            (clock.stop if wanted.stopped else clock.run)()
        target = clock.now() + (wanted.advance_s or 0)
        clock.move_to(max(target, wanted.set or 0))
        self._world.version += 1
        timekeeping.catch_up(self._world)

    async def _show_faults(self, _request: Request) -> dict[str, Any]:
        return self._faults.plan.model_dump()

    async def _set_faults(self, request: Request) -> dict[str, Any]:
        self._faults.set(await _read(request, Plan))
        return self._faults.plan.model_dump()

    async def _set_webhook(self, request: Request) -> dict[str, Any]:
        self._courier.url = (await _read(request, Webhook)).url
        return {"url": self._courier.url}

    async def _deliveries(self, _request: Request) -> dict[str, Any]:
        return {"deliveries": [asdict(one) for one in self._courier.deliveries.values()]}

    async def _redeliver(self, request: Request) -> dict[str, Any]:
        delivery = self._courier.deliveries.get(request.path_params["id"])
        if delivery is None:
            raise no_such("delivery", request.path_params["id"])
        self._courier.redeliver(delivery)
        return asdict(delivery)

    async def _open_dispute(self, request: Request) -> dict[str, Any]:
        return self.dispute(await _read(request, OpenDispute))

    def dispute(self, wanted: OpenDispute) -> Obj:
        """Open a dispute; how it looks."""
        charge_id = wanted.charge
        if wanted.payment_intent is not None:
            intent = self._world.get(
                "payment_intent", wanted.payment_intent, param="payment_intent"
            )
            charge_id = intent["latest_charge"]
        if charge_id is None:
            raise invalid("charge", "name a charge, or a payment intent that was paid")
        charge = self._world.get("charge", charge_id, param="charge")
        dispute = reversals.open_dispute(
            self._world,
            charge,
            amount=wanted.amount,
            reason=wanted.reason,
            is_inquiry=wanted.inquiry,
        )
        return render(self._world, dispute)

    async def _close_dispute(self, request: Request) -> dict[str, Any]:
        wanted = await _read(request, CloseDispute)
        return self.decide(request.path_params["id"], wanted.outcome)

    def decide(self, dispute_id: str, outcome: str) -> Obj:
        """Close a dispute; how it looks."""
        dispute = self._world.get("dispute", dispute_id)
        return render(self._world, reversals.close_dispute(self._world, dispute, outcome))

    async def _pay(self, request: Request) -> dict[str, Any]:
        wanted = await _read(request, PayCheckout)
        return self.pay(request.path_params["id"], wanted.card)

    def pay(self, session_id: str, card: str) -> Obj:
        """Pay a Checkout Session; how it looks."""
        session = self._world.get("checkout.session", session_id)
        return render(self._world, checkout.pay(self._world, session, test_card(card)))

    async def _replace_card(self, request: Request) -> dict[str, Any]:
        wanted = await _read(request, PayCheckout)
        return self.replace_card(request.path_params["id"], wanted.card)

    def replace_card(self, session_id: str, card: str) -> Obj:
        """What the portal's page does; the portal session."""
        session = self._world.get("billing_portal.session", session_id)
        portal.replace_card(self._world, session, test_card(card))
        return render(self._world, session)


def test_card(number: str) -> cards.TestCard:
    """The test card of a number.

    Raises:
        Refused: 402, it is none: real ones must not be typed here.
    """
    card = cards.card_of_number(number)
    if card is None:
        raise Refused(
            402,
            "This is no test card. Never type a real card number here.",
            kind="card_error",
            code="incorrect_number",
            param="card",
        )
    return card


async def _read(request: Request, model: type[AnyBody]) -> AnyBody:
    if not request.headers.get("Content-Type", "").startswith("application/json"):
        raise Refused(415, "The body must be JSON.")
    try:
        return model.model_validate_json(await bounded_body(request))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise invalid(field or "body", first["msg"]) from None
