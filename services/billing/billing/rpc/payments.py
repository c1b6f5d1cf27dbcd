"""PaymentService: types in, use case, types out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
import structlog

from billing.domain.payments import Checkout
from billing.rpc import mapping
from billing.service.notices import Notices
from billing.service.payments import CheckoutOrder, PaymentDesk
from easel.billing.v1 import payments_pb2 as pb
from easel.billing.v1 import payments_pb2_grpc
from easel_kit.errors import InvalidInput, InvalidState
from easel_kit.ids import UserId, user_id
from easel_kit.log import get_logger

_MAX_URL_CHARS = 2_048
_MAX_KEY_CHARS = 255
_MAX_PAYLOAD_BYTES = 512 * 1024
_MAX_SIGNATURE_CHARS = 4_096
_MAX_PORT = 65_535
# printable ASCII without blanks at the ends: it may travel in a header
_KEY = re.compile(r"[!-~]([ -~]*[!-~])?")
_NO_BLANKS = re.compile(r"[!-~]+")
_PACK_KEY = re.compile(r"[a-z][a-z0-9_-]{0,31}")

_log = get_logger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["PaymentService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class MoneyDoor:
    """What the servicer answers from; None: not set up."""

    desk: PaymentDesk | None
    notices: Notices | None


class PaymentServicer(payments_pb2_grpc.PaymentServiceServicer):
    """Thin: checks and conversions are here, decisions in `service`."""

    def __init__(self, door: MoneyDoor) -> None:
        """`door` answers, or says that there is nothing to answer from."""
        self._door = door

    async def CreateCheckout(  # noqa: N802
        self, request: pb.CreateCheckoutRequest, context: Context
    ) -> pb.CreateCheckoutResponse:
        """A page that sells."""
        del context
        user, order = _user(request.user_id), order_from(request)
        checkout = await self._desk().checkout(user, order)
        _log.info(
            "checkout.created",
            session=checkout.session_id,
            plan=order.plan_key,
            pack=order.pack_key,
        )
        return _checkout_to(checkout)

    async def CreatePortal(  # noqa: N802
        self, request: pb.CreatePortalRequest, context: Context
    ) -> pb.CreatePortalResponse:
        """A page that manages."""
        del context
        user, url = _user(request.user_id), url_from("return_url", request.return_url)
        return pb.CreatePortalResponse(url=await self._desk().portal(user, url))

    async def ChangeSubscription(  # noqa: N802
        self, request: pb.ChangeSubscriptionRequest, context: Context
    ) -> pb.ChangeSubscriptionResponse:
        """Another plan."""
        del context
        user, key = _user(request.user_id), mapping.plan_key_from(request.plan_key)
        account = await self._desk().change_subscription(user, key)
        _log.info("subscription.changed", plan=key)
        return pb.ChangeSubscriptionResponse(account=mapping.account_to(account))

    async def CancelSubscription(  # noqa: N802
        self, request: pb.CancelSubscriptionRequest, context: Context
    ) -> pb.CancelSubscriptionResponse:
        """The end with the period, or not."""
        del context
        user = _user(request.user_id)
        account = await self._desk().cancel_subscription(user, resume=request.resume)
        _log.info("subscription.resumed" if request.resume else "subscription.cancelled")
        return pb.CancelSubscriptionResponse(account=mapping.account_to(account))

    async def IngestStripeEvent(  # noqa: N802
        self, request: pb.IngestStripeEventRequest, context: Context
    ) -> pb.IngestStripeEventResponse:
        """A webhook, kept."""
        del context
        if self._door.notices is None:
            raise InvalidState("webhooks are not set up here: stripe.webhook_secret is empty")
        if not 1 <= len(request.payload) <= _MAX_PAYLOAD_BYTES:
            raise InvalidInput("payload", f"must be 1 to {_MAX_PAYLOAD_BYTES} bytes")
        if len(request.signature) > _MAX_SIGNATURE_CHARS:
            raise InvalidInput("signature", f"must be up to {_MAX_SIGNATURE_CHARS} characters")
        notice, is_new = await self._door.notices.ingest(request.payload, request.signature)
        _log.info("webhook.kept", event_id=notice.event_id, type=notice.type, is_new=is_new)
        return pb.IngestStripeEventResponse()

    def _desk(self) -> PaymentDesk:
        if self._door.desk is None:
            raise InvalidState("payments are not set up here: stripe.secret_key is empty")
        return self._door.desk


def register(server: grpc.aio.Server, door: MoneyDoor) -> None:
    """Makes `server` answer for `SERVICE`."""
    payments_pb2_grpc.add_PaymentServiceServicer_to_server(PaymentServicer(door), server)


def order_from(request: pb.CreateCheckoutRequest) -> CheckoutOrder:
    """Checks what is to be paid for.

    Raises:
        InvalidInput: names the field.
    """
    purchase = request.WhichOneof("purchase")
    if purchase is None:
        raise InvalidInput("purchase", "must be a plan_key or a pack_key")
    plan_key = pack_key = ""
    if purchase == "plan_key":
        plan_key = mapping.plan_key_from(request.plan_key)
    else:
        pack_key = request.pack_key
        if not _PACK_KEY.fullmatch(pack_key):
            raise InvalidInput("pack_key", "must be a pack's key")
    key = request.idempotency_key
    if len(key) > _MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise InvalidInput(
            "idempotency_key", f"must be 1 to {_MAX_KEY_CHARS} printable ASCII characters"
        )
    return CheckoutOrder(
        plan_key=plan_key,
        pack_key=pack_key,
        success_url=url_from("success_url", request.success_url),
        cancel_url=url_from("cancel_url", request.cancel_url),
        key=key,
    )


def url_from(field: str, url: str) -> str:
    """Checks a URL that Stripe leads a browser to.

    Raises:
        InvalidInput: not an absolute http or https URL of at most 2,048 characters.
    """
    reason = f"must be an absolute http or https URL of at most {_MAX_URL_CHARS} characters"
    if len(url) > _MAX_URL_CHARS or not _NO_BLANKS.fullmatch(url):
        raise InvalidInput(field, reason)
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname) and (parts.port is None or parts.port <= _MAX_PORT)
    except ValueError as error:
        raise InvalidInput(field, reason) from error
    if parts.scheme not in {"http", "https"} or not has_place or "@" in parts.netloc:
        raise InvalidInput(field, reason)
    return url


def _checkout_to(checkout: Checkout) -> pb.CreateCheckoutResponse:
    answer = pb.CreateCheckoutResponse(url=checkout.url)
    answer.expires_at.FromDatetime(checkout.expires_at)
    return answer


def _user(text: str) -> UserId:
    user = user_id(text)
    structlog.contextvars.bind_contextvars(user_id=user)
    return user
