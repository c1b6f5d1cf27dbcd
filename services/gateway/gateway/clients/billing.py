"""Billing over gRPC: the ports `Holds`, `Quotes`, `Ledger` and `Usage`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime

import grpc

from easel.billing.v1 import billing_pb2 as pb
from easel.billing.v1.billing_pb2_grpc import BillingServiceStub
from easel_kit.errors import InvalidInput
from easel_kit.ids import JobId, UserId
from gateway.clients.accounts import (
    account,
    entitlements,
    hold,
    ledger_line,
    offers,
    usage_line,
    work_to_wire,
)
from gateway.domain.account import Account, Entitlements, Hold, LedgerPage, PlacedHolds
from gateway.domain.generation import Generation
from gateway.domain.money import Month, Offers, UsagePage

# What billing's fields are called at the gateway's door.
_DOOR_NAMES = {"page_token": "cursor", "page_size": "limit", "year": "month"}
# Of a whole statement: tens of thousands of lines and a slow reader.
_STATEMENT_TIMEOUT_S = 120.0


class BillingClient:
    """Calls billing on a channel of `easel_kit.rpc.channel`, which gives deadlines and errors."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """The channel stays its opener's."""
        self._stub = BillingServiceStub(channel)

    async def get_account(self, user_id: UserId) -> Account:
        """See `gateway.ports.Ledger`."""
        answer = await self._stub.GetAccount(pb.GetAccountRequest(user_id=user_id))
        return account(answer.account)

    async def get_entitlements(self, user_id: UserId) -> Entitlements:
        """See `gateway.ports.Ledger`."""
        answer = await self._stub.GetEntitlements(pb.GetEntitlementsRequest(user_id=user_id))
        return entitlements(answer.entitlements)

    async def change_plan(self, user_id: UserId, plan_key: str) -> Account:
        """See `gateway.ports.Ledger`."""
        answer = await self._stub.ChangePlan(
            pb.ChangePlanRequest(user_id=user_id, plan_key=plan_key)
        )
        return account(answer.account)

    async def list_offers(self) -> Offers:
        """See `gateway.ports.Ledger`."""
        return offers(await self._stub.ListPlans(pb.ListPlansRequest()))

    async def list_ledger(
        self, user_id: UserId, *, page_size: int, page_token: str, job_id: JobId | None
    ) -> LedgerPage:
        """See `gateway.ports.Ledger`."""
        request = pb.ListLedgerRequest(
            user_id=user_id, page_size=page_size, page_token=page_token, job_id=job_id or ""
        )
        try:
            answer = await self._stub.ListLedger(request)
        except InvalidInput as error:
            raise _as_caller_said(error) from error
        return LedgerPage(tuple(ledger_line(line) for line in answer.lines), answer.next_page_token)

    async def list_usage(
        self,
        user_id: UserId,
        *,
        since: datetime | None,
        until: datetime | None,
        page_size: int,
        page_token: str,
    ) -> UsagePage:
        """See `gateway.ports.Usage`."""
        request = pb.ListUsageRequest(user_id=user_id, page_size=page_size, page_token=page_token)
        if since is not None:
            request.since.FromDatetime(since)
        if until is not None:
            request.until.FromDatetime(until)
        try:
            answer = await self._stub.ListUsage(request)
        except InvalidInput as error:
            raise _as_caller_said(error) from error
        return UsagePage(
            tuple(usage_line(line) for line in answer.lines),
            answer.next_page_token,
            answer.jobs,
            answer.charged_millicredits,
        )

    async def statement(self, user_id: UserId, month: Month) -> AsyncGenerator[bytes, None]:
        """See `gateway.ports.Usage`."""
        request = pb.GetStatementRequest(user_id=user_id, year=month.year, month=month.month)
        call = self._stub.GetStatement(request, timeout=_STATEMENT_TIMEOUT_S)
        try:
            async for part in call:
                yield part.data
        except InvalidInput as error:
            raise _as_caller_said(error) from error
        finally:
            call.cancel()

    async def quote(self, user_id: UserId, generation: Generation) -> int:
        """See `gateway.ports.Quotes`."""
        request = pb.QuoteRequest(user_id=user_id, work=work_to_wire(generation))
        return (await self._stub.Quote(request)).millicredits

    async def place_holds(
        self, user_id: UserId, generations: Mapping[JobId, Generation]
    ) -> PlacedHolds:
        """See `gateway.ports.Holds`."""
        jobs = [
            pb.JobWork(job_id=job_id, work=work_to_wire(generation))
            for job_id, generation in generations.items()
        ]
        answer = await self._stub.PlaceHolds(pb.PlaceHoldsRequest(user_id=user_id, jobs=jobs))
        holds = [hold(one) for one in answer.holds]
        return PlacedHolds({one.job_id: one for one in holds}, entitlements(answer.entitlements))

    async def release_holds(self, job_ids: Sequence[JobId], reason: str) -> None:
        """See `gateway.ports.Holds`."""
        await self._stub.ReleaseHolds(pb.ReleaseHoldsRequest(job_ids=job_ids, reason=reason))

    async def get_holds(self, user_id: UserId, job_ids: Sequence[JobId]) -> dict[JobId, Hold]:
        """See `gateway.ports.Holds`."""
        answer = await self._stub.GetHolds(pb.GetHoldsRequest(user_id=user_id, job_ids=job_ids))
        holds = [hold(one) for one in answer.holds]
        return {one.job_id: one for one in holds}


def _as_caller_said(error: InvalidInput) -> InvalidInput:
    return InvalidInput(_DOOR_NAMES.get(error.field, error.field), error.reason)
