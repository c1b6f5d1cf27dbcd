"""Billing's payments over gRPC: the ports `Payments` and `Webhooks`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from easel.billing.v1 import payments_pb2 as pb
from easel.billing.v1.payments_pb2_grpc import PaymentServiceStub
from easel_kit.errors import InvalidInput, Unauthenticated
from easel_kit.ids import UserId
from gateway.clients.accounts import account, time_of
from gateway.domain.account import Account
from gateway.domain.money import BadSignature, Checkout, Purchase, Ware

# What billing's fields are called at the gateway's door.
_DOOR_NAMES = {"plan_key": "plan", "pack_key": "pack", "idempotency_key": "Idempotency-Key"}


class PaymentsClient:
    """Calls billing on a channel of `easel_kit.rpc.channel`, which gives errors and retries."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        """The channel stays its opener's.

        Args:
            channel: to billing.
            timeout_s: of calls behind which the payment provider stands, retries in.
        """
        self._stub = PaymentServiceStub(channel)
        self._timeout_s = timeout_s

    async def checkout(
        self, user_id: UserId, purchase: Purchase, *, success_url: str, cancel_url: str, key: str
    ) -> Checkout:
        """See `gateway.ports.Payments`."""
        request = pb.CreateCheckoutRequest(
            user_id=user_id, success_url=success_url, cancel_url=cancel_url, idempotency_key=key
        )
        if purchase.ware is Ware.PLAN:
            request.plan_key = purchase.key
        else:
            request.pack_key = purchase.key
        with _as_caller_said():
            answer = await self._stub.CreateCheckout(request, timeout=self._timeout_s)
        expires_at = time_of(answer.expires_at) if answer.HasField("expires_at") else None
        return Checkout(answer.url, expires_at)

    async def portal(self, user_id: UserId, *, return_url: str) -> str:
        """See `gateway.ports.Payments`."""
        request = pb.CreatePortalRequest(user_id=user_id, return_url=return_url)
        return (await self._stub.CreatePortal(request, timeout=self._timeout_s)).url

    async def change_subscription(self, user_id: UserId, plan_key: str) -> Account:
        """See `gateway.ports.Payments`."""
        request = pb.ChangeSubscriptionRequest(user_id=user_id, plan_key=plan_key)
        with _as_caller_said():
            answer = await self._stub.ChangeSubscription(request, timeout=self._timeout_s)
        return account(answer.account)

    async def cancel_subscription(self, user_id: UserId, *, resume: bool) -> Account:
        """See `gateway.ports.Payments`."""
        request = pb.CancelSubscriptionRequest(user_id=user_id, resume=resume)
        answer = await self._stub.CancelSubscription(request, timeout=self._timeout_s)
        return account(answer.account)

    async def ingest(self, payload: bytes, signature: str) -> None:
        """See `gateway.ports.Webhooks`."""
        request = pb.IngestStripeEventRequest(payload=payload, signature=signature)
        try:
            await self._stub.IngestStripeEvent(request)
        except Unauthenticated as error:
            raise BadSignature("the signature does not fit the body, or is too old") from error


@contextmanager
def _as_caller_said() -> Iterator[None]:
    try:
        yield
    except InvalidInput as error:
        field = _DOOR_NAMES.get(error.field, error.field)
        raise InvalidInput(field, error.reason) from error
