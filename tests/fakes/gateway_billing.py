"""Billing as the gateway sees it over gRPC: in memory, with planted faults."""

# ruff: noqa: ARG002, N802 (the names and arguments are the stubs')

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.timestamp_pb2 import Timestamp

from easel.billing.v1 import billing_pb2 as bill
from easel.billing.v1.billing_pb2_grpc import BillingServiceServicer
from easel_kit import ids
from easel_kit.errors import Forbidden, InsufficientCredits, InvalidInput, InvalidState, NotFound
from tests.fakes.gateway_wire import Context, Fault, now

PLANS = {
    "free": bill.Plan(
        key="free",
        version=1,
        name="Free",
        currency="usd",
        monthly_millicredits=1_000,
        priority=1,
        weight=1,
        max_running=1,
        max_waiting=2,
        queue_time_s=600,
        max_pixels=512 * 512,
        max_images=2,
        requests_per_minute=600,
        storage_bytes=10**9,
    ),
    "pro": bill.Plan(
        key="pro",
        version=1,
        name="Pro",
        price_cents=1900,
        currency="usd",
        monthly_millicredits=1_000_000,
        priority=5,
        weight=4,
        max_running=3,
        max_waiting=20,
        queue_time_s=3600,
        max_pixels=2048 * 2048,
        max_images=8,
        requests_per_minute=6000,
        storage_bytes=10**11,
    ),
}
PACKS = {
    "small": bill.Pack(
        key="small",
        name="Small",
        price_cents=500,
        currency="usd",
        millicredits=200_000,
        valid_days=365,
    ),
}


