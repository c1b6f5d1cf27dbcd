"""BillingService: types in, use case, types out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from billing.domain.holds import HoldState
from billing.rpc import books, mapping
from billing.service.accounts import Billing
from easel.billing.v1 import billing_pb2 as pb
from easel.billing.v1 import billing_pb2_grpc
from easel_kit.ids import JobId, UserId, job_id, user_id
from easel_kit.log import get_logger
from easel_kit.telemetry import current_traceparent

_log = get_logger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["BillingService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class BillingServicer(billing_pb2_grpc.BillingServiceServicer):
    """Thin: checks and conversions are in `mapping`, decisions in `service`."""

    def __init__(self, billing: Billing) -> None:
        """`billing` answers."""
        self._billing = billing

    async def GetAccount(  # noqa: N802
        self, request: pb.GetAccountRequest, context: Context
    ) -> pb.GetAccountResponse:
        """The account, opened when the user is new."""
        del context
        account = await self._billing.account(_user(request.user_id))
        return pb.GetAccountResponse(account=mapping.account_to(account))

    async def GetEntitlements(  # noqa: N802
        self, request: pb.GetEntitlementsRequest, context: Context
    ) -> pb.GetEntitlementsResponse:
        """The plan's numbers."""
        del context
        account = await self._billing.account(_user(request.user_id))
        return pb.GetEntitlementsResponse(entitlements=mapping.entitlements_to(account))

    async def Quote(  # noqa: N802
        self, request: pb.QuoteRequest, context: Context
    ) -> pb.QuoteResponse:
        """The price of work."""
        del context
        user, work = _user(request.user_id), mapping.work_from(request.work)
        return pb.QuoteResponse(millicredits=await self._billing.quote(user, work))

    async def PlaceHold(  # noqa: N802
        self, request: pb.PlaceHoldRequest, context: Context
    ) -> pb.PlaceHoldResponse:
        """Reserves the price of a job."""
        del context
        user, job = _user(request.user_id), _job(request.job_id)
        work = mapping.work_from(request.work)
        (hold,), account = await self._billing.place_holds(user, {job: work}, current_traceparent())
        _log.info("hold.placed", millicredits=hold.millicredits, state=hold.state.value)
        return pb.PlaceHoldResponse(
            hold=mapping.hold_to(hold),
            entitlements=mapping.entitlements_to(account),
            balance=mapping.balance_to(account),
        )

    async def PlaceHolds(  # noqa: N802
        self, request: pb.PlaceHoldsRequest, context: Context
    ) -> pb.PlaceHoldsResponse:
        """Reserves the prices of a batch."""
        del context
        user, works = _user(request.user_id), mapping.works_from(request.jobs)
        holds, account = await self._billing.place_holds(user, works, current_traceparent())
        for hold in holds:
            _log.info(
                "hold.placed",
                job_id=hold.job_id,
                millicredits=hold.millicredits,
                state=hold.state.value,
            )
        return pb.PlaceHoldsResponse(
            holds=[mapping.hold_to(hold) for hold in holds],
            entitlements=mapping.entitlements_to(account),
            balance=mapping.balance_to(account),
        )

    async def CaptureHold(  # noqa: N802
        self, request: pb.CaptureHoldRequest, context: Context
    ) -> pb.CaptureHoldResponse:
        """Charges the steps that ran."""
        del context
        job = _job(request.job_id)
        hold = await self._billing.capture_hold(job, *mapping.steps_from(request))
        if hold.state is HoldState.CAPTURED:
            _log.info("hold.captured", millicredits=hold.captured)
        else:
            _log.info("hold.released", millicredits=hold.millicredits)
        return pb.CaptureHoldResponse(hold=mapping.hold_to(hold))

    async def ReleaseHold(  # noqa: N802
        self, request: pb.ReleaseHoldRequest, context: Context
    ) -> pb.ReleaseHoldResponse:
        """Frees a hold."""
        del context
        job, reason = _job(request.job_id), mapping.reason_from(request.reason)
        hold = await self._billing.release_hold(job, reason)
        _log.info("hold.released", millicredits=hold.millicredits, state=hold.state.value)
        return pb.ReleaseHoldResponse(hold=mapping.hold_to(hold))

    async def ReleaseHolds(  # noqa: N802
        self, request: pb.ReleaseHoldsRequest, context: Context
    ) -> pb.ReleaseHoldsResponse:
        """Frees the holds of a batch."""
        del context
        jobs = mapping.batch_from(request.job_ids)
        reason = mapping.reason_from(request.reason)
        holds = [await self._billing.release_hold(job, reason) for job in jobs]
        for hold in holds:
            _log.info("hold.released", job_id=hold.job_id, millicredits=hold.millicredits)
        return pb.ReleaseHoldsResponse(holds=[mapping.hold_to(hold) for hold in holds])

    async def GetHolds(  # noqa: N802
        self, request: pb.GetHoldsRequest, context: Context
    ) -> pb.GetHoldsResponse:
        """The user's holds of some jobs."""
        del context
        user, jobs = _user(request.user_id), mapping.job_ids_from(request.job_ids)
        holds = await self._billing.holds(user, jobs)
        return pb.GetHoldsResponse(holds=[mapping.hold_to(hold) for hold in holds])

    async def ListLedger(  # noqa: N802
        self, request: pb.ListLedgerRequest, context: Context
    ) -> pb.ListLedgerResponse:
        """A page of the user's ledger."""
        del context
        user = _user(request.user_id)
        job = job_id(request.job_id) if request.job_id else None
        size, before = mapping.page_from(request)
        lines = await self._billing.ledger(user, before=before, job_id=job, limit=size + 1)
        return mapping.lines_to(lines, size)

    async def ListPlans(  # noqa: N802
        self, request: pb.ListPlansRequest, context: Context
    ) -> pb.ListPlansResponse:
        """The plans on offer."""
        del request, context
        return pb.ListPlansResponse(
            plans=[mapping.plan_to(plan) for plan in self._billing.plans()],
            packs=[mapping.pack_to(pack) for pack in self._billing.packs()],
        )

    async def ListUsage(  # noqa: N802
        self, request: pb.ListUsageRequest, context: Context
    ) -> pb.ListUsageResponse:
        """What the user's jobs cost."""
        del context
        user, (size, query) = _user(request.user_id), books.usage_query_from(request)
        return books.usage_to(await self._billing.usage(user, query), size)

    async def GetStatement(  # noqa: N802
        self, request: pb.GetStatementRequest, context: Context
    ) -> AsyncIterator[pb.GetStatementResponse]:
        """A month of the user's ledger as CSV."""
        del context
        user, period = _user(request.user_id), books.month_from(request)
        async for data in self._billing.statement(user, period):
            yield pb.GetStatementResponse(data=data)

    async def ChangePlan(  # noqa: N802
        self, request: pb.ChangePlanRequest, context: Context
    ) -> pb.ChangePlanResponse:
        """Moves the user to another plan."""
        del context
        user, key = _user(request.user_id), mapping.plan_key_from(request.plan_key)
        account = await self._billing.change_plan(user, key)
        _log.info("plan.changed", plan=key, entitlements_version=account.entitlements_version)
        return pb.ChangePlanResponse(account=mapping.account_to(account))


def register(server: grpc.aio.Server, billing: Billing) -> None:
    """Makes `server` answer for `SERVICE`."""
    billing_pb2_grpc.add_BillingServiceServicer_to_server(BillingServicer(billing), server)


def _user(text: str) -> UserId:
    user = user_id(text)
    structlog.contextvars.bind_contextvars(user_id=user)
    return user


def _job(text: str) -> JobId:
    job = job_id(text)
    structlog.contextvars.bind_contextvars(job_id=job)
    return job
