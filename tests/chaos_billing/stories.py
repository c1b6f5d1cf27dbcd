"""What is under way when billing is killed, what its callers do then, and what must be true after.

Each story is of a user of its own. `act` is repeated by whoever called until it is answered, with
the same ids; `judge` answers with everything that is wrong.
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ClassVar

from billing.domain.holds import JobReport, JobStatus
from easel.billing.v1 import billing_pb2 as pb
from easel.billing.v1 import payments_pb2 as payments
from easel.billing.v1 import privacy_pb2 as privacy
from easel_kit.errors import DeadlineExceeded, DependencyDown
from easel_kit.ids import UserId, new_job_id
from tests.chaos_billing.house import LONG_TTL_S, SHORT_TTL_S, House
from tests.chaos_billing.points import Operation
from tests.fakes.billing_stack import FREE_GRANT, PRICE, PRO_GRANT, work

_CALL_S = 5.0
_LOOK_S = 0.05
SUCCEEDED = JobReport(JobStatus.SUCCEEDED, 10, 10)
RUNNING = JobReport(JobStatus.RUNNING, 1, 10)


class Story(abc.ABC):
    """Of one user and one job."""

    hold_ttl_s: ClassVar[float] = LONG_TTL_S
    with_stripe: ClassVar[bool] = False

    def __init__(self, house: House, user: str) -> None:
        self.house = house
        self.user = UserId(user)
        self.job = new_job_id()

    async def prepare(self) -> None:
        """Before the trap is set; may be repeated."""
        await self.place()

    @abc.abstractmethod
    async def act(self) -> None:
        """What billing is killed in; done again until it is answered."""

    @abc.abstractmethod
    async def judge(self) -> list[str]:
        """What is wrong, once everything has come to its end."""

    # --- what stories do

    async def account(self) -> pb.Account:
        """The user's account, opened at first sight."""
        request = pb.GetAccountRequest(user_id=self.user)
        return (await self.house.rpc.GetAccount(request, timeout=_CALL_S)).account

    async def place(self) -> pb.Hold:
        """The hold of the job."""
        request = pb.PlaceHoldRequest(user_id=self.user, job_id=self.job, work=work())
        return (await self.house.rpc.PlaceHold(request, timeout=_CALL_S)).hold

    async def hold(self) -> pb.Hold:
        """As it is."""
        request = pb.GetHoldsRequest(user_id=self.user, job_ids=[self.job])
        return (await self.house.rpc.GetHolds(request, timeout=_CALL_S)).holds[0]

    async def happen(self, report: JobReport) -> None:
        """The scheduler says so in its feed."""
        self.house.scheduler.reports[self.job] = report
        await self.house.scheduler.happen(self.job, self.user, report)

    async def wrong(self, state: pb.HoldState.ValueType, charged: int, granted: int) -> list[str]:
        """Where hold, lines and balance do not say: ended so, charged so much, once."""
        name = pb.HoldState.Name(state)
        faults = await self.until(self._is(state), f"the hold is not {name} in time")
        hold, account = await self.hold(), await self.account()
        if hold.captured_millicredits != charged:
            faults.append(f"charged {hold.captured_millicredits}, not {charged}")
        balance = account.balance
        if (balance.available_millicredits, balance.held_millicredits) != (granted - charged, 0):
            faults.append(
                f"balance {balance.available_millicredits}, {balance.held_millicredits} held"
            )
        ends = "SELECT count(*) FROM transfers WHERE job_id = $1 AND kind IN ('capture', 'release')"
        if await self.house.value(ends, self.job) != 1:
            faults.append("it ended not exactly once")
        return faults

    async def until(self, holds: Callable[[], Awaitable[bool]], fault: str) -> list[str]:
        """Waits as long as a promise allows; the fault, when it does not hold by then."""
        end = time.monotonic() + self.house.patience_s
        while time.monotonic() < end:
            with suppress(DependencyDown, DeadlineExceeded):
                if await holds():
                    return []
            await asyncio.sleep(_LOOK_S)
        return [fault]

    def _is(self, state: pb.HoldState.ValueType) -> Callable[[], Awaitable[bool]]:
        async def reached() -> bool:
            return (await self.hold()).state == state

        return reached


class SignUp(Story):
    """Someone is seen for the first time."""

    async def prepare(self) -> None:
        """Nothing is known of them."""

    async def act(self) -> None:
        """The account opens."""
        await self.account()

    async def judge(self) -> list[str]:
        """One grant."""
        await self.place()
        await self.happen(SUCCEEDED)
        return await self.wrong(pb.HOLD_STATE_CAPTURED, PRICE, FREE_GRANT)


