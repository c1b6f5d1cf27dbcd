"""Routes of money: where credits went, and how more are bought."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import StreamingResponse

from easel_kit import ids
from easel_kit.log import get_logger
from gateway.domain.money import Month
from gateway.web.context import Caller, ServicesOf
from gateway.web.openapi import problems
from gateway.web.schemas.account import MeOut
from gateway.web.schemas.base import JOB_EXAMPLE
from gateway.web.schemas.billing import (
    CheckoutIn,
    CheckoutOut,
    LedgerOut,
    PortalIn,
    PortalOut,
    SubscriptionIn,
    UsageOut,
)
from gateway.web.schemas.generation import Moment
from gateway.web.streaming import all_of

_MONTH = r"^20[0-9]{2}-(0[1-9]|1[0-2])$"
_CSV = "text/csv; charset=utf-8"

_log = get_logger(__name__)

router = APIRouter(tags=["billing"])

_Limit = Annotated[int, Query(ge=1, le=100)]
_Cursor = Annotated[str, Query(max_length=512, description="From the previous page.")]
IdempotencyKey = Annotated[
    str,
    Header(
        max_length=255,
        pattern=r"^[ -~]*$",
        description="Names this attempt: said again, the answer is the same page.",
        examples=["upgrade-2026-11-23"],
    ),
]


@router.get(
    "/v1/billing/ledger",
    operation_id="listLedger",
    summary="Where your credits went",
    responses=problems(422),
)
async def list_ledger(
    caller: Caller,
    services: ServicesOf,
    job_id: Annotated[
        str, Query(max_length=64, description="Only this job's.", examples=[JOB_EXAMPLE])
    ] = "",
    limit: _Limit = 20,
    cursor: _Cursor = "",
) -> LedgerOut:
    """Every change of the credits that can be spent, newest first."""
    page = await services.accounts.ledger(
        caller.user_id,
        page_size=limit,
        page_token=cursor,
        job_id=ids.job_id(job_id) if job_id else None,
    )
    return LedgerOut.of(page)


@router.get(
    "/v1/billing/usage",
    operation_id="listUsage",
    summary="What your jobs have cost",
    responses=problems(422),
)
async def list_usage(
    *,
    caller: Caller,
    services: ServicesOf,
    since: Annotated[Moment | None, Query(description="Only ended from then on.")] = None,
    until: Annotated[Moment | None, Query(description="Only ended before then.")] = None,
    limit: _Limit = 20,
    cursor: _Cursor = "",
) -> UsageOut:
    """One line for each job whose bill is settled, newest first; totals are over all pages."""
    page = await services.usage.list_usage(
        caller.user_id, since=since, until=until, page_size=limit, page_token=cursor
    )
    return UsageOut.of(page)


@router.get(
    "/v1/billing/statements/{month}",
    operation_id="getStatement",
    summary="A month of your ledger as CSV",
    response_class=StreamingResponse,
    responses=problems(422)
    | {
        200: {
            "description": "One line for each change of your credits, oldest first",
            "content": {"text/csv": {"schema": {"type": "string"}}},
            "headers": {
                "Content-Disposition": {
                    "schema": {"type": "string"},
                    "description": "A name for the file.",
                }
            },
        }
    },
)
async def get_statement(
    month: Annotated[
        str, Path(pattern=_MONTH, description="Year and month, UTC.", examples=["2026-11"])
    ],
    caller: Caller,
    services: ServicesOf,
) -> StreamingResponse:
    """All changes of the credits that can be spent in a calendar month, UTC."""
    wanted = Month(*map(int, month.split("-")))
    parts = services.usage.statement(caller.user_id, wanted)
    # the first part before the answer begins: what goes wrong until then has a status of its own
    first = await anext(parts, b"")
    return StreamingResponse(
        all_of(first, parts),
        media_type=_CSV,
        headers={"Content-Disposition": f'attachment; filename="easel-statement-{wanted}.csv"'},
    )


@router.post(
    "/v1/billing/checkout",
    operation_id="createCheckout",
    summary="Buy a plan or a pack",
    responses=problems(400, 404, 409, 413, 422),
)
async def create_checkout(
    *, body: CheckoutIn, caller: Caller, services: ServicesOf, idempotency_key: IdempotencyKey = ""
) -> CheckoutOut:
    """A page of Stripe's to pay on. Plan and credits come when Stripe has told of the payment."""
    purchase = body.purchase()
    checkout = await services.purchases.checkout(
        caller.user_id,
        purchase,
        success_url=body.success_url,
        cancel_url=body.cancel_url,
        key=idempotency_key,
    )
    _log.info("checkout.opened", ware=purchase.ware.value, key=purchase.key)
    return CheckoutOut.of(checkout)


@router.post(
    "/v1/billing/portal",
    operation_id="createPortal",
    summary="Manage cards and invoices",
    responses=problems(400, 409, 413, 422),
)
async def create_portal(body: PortalIn, caller: Caller, services: ServicesOf) -> PortalOut:
    """A page of Stripe's for cards, invoices and the subscription."""
    return PortalOut(
        url=await services.purchases.portal(caller.user_id, return_url=body.return_url)
    )


@router.patch(
    "/v1/billing/subscription",
    operation_id="changeSubscription",
    summary="Change to another paid plan",
    responses=problems(400, 404, 409, 413, 422),
)
async def change_subscription(body: SubscriptionIn, caller: Caller, services: ServicesOf) -> MeOut:
    """At once and prorated; waiting jobs move to the new plan's place. A declined card: 409."""
    account = await services.purchases.change(caller.user_id, body.plan)
    _log.info("subscription.changed", plan=body.plan)
    return MeOut.of(account)


@router.delete(
    "/v1/billing/subscription",
    operation_id="cancelSubscription",
    summary="Cancel at the period's end",
    responses=problems(409),
)
async def cancel_subscription(caller: Caller, services: ServicesOf) -> MeOut:
    """Plan and credits stay until then. Said again it changes nothing."""
    account = await services.purchases.cancel(caller.user_id)
    _log.info("subscription.cancelled")
    return MeOut.of(account)


@router.post(
    "/v1/billing/subscription/resume",
    operation_id="resumeSubscription",
    summary="Take a cancellation back",
    responses=problems(409),
)
async def resume_subscription(caller: Caller, services: ServicesOf) -> MeOut:
    """Before the period ends. Said again it changes nothing."""
    account = await services.purchases.resume(caller.user_id)
    _log.info("subscription.resumed")
    return MeOut.of(account)
