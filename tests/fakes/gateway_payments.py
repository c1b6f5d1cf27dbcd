"""Billing's payments as the gateway sees them over gRPC: pages that nobody pays on."""

# ruff: noqa: ARG002, N802 (the names and arguments are the stubs')

from __future__ import annotations

from easel.billing.v1 import billing_pb2 as bill
from easel.billing.v1 import payments_pb2 as pay
from easel.billing.v1.payments_pb2_grpc import PaymentServiceServicer
from easel_kit.errors import Conflict, InvalidInput, InvalidState, NotFound, Unauthenticated
from tests.fakes.gateway_billing import PACKS, PLANS, FakeBilling
from tests.fakes.gateway_wire import Context, Fault, now

SIGNATURE = "t=1,v1=right"


class FakePayments(PaymentServiceServicer):
    """Subscriptions of `FakeBilling`; a checkout only makes a page."""

    def __init__(self, billing: FakeBilling) -> None:
        self.checkouts: dict[tuple[str, str], pay.CreateCheckoutRequest] = {}
        self.portals: list[pay.CreatePortalRequest] = []
        self.events: list[bytes] = []
        self.are_set_up = True
        self.declines = False
        self.fault: Fault | None = None
        self._billing = billing

    async def _called(self) -> None:
        if self.fault is not None:
            await self.fault()
        if not self.are_set_up:
            raise InvalidState("no payments are set up here")

    async def CreateCheckout(
        self, request: pay.CreateCheckoutRequest, context: Context
    ) -> pay.CreateCheckoutResponse:
        await self._called()
        if not request.idempotency_key:
            raise InvalidInput("idempotency_key", "must be given")
        if request.plan_key and request.plan_key not in PLANS:
            raise NotFound("plan", request.plan_key)
        if request.pack_key and request.pack_key not in PACKS:
            raise NotFound("pack", request.pack_key)
        if request.plan_key == "free":
            raise InvalidInput("plan_key", "is not paid for")
        if request.plan_key and request.user_id in self._billing.subscriptions:
            raise InvalidState("there is a subscription already: change it instead")
        name = request.user_id, request.idempotency_key
        if self.checkouts.setdefault(name, request) != request:
            raise Conflict("this key was used for something else")
        return pay.CreateCheckoutResponse(
            url=f"https://pay.example/{request.user_id}/{request.idempotency_key}", expires_at=now()
        )

    async def CreatePortal(
        self, request: pay.CreatePortalRequest, context: Context
    ) -> pay.CreatePortalResponse:
        await self._called()
        self.portals.append(request)
        return pay.CreatePortalResponse(url=f"https://pay.example/portal/{request.user_id}")

    def subscribe(self, user: str, plan: str = "pro") -> None:
        """As after a checkout that was paid."""
        self._billing.plans[user] = plan
        self._billing.subscriptions[user] = bill.Subscription(
            status="active", plan_key=plan, period_end=now()
        )

    def _subscription(self, user: str) -> bill.Subscription:
        if user not in self._billing.subscriptions:
            raise InvalidState("there is no subscription")
        return self._billing.subscriptions[user]

    async def ChangeSubscription(
        self, request: pay.ChangeSubscriptionRequest, context: Context
    ) -> pay.ChangeSubscriptionResponse:
        await self._called()
        found = self._subscription(request.user_id)
        if request.plan_key not in PLANS:
            raise NotFound("plan", request.plan_key)
        if self.declines:
            raise InvalidState("the card was declined")
        found.plan_key = request.plan_key
        self._billing.plans[request.user_id] = request.plan_key
        return pay.ChangeSubscriptionResponse(account=self._billing.account(request.user_id))

    async def CancelSubscription(
        self, request: pay.CancelSubscriptionRequest, context: Context
    ) -> pay.CancelSubscriptionResponse:
        await self._called()
        self._subscription(request.user_id).cancel_at_period_end = not request.resume
        return pay.CancelSubscriptionResponse(account=self._billing.account(request.user_id))

    async def IngestStripeEvent(
        self, request: pay.IngestStripeEventRequest, context: Context
    ) -> pay.IngestStripeEventResponse:
        await self._called()
        if request.signature != SIGNATURE:
            raise Unauthenticated("no secret of ours signed this")
        self.events.append(request.payload)
        return pay.IngestStripeEventResponse()