class PlacedHold(Story):
    """A job is paid for in advance, then runs."""

    async def prepare(self) -> None:
        """The account is open."""
        await self.account()

    async def act(self) -> None:
        """The hold is placed; only then the job is submitted."""
        await self.place()

    async def judge(self) -> list[str]:
        """It ran, so it is paid for, once."""
        await self.happen(SUCCEEDED)
        return await self.wrong(pb.HOLD_STATE_CAPTURED, PRICE, FREE_GRANT)


class CapturedHold(Story):
    """Half of the steps ran."""

    async def act(self) -> None:
        """They are charged."""
        request = pb.CaptureHoldRequest(job_id=self.job, steps_done=5, steps_total=10)
        await self.house.rpc.CaptureHold(request, timeout=_CALL_S)

    async def judge(self) -> list[str]:
        """Half is paid."""
        return await self.wrong(pb.HOLD_STATE_CAPTURED, PRICE // 2, FREE_GRANT)


class ReleasedHold(Story):
    """The scheduler refused the job."""

    async def act(self) -> None:
        """The hold is given back."""
        request = pb.ReleaseHoldRequest(job_id=self.job, reason="refused")
        await self.house.rpc.ReleaseHold(request, timeout=_CALL_S)

    async def judge(self) -> list[str]:
        """Nothing is paid."""
        return await self.wrong(pb.HOLD_STATE_RELEASED, 0, FREE_GRANT)


class ExpiredHold(Story):
    """The caller died between hold and submit."""

    hold_ttl_s = SHORT_TTL_S

    async def act(self) -> None:
        """Nobody does anything."""

    async def judge(self) -> list[str]:
        """It ends within its time plus a minute, and the scheduler refuses the job from then on."""
        faults = await self.wrong(pb.HOLD_STATE_RELEASED, 0, FREE_GRANT)
        if self.house.scheduler.reports.get(self.job) != JobReport(JobStatus.UNKNOWN):
            faults.append("the scheduler would still take the job")
        return faults


class ExtendedHold(Story):
    """A job takes longer than its hold stands."""

    hold_ttl_s = SHORT_TTL_S

    async def prepare(self) -> None:
        """It runs."""
        self.house.scheduler.reports[self.job] = RUNNING
        self._first = (await self.place()).expires_at.ToMilliseconds()

    async def act(self) -> None:
        """Nobody does anything: it runs on."""

    async def judge(self) -> list[str]:
        """The hold stays while the job lives, and is charged in the end."""

        async def later() -> bool:
            return (await self.hold()).expires_at.ToMilliseconds() > self._first

        faults = await self.until(later, "the hold of a live job is not extended in time")
        if (await self.hold()).state != pb.HOLD_STATE_OPEN:
            faults.append("the hold of a live job has ended")
        await self.happen(SUCCEEDED)
        return faults + await self.wrong(pb.HOLD_STATE_CAPTURED, PRICE, FREE_GRANT)


class FedHold(Story):
    """The feed tells that the job has succeeded."""

    async def act(self) -> None:
        """It tells once."""
        if self.job not in self.house.scheduler.reports:
            await self.happen(SUCCEEDED)

    async def judge(self) -> list[str]:
        """It is charged, once."""
        return await self.wrong(pb.HOLD_STATE_CAPTURED, PRICE, FREE_GRANT)


class Buyer(Story):
    """Someone who stands at Stripe's checkout."""

    with_stripe = True
    session = ""
    _has_paid = False

    async def prepare(self) -> None:
        """They have a customer at Stripe."""
        await self.account()
        request = payments.CreateCheckoutRequest(
            user_id=self.user,
            plan_key="pro",
            success_url="http://127.0.0.1/done",
            cancel_url="http://127.0.0.1/left",
            idempotency_key=f"key-{self.user}",
        )
        checkout = await self.house.money.CreateCheckout(request, timeout=_CALL_S)
        self.session = checkout.url.rsplit("/", 1)[-1]
        await self.house.stripe.delivered()

    def pay(self) -> None:
        """Once."""
        if not self._has_paid:
            self._has_paid = True
            self.house.stripe.pay(self.session)


class Webhooks(Buyer):
    """They pay for a plan."""

    async def act(self) -> None:
        """They pay; Stripe repeats what is not answered."""
        self.pay()

    async def judge(self) -> list[str]:
        """They have the plan and its credits, once; no webhook is left."""

        async def done() -> bool:
            return (await self.account()).entitlements.plan.key == "pro" and await self._open() == 0

        async with asyncio.timeout(self.house.patience_s):
            await self.house.stripe.delivered()
        faults = await self.until(done, "the plan has not come, or webhooks are left")
        balance = (await self.account()).balance.available_millicredits
        if balance != FREE_GRANT + PRO_GRANT:
            faults.append(f"balance {balance}")
        grants = "SELECT count(*) FROM credit_lots l JOIN account_pii p USING (account_id) "
        where = "WHERE p.user_id = $1 AND l.source = 'invoice_line'"
        if (count := await self.house.value(grants + where, self.user)) != 1:
            faults.append(f"{count} grants of one paid line")
        lost = [one.event for one in self.house.stripe.deliveries if one.state != "delivered"]
        return faults + [f"webhook lost: {event}" for event in lost]

    async def _open(self) -> object:
        return await self.house.value(
            "SELECT count(*) FROM webhook_inbox WHERE state NOT IN ('applied', 'ignored')"
        )


class ChangedPlan(Story):
    """An operator moves someone to another plan."""

    async def prepare(self) -> None:
        """The account is open."""
        await self.account()

    async def act(self) -> None:
        """The plan changes."""
        request = pb.ChangePlanRequest(user_id=self.user, plan_key="pro")
        await self.house.rpc.ChangePlan(request, timeout=_CALL_S)

    async def judge(self) -> list[str]:
        """One grant of the new plan, and the scheduler knows of it."""
        account = await self.account()
        version = account.entitlements.version

        async def told() -> bool:
            tier = self.house.scheduler.tiers.get(self.user)
            return tier is not None and tier.version == version and await self._noted() == 0

        faults = await self.until(told, "the scheduler has not heard of the plan in time")
        if account.balance.available_millicredits != FREE_GRANT + PRO_GRANT:
            faults.append(f"balance {account.balance.available_millicredits}")
        return faults

    async def _noted(self) -> object:
        return await self.house.value("SELECT count(*) FROM entitlements_outbox")


class ErasedUser(Buyer):
    """Someone wants to be forgotten, with a subscription and half-spent credits."""

    async def prepare(self) -> None:
        """They have paid, and a job of theirs has run."""
        await super().prepare()
        self.pay()
        await self.house.stripe.delivered()
        await self.until(self._has_plan, "")
        await self.place()
        await self.happen(SUCCEEDED)
        await self.until(self._is(pb.HOLD_STATE_CAPTURED), "")
        self._customer = await self.house.value(
            "SELECT c.id FROM customers c JOIN account_pii p USING (account_id) "
            "WHERE p.user_id = $1",
            self.user,
        )

    async def act(self) -> None:
        """They ask for it."""
        request = privacy.EraseAccountRequest(user_id=self.user)
        await self.house.privacy.EraseAccount(request, timeout=_CALL_S)

    async def judge(self) -> list[str]:
        """Nothing leads to them any more, here or at Stripe; what was booked stays."""

        async def done() -> bool:
            request = privacy.GetErasureRequest(user_id=self.user)
            answer = await self.house.privacy.GetErasure(request, timeout=_CALL_S)
            return answer.erasure.state == privacy.ERASURE_STATE_DONE

        faults = await self.until(done, "the erasure is not done in time")
        if await self.house.value("SELECT count(*) FROM account_pii WHERE user_id = $1", self.user):
            faults.append("the account still leads to the user")
        if await self.house.value("SELECT count(*) FROM customers WHERE id = $1", self._customer):
            faults.append("the customer is still known here")
        customer = self.house.stripe.inner.world.find("customer", str(self._customer))
        if customer is not None and not customer.get("deleted"):
            faults.append("the customer still lives at Stripe")
        charge = "SELECT count(*) FROM transfers WHERE job_id = $1 AND kind = 'capture'"
        if await self.house.value(charge, self.job) != 1:
            faults.append("what was charged is no longer booked")
        return faults

    async def _has_plan(self) -> bool:
        return (await self.account()).entitlements.plan.key == "pro"


class AnchoredLog(Story):
    """The audit log grows and is anchored."""

    async def prepare(self) -> None:
        """Nothing before."""

    async def act(self) -> None:
        """An account is opened."""
        await self.account()

    async def judge(self) -> list[str]:
        """All rows are anchored, and the log is as it was written."""

        async def anchored() -> bool:
            return (await self.house.audit()).unanchored == 0

        faults = await self.until(anchored, "the log is not anchored in time")
        return faults + [str(finding) for finding in (await self.house.audit()).findings]


STORIES: dict[Operation, type[Story]] = {
    "sign-up": SignUp,
    "hold": PlacedHold,
    "capture": CapturedHold,
    "release": ReleasedHold,
    "expiry": ExpiredHold,
    "extension": ExtendedHold,
    "feed": FedHold,
    "webhook": Webhooks,
    "outbox": ChangedPlan,
    "erasure": ErasedUser,
    "anchor": AnchoredLog,
}


async def answered(call: Callable[[], Awaitable[None]]) -> bool:
    """Whether it was answered; a caller that was cut off tries again."""
    try:
        await call()
    except (DependencyDown, DeadlineExceeded):
        return False
    return True
