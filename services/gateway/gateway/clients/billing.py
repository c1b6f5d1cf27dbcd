"""Billing over gRPC: the ports `Holds` and `Ledger`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from easel.billing.v1 import billing_pb2 as pb
from easel.billing.v1.billing_pb2_grpc import BillingServiceStub
from easel_kit.errors import InvalidInput
from easel_kit.ids import JobId, ModelKey, UserId
from gateway.domain.account import (
    Account,
    Balance,
    Entitlements,
    Hold,
    HoldState,
    LedgerLine,
    LedgerPage,
    PlacedHolds,
    Plan,
)
from gateway.domain.generation import Generation, is_plain, passes, pixel_steps

_HOLD_STATES = {
    pb.HOLD_STATE_OPEN: HoldState.OPEN,
    pb.HOLD_STATE_CAPTURED: HoldState.CAPTURED,
    pb.HOLD_STATE_RELEASED: HoldState.RELEASED,
}


class BillingClient:
    """Calls billing on a channel of `easel_kit.rpc.channel`, which gives deadlines and errors."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """The channel stays its opener's."""
        self._stub = BillingServiceStub(channel)

    async def get_account(self, user_id: UserId) -> Account:
        """See `gateway.ports.Ledger`."""
        answer = await self._stub.GetAccount(pb.GetAccountRequest(user_id=user_id))
        return _account(answer.account)

    async def get_entitlements(self, user_id: UserId) -> Entitlements:
        """See `gateway.ports.Ledger`."""
        answer = await self._stub.GetEntitlements(pb.GetEntitlementsRequest(user_id=user_id))
        return _entitlements(answer.entitlements)

    async def change_plan(self, user_id: UserId, plan_key: str) -> Account:
        """See `gateway.ports.Ledger`."""
        answer = await self._stub.ChangePlan(
            pb.ChangePlanRequest(user_id=user_id, plan_key=plan_key)
        )
        return _account(answer.account)

    async def list_plans(self) -> tuple[Plan, ...]:
        """See `gateway.ports.Ledger`."""
        answer = await self._stub.ListPlans(pb.ListPlansRequest())
        return tuple(_plan(plan) for plan in answer.plans)

    async def list_ledger(
        self, user_id: UserId, *, page_size: int, page_token: str, job_id: JobId | None
    ) -> LedgerPage:
        """See `gateway.ports.Ledger`."""
        try:
            answer = await self._stub.ListLedger(
                pb.ListLedgerRequest(
                    user_id=user_id, page_size=page_size, page_token=page_token, job_id=job_id or ""
                )
            )
        except InvalidInput as error:
            raise _as_caller_said(error) from error
        return LedgerPage(tuple(_line(line) for line in answer.lines), answer.next_page_token)

    async def place_holds(
        self, user_id: UserId, generations: Mapping[JobId, Generation]
    ) -> PlacedHolds:
        """See `gateway.ports.Holds`."""
        jobs = [
            pb.JobWork(job_id=job_id, work=_work(generation))
            for job_id, generation in generations.items()
        ]
        answer = await self._stub.PlaceHolds(pb.PlaceHoldsRequest(user_id=user_id, jobs=jobs))
        holds = [_hold(hold) for hold in answer.holds]
        return PlacedHolds(
            {hold.job_id: hold for hold in holds}, _entitlements(answer.entitlements)
        )

    async def release_holds(self, job_ids: Sequence[JobId], reason: str) -> None:
        """See `gateway.ports.Holds`."""
        await self._stub.ReleaseHolds(pb.ReleaseHoldsRequest(job_ids=job_ids, reason=reason))

    async def get_holds(self, user_id: UserId, job_ids: Sequence[JobId]) -> dict[JobId, Hold]:
        """See `gateway.ports.Holds`."""
        answer = await self._stub.GetHolds(pb.GetHoldsRequest(user_id=user_id, job_ids=job_ids))
        holds = [_hold(hold) for hold in answer.holds]
        return {hold.job_id: hold for hold in holds}


def _as_caller_said(error: InvalidInput) -> InvalidInput:
    return InvalidInput("cursor", error.reason) if error.field == "page_token" else error


def _work(generation: Generation) -> pb.Work:
    last = passes(generation)[-1]
    return pb.Work(
        model_key=generation.model_key,
        width_px=last.width_px,
        height_px=last.height_px,
        steps=generation.steps,
        image_count=generation.image_count,
        pixel_steps=0 if is_plain(generation) else pixel_steps(generation),
    )


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _plan(plan: pb.Plan) -> Plan:
    return Plan(
        key=plan.key,
        version=plan.version,
        name=plan.name,
        price_cents=plan.price_cents,
        currency=plan.currency,
        monthly_millicredits=plan.monthly_millicredits,
        priority=plan.priority,
        weight=plan.weight,
        max_running=plan.max_running,
        max_waiting=plan.max_waiting,
        queue_time_s=plan.queue_time_s,
        max_pixels=plan.max_pixels,
        max_images=plan.max_images,
        requests_per_minute=plan.requests_per_minute,
        model_keys=tuple(ModelKey(key) for key in plan.model_keys),
    )


def _entitlements(entitlements: pb.Entitlements) -> Entitlements:
    return Entitlements(entitlements.version, _plan(entitlements.plan))


def _account(account: pb.Account) -> Account:
    return Account(
        user_id=UserId(account.user_id),
        entitlements=_entitlements(account.entitlements),
        balance=Balance(account.balance.available_millicredits, account.balance.held_millicredits),
        opened_at=_time(account.opened_at) if account.HasField("opened_at") else None,
        renews_at=_time(account.renews_at) if account.HasField("renews_at") else None,
    )


def _hold(hold: pb.Hold) -> Hold:
    return Hold(
        job_id=JobId(hold.job_id),
        state=_HOLD_STATES[hold.state],
        amount_millicredits=hold.amount_millicredits,
        captured_millicredits=hold.captured_millicredits,
    )


def _line(line: pb.LedgerLine) -> LedgerLine:
    return LedgerLine(
        id=line.id,
        booked_at=_time(line.booked_at),
        kind=line.kind,
        reference=line.reference,
        millicredits=line.millicredits,
        available_after_millicredits=line.available_after_millicredits,
        description=line.description,
    )