class FakeBilling(BillingServiceServicer):
    """Accounts, balances and holds; every user begins with the free plan."""

    def __init__(self) -> None:
        self.plans: dict[str, str] = {}
        self.available: dict[str, int] = {}
        self.holds: dict[str, bill.Hold] = {}
        self.owners: dict[str, str] = {}
        self.calls: list[str] = []
        self.requests_per_minute = 0
        self.fault: Fault | None = None
        self.debts: dict[str, int] = {}
        self.subscriptions: dict[str, bill.Subscription] = {}
        self.usage: dict[str, list[bill.UsageLine]] = {}
        self.statement: list[bytes] = []
        self.statement_fault: Fault | None = None
        self.statements: list[bill.GetStatementRequest] = []

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.fault is not None:
            await self.fault()

    def _entitlements(self, user: str) -> bill.Entitlements:
        plan = bill.Plan()
        plan.CopyFrom(PLANS[self.plans.setdefault(user, "free")])
        plan.requests_per_minute = self.requests_per_minute or plan.requests_per_minute
        return bill.Entitlements(version=1, plan=plan)

    def _balance(self, user: str) -> bill.Balance:
        held = sum(
            hold.amount_millicredits
            for job, hold in self.holds.items()
            if self.owners[job] == user and hold.state == bill.HOLD_STATE_OPEN
        )
        return bill.Balance(
            available_millicredits=self.available.setdefault(user, 1_000),
            held_millicredits=held,
            debt_millicredits=self.debts.get(user, 0),
        )

    def account(self, user: str) -> bill.Account:
        return bill.Account(
            user_id=user,
            entitlements=self._entitlements(user),
            balance=self._balance(user),
            opened_at=now(),
            subscription=self.subscriptions.get(user),
        )

    async def GetAccount(
        self, request: bill.GetAccountRequest, context: Context
    ) -> bill.GetAccountResponse:
        await self._called("GetAccount")
        return bill.GetAccountResponse(account=self.account(request.user_id))

    async def GetEntitlements(
        self, request: bill.GetEntitlementsRequest, context: Context
    ) -> bill.GetEntitlementsResponse:
        await self._called("GetEntitlements")
        return bill.GetEntitlementsResponse(entitlements=self._entitlements(request.user_id))

    async def Quote(self, request: bill.QuoteRequest, context: Context) -> bill.QuoteResponse:
        await self._called("Quote")
        self._within_plan(request.user_id, request.work)
        return bill.QuoteResponse(millicredits=price(request.work))

    def _within_plan(self, user: str, work: bill.Work) -> None:
        most = PLANS[self.plans.setdefault(user, "free")].max_pixels
        if work.width_px * work.height_px > most:
            raise Forbidden(f"picture size: more than the {most} pixels of the plan")

    async def PlaceHold(
        self, request: bill.PlaceHoldRequest, context: Context
    ) -> bill.PlaceHoldResponse:
        raise NotImplementedError

    async def PlaceHolds(
        self, request: bill.PlaceHoldsRequest, context: Context
    ) -> bill.PlaceHoldsResponse:
        await self._called("PlaceHolds")
        user, amount = request.user_id, sum(price(job.work) for job in request.jobs)
        for job in request.jobs:
            self._within_plan(user, job.work)
        available = self._balance(user).available_millicredits
        if amount > available:
            raise InsufficientCredits(amount, available)
        self.available[user] -= amount
        holds = [
            bill.Hold(
                id=ids.new_hold_id(),
                job_id=job.job_id,
                state=bill.HOLD_STATE_OPEN,
                amount_millicredits=price(job.work),
            )
            for job in request.jobs
        ]
        for hold in holds:
            self.owners[hold.job_id] = user
            self.holds[hold.job_id] = hold
        return bill.PlaceHoldsResponse(
            holds=holds, entitlements=self._entitlements(user), balance=self._balance(user)
        )

    async def CaptureHold(
        self, request: bill.CaptureHoldRequest, context: Context
    ) -> bill.CaptureHoldResponse:
        await self._called("CaptureHold")
        return bill.CaptureHoldResponse(hold=self.settle(request.job_id, captured=True))

    async def ReleaseHold(
        self, request: bill.ReleaseHoldRequest, context: Context
    ) -> bill.ReleaseHoldResponse:
        raise NotImplementedError

    async def ReleaseHolds(
        self, request: bill.ReleaseHoldsRequest, context: Context
    ) -> bill.ReleaseHoldsResponse:
        await self._called("ReleaseHolds")
        return bill.ReleaseHoldsResponse(
            holds=[self.settle(job, captured=False) for job in request.job_ids]
        )

    def settle(self, job: str, *, captured: bool) -> bill.Hold:
        """Ends a hold."""
        hold = self.holds[job]
        if captured:
            hold.state = bill.HOLD_STATE_CAPTURED
            hold.captured_millicredits = hold.amount_millicredits
        else:
            hold.state = bill.HOLD_STATE_RELEASED
            self.available[self.owners[job]] += hold.amount_millicredits
        return hold

    async def GetHolds(
        self, request: bill.GetHoldsRequest, context: Context
    ) -> bill.GetHoldsResponse:
        await self._called("GetHolds")
        return bill.GetHoldsResponse(
            holds=[
                self.holds[job]
                for job in request.job_ids
                if job in self.holds and self.owners[job] == request.user_id
            ]
        )

    async def ListLedger(
        self, request: bill.ListLedgerRequest, context: Context
    ) -> bill.ListLedgerResponse:
        await self._called("ListLedger")
        if request.page_token:
            raise InvalidInput("page_token", "is not one of ours")
        lines = [
            bill.LedgerLine(
                id=hold.id,
                booked_at=now(),
                kind="hold",
                reference=job,
                millicredits=-hold.amount_millicredits,
                available_after_millicredits=self.available[request.user_id],
            )
            for job, hold in self.holds.items()
            if self.owners[job] == request.user_id and request.job_id in {"", job}
        ]
        return bill.ListLedgerResponse(lines=lines)

    async def ListUsage(
        self, request: bill.ListUsageRequest, context: Context
    ) -> bill.ListUsageResponse:
        await self._called("ListUsage")
        if request.page_token and not request.page_token.isdecimal():
            raise InvalidInput("page_token", "is not one of ours")
        begin, end = _nanoseconds(request, "since", 0), _nanoseconds(request, "until", 2**63)
        found = [
            line
            for line in self.usage.get(request.user_id, [])
            if begin <= line.ended_at.ToNanoseconds() < end
        ]
        start = int(request.page_token or "0")
        stop = start + (request.page_size or 20)
        return bill.ListUsageResponse(
            lines=found[start:stop],
            next_page_token=str(stop) if stop < len(found) else "",
            charged_millicredits=sum(line.charged_millicredits for line in found),
            jobs=len(found),
        )

    async def GetStatement(
        self, request: bill.GetStatementRequest, context: Context
    ) -> AsyncIterator[bill.GetStatementResponse]:
        await self._called("GetStatement")
        self.statements.append(request)
        for part in self.statement:
            yield bill.GetStatementResponse(data=part)
        if self.statement_fault is not None:
            await self.statement_fault()

    async def ListPlans(
        self, request: bill.ListPlansRequest, context: Context
    ) -> bill.ListPlansResponse:
        await self._called("ListPlans")
        return bill.ListPlansResponse(plans=PLANS.values(), packs=PACKS.values())

    async def ChangePlan(
        self, request: bill.ChangePlanRequest, context: Context
    ) -> bill.ChangePlanResponse:
        await self._called("ChangePlan")
        if request.plan_key not in PLANS:
            raise NotFound("plan", request.plan_key)
        if request.user_id in self.subscriptions:
            raise InvalidState("a subscription pays for the plan")
        self.plans[request.user_id] = request.plan_key
        return bill.ChangePlanResponse(account=self.account(request.user_id))


def price(work: bill.Work) -> int:
    """Millicredits: steps x megapixels x pictures, in thousandths, at least 1."""
    product = work.steps * work.width_px * work.height_px * work.image_count
    return max(1, (work.pixel_steps or product) // 1_000)


def _nanoseconds(request: bill.ListUsageRequest, field: str, default: int) -> int:
    stamp: Timestamp = getattr(request, field)
    return stamp.ToNanoseconds() if request.HasField(field) else default  # type: ignore[arg-type]
