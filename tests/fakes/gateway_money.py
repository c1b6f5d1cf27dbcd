"""The gateway's ports to billing in memory, for unit tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from easel_kit.errors import InsufficientCredits, InvalidState, NotFound
from easel_kit.ids import JobId, UserId
from gateway.domain.account import (
    Account,
    Balance,
    Entitlements,
    Hold,
    HoldState,
    LedgerPage,
    PlacedHolds,
    Plan,
)
from gateway.domain.generation import Generation
from gateway.domain.money import Checkout, Offers, Purchase
from tests.fakes.gateway_ports import ALICE, NOON


def plan(key: str = "free", requests_per_minute: int = 60) -> Plan:
    return Plan(
        key=key,
        version=1,
        name=key.title(),
        price_cents=0,
        currency="usd",
        monthly_millicredits=1000,
        priority=1,
        weight=1,
        max_running=1,
        max_waiting=2,
        queue_time_s=60,
        max_pixels=4096,
        max_images=1,
        requests_per_minute=requests_per_minute,
        storage_bytes=10**9,
    )


@dataclass
class FakeHolds:
    """Billing: a price of 40 out of what is available."""

    available: int = 1000
    holds: dict[JobId, Hold] = field(default_factory=dict)
    fault: Exception | None = None

    async def place_holds(
        self, user_id: UserId, generations: Mapping[JobId, Generation]
    ) -> PlacedHolds:
        del user_id
        price = 40 * len(generations)
        if self.available < price:
            raise InsufficientCredits(price, self.available)
        self.available -= price
        holds = {
            job_id: Hold(
                job_id=job_id,
                state=HoldState.OPEN,
                amount_millicredits=40,
                captured_millicredits=0,
            )
            for job_id in generations
        }
        self.holds |= holds
        return PlacedHolds(holds, Entitlements(1, plan()))

    async def release_holds(self, job_ids: Sequence[JobId], reason: str) -> None:
        assert reason == "refused"
        if self.fault is not None:
            raise self.fault
        for job_id in job_ids:
            self.available += 40
            self.holds[job_id] = replace(self.holds[job_id], state=HoldState.RELEASED)

    async def get_holds(self, user_id: UserId, job_ids: Sequence[JobId]) -> dict[JobId, Hold]:
        del user_id
        if self.fault is not None:
            raise self.fault
        return {job_id: self.holds[job_id] for job_id in job_ids if job_id in self.holds}


@dataclass
class FakeLedger:
    """One account on one plan."""

    plan: Plan = field(default_factory=plan)
    available: int = 1000
    subscribed: bool = False
    fault: Exception | None = None
    calls: list[str] = field(default_factory=list)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.fault is not None:
            raise self.fault

    def _account(self, user_id: UserId) -> Account:
        return Account(
            user_id=user_id,
            entitlements=Entitlements(1, self.plan),
            balance=Balance(self.available, 0),
            opened_at=NOON,
            renews_at=None,
        )

    async def get_account(self, user_id: UserId) -> Account:
        self._called("get_account")
        return self._account(user_id)

    async def get_entitlements(self, user_id: UserId) -> Entitlements:
        del user_id
        self._called("get_entitlements")
        return Entitlements(1, self.plan)

    async def change_plan(self, user_id: UserId, plan_key: str) -> Account:
        self._called("change_plan")
        if plan_key not in {"free", "pro"}:
            raise NotFound("plan", plan_key)
        if self.subscribed:
            raise InvalidState("a subscription pays for the plan")
        self.plan = plan(plan_key, requests_per_minute=600)
        return self._account(user_id)

    async def list_offers(self) -> Offers:
        return Offers((self.plan,), ())

    async def list_ledger(
        self, user_id: UserId, *, page_size: int, page_token: str, job_id: JobId | None
    ) -> LedgerPage:
        del user_id, page_size, page_token, job_id
        return LedgerPage((), "")


@dataclass
class FakeQuotes:
    """A price of 40, or a refusal."""

    refuse: Exception | None = None
    asked: list[Generation] = field(default_factory=list)

    async def quote(self, user_id: UserId, generation: Generation) -> int:
        assert user_id == ALICE
        self.asked.append(generation)
        if self.refuse is not None:
            raise self.refuse
        return 40


@dataclass
class FakePayments:
    """Pages to pay on; notes what it was asked."""

    asked: list[tuple[object, ...]] = field(default_factory=list)
    account: Account | None = None

    async def checkout(
        self, user_id: UserId, purchase: Purchase, *, success_url: str, cancel_url: str, key: str
    ) -> Checkout:
        self.asked.append(("checkout", user_id, purchase, success_url, cancel_url, key))
        return Checkout(f"https://pay.example/{key}", NOON)

    async def portal(self, user_id: UserId, *, return_url: str) -> str:
        self.asked.append(("portal", user_id, return_url))
        return "https://pay.example/portal"

    async def change_subscription(self, user_id: UserId, plan_key: str) -> Account:
        self.asked.append(("change", user_id, plan_key))
        return self._account()

    async def cancel_subscription(self, user_id: UserId, *, resume: bool) -> Account:
        self.asked.append(("resume" if resume else "cancel", user_id))
        return self._account()

    def _account(self) -> Account:
        if self.account is None:
            raise InvalidState("there is no subscription")
        return self.account


@dataclass
class FakeWebhooks:
    """Keeps what it is sent once it may."""

    kept: list[bytes] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def ingest(self, payload: bytes, signature: str) -> None:
        assert signature
        await self.go_on.wait()
        self.kept.append(payload)
