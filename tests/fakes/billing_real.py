"""Billing's own code behind the operations of `LedgerModel`, and what its database then says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from billing.domain.accounts import AccountId, Period, PlanSource
from billing.domain.feed import Cursor, JobEvent
from billing.domain.holds import Hold, JobReport, JobStatus
from billing.domain.plans import Catalogue, PlanBook
from billing.domain.pricing import Work
from billing.domain.purchases import Clawback, Purchase, PurchaseSource
from billing.service.accounts import Billing
from billing.service.follower import JobFollower
from billing.storage.accounts import PostgresAccounts
from billing.storage.books import PostgresLedger
from billing.storage.check import Breach, find_breaches
from billing.storage.feed import PostgresFeed
from billing.storage.holds import PostgresHolds
from billing.storage.plans import PostgresPlans, read_plan_book
from billing.storage.purchases import claw_back, give_back, grant_purchase, move_plan
from easel_kit.db import Pool, connection, open_pool, transaction
from easel_kit.errors import Conflict, InsufficientCredits, InvalidState, NotFound
from easel_kit.ids import JobId, ModelKey, UserId
from tests.fakes.billing import MovableClock
from tests.fakes.billing_model import HOLD_TTL, STEPS, STEPS_DONE, Answer

MONTHLY = {"free": 1_000, "pro": 3_000, "enterprise": 2_000}
"""Of the plans here: so few that purchases, debts and refusals meet."""
_PIXEL_STEPS_PER_MILLICREDIT = 100
_REFUSALS = (InvalidState, Conflict, NotFound)

_BALANCE = """
SELECT c.available, c.held, c.debt, a.plan_key, a.plan_source, a.entitlements_version,
       a.period_start, a.period_end
FROM credit_accounts c JOIN accounts a ON a.id = c.account_id WHERE a.id = $1
"""
_LOTS = """
SELECT source, granted, remaining, held, expired, clawed, repaid
FROM credit_lots WHERE account_id = $1 ORDER BY expires_at, id
"""
_LINES = """
SELECT kind, CASE kind WHEN 'expire' THEN '' ELSE reference END, available_change, available_after
FROM transfers WHERE account_id = $1 ORDER BY sequence
"""
_HOLDS = """
SELECT job_id, state, millicredits, captured_millicredits, barred, expires_at FROM holds
ORDER BY job_id
"""


class RealLedger:
    """The operations of `LedgerModel`, carried out by billing."""

    def __init__(self, pool: Pool, catalogue: Catalogue, plans: PostgresPlans) -> None:
        self.pool = pool
        self.clock = MovableClock()
        self._catalogue = catalogue
        self._holds, self._feed = PostgresHolds(pool), PostgresFeed(pool)
        self._status = JobStatus.UNKNOWN
        accounts = PostgresAccounts(pool, plans)
        ledger = PostgresLedger(pool)
        self._billing = Billing(
            accounts, self._holds, ledger, catalogue, self.clock, hold_ttl=HOLD_TTL
        )
        events: Any = None  # events are applied here one by one
        self._follower = JobFollower(
            self._holds, self._feed, events, self, self.clock, hold_ttl=HOLD_TTL
        )
        self.ids: dict[str, AccountId] = {}

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str) -> AsyncIterator[RealLedger]:
        """On a migrated database without rows."""
        book = read_plan_book(None)
        terms = [replace(one, monthly_millicredits=MONTHLY[one.key]) for one in book.plans]
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(
                open_pool(url, schema="billing", name="test", max_size=1)
            )
            plans = PostgresPlans(pool)
            now = MovableClock().now()
            catalogue = await plans.publish(PlanBook("free", tuple(terms), book.packs), now)
            yield cls(pool, catalogue, plans)

    async def resolve(self, job_id: JobId) -> JobReport:
        """The port `JobResolver`: what the sweep says of every job."""
        del job_id
        return JobReport(self._status, STEPS_DONE, STEPS)

    # --- operations

    async def touch(self, user: str, now: datetime) -> Answer:
        """Opens or renews."""
        del now
        account = await self._billing.account(UserId(user))
        self.ids[user] = account.id
        return ()

    async def place(self, user: str, job: str, amount: int, now: datetime) -> Answer:
        """Reserves."""
        del now
        pixel_steps = amount * _PIXEL_STEPS_PER_MILLICREDIT
        work = Work(ModelKey("shapes-64"), 64, 64, 10, 1, pixel_steps)

        async def place() -> Answer:
            (hold,), _ = await self._billing.place_holds(UserId(user), {JobId(job): work}, "")
            return _row(hold)

        return await _answer(place())

    async def capture(self, job: str, done: int, total: int, now: datetime) -> Answer:
        """Charges."""
        del now

        async def capture() -> Answer:
            return _row(await self._billing.capture_hold(JobId(job), done, total))

        return await _answer(capture())

    async def release(self, job: str, now: datetime) -> Answer:
        """Frees."""
        del now
        return _row(await self._billing.release_hold(JobId(job), "refused"))

    async def event(
        self, cursor: int, user: str, job: str, status: JobStatus, now: datetime
    ) -> Answer:
        """Applies an event of the feed."""
        del now
        report = JobReport(status, STEPS_DONE, STEPS)
        event = JobEvent(Cursor(1, 1, cursor), JobId(job), UserId(user), report)
        return ((await self._follower.apply(event)).outcome.value,)

    async def sweep(self, status: JobStatus, now: datetime) -> Answer:
        """Resolves holds past their time, in an order that does not depend on the database."""
        del now
        self._status = status
        holds = sorted(await self._follower.expired(100), key=lambda h: (h.expires_at, h.job_id))
        for hold in holds:
            await self._follower.resolve(hold)
        return (len(holds),)

    async def buy(  # noqa: PLR0917 (as in the model)
        self, user: str, reference: str, payment: str, amount: int, until: datetime, now: datetime
    ) -> Answer:
        """Grants a purchase."""
        purchase = Purchase(PurchaseSource.CHECKOUT, reference, payment, amount, until, "A pack")
        async with transaction(self.pool) as lent:
            return (await grant_purchase(lent, self.ids[user], purchase, now),)

    async def claw(  # noqa: PLR0917 (as in the model)
        self,
        user: str,
        reference: str,
        payment: str,
        amount: int,
        may_owe: bool,  # noqa: FBT001 (as in the model)
        now: datetime,
    ) -> Answer:
        """Takes back."""
        clawback = Clawback(reference, payment, amount, "Refunded", may_owe)
        async with transaction(self.pool) as lent:
            return (await claw_back(lent, self.ids[user], clawback, now),)

    async def give(self, user: str, reference: str, now: datetime) -> Answer:
        """Gives back."""
        async with transaction(self.pool) as lent:
            return (await give_back(lent, self.ids[user], reference, now),)

    async def change_plan(self, user: str, plan: str, now: datetime) -> Answer:
        """As an operator."""
        del now

        async def change() -> Answer:
            return ((await self._billing.change_plan(UserId(user), plan)).plan.key,)

        return await _answer(change())

    async def move(
        self, user: str, plan: str, period: Period, source: PlanSource, now: datetime
    ) -> Answer:
        """As a subscription."""
        version = self._catalogue.get(plan)
        async with transaction(self.pool) as lent:
            return (await move_plan(lent, self.ids[user], version, period, source, now),)

    # --- what the database says

    async def seen(self, user: str) -> tuple[Answer, list[Answer], list[Answer]]:
        """Balance and plan, lots in the order of spending, ledger lines in theirs."""
        async with connection(self.pool) as lent:
            balance = await lent.fetchrow(_BALANCE, self.ids[user])
            lots = await lent.fetch(_LOTS, self.ids[user])
            lines = await lent.fetch(_LINES, self.ids[user])
        return tuple(balance or ()), [tuple(row) for row in lots], [tuple(row) for row in lines]

    async def holds_and_breaches(self) -> tuple[list[Answer], list[Breach]]:
        """All holds and tombstones; what ledger-check finds."""
        async with connection(self.pool) as lent:
            rows = await lent.fetch(_HOLDS)
            return [tuple(row) for row in rows], await find_breaches(lent)


def _row(hold: Hold) -> Answer:
    return (hold.state.value, hold.millicredits, hold.captured)


async def _answer(call: Awaitable[Answer]) -> Answer:
    try:
        return await call
    except InsufficientCredits as error:
        return (type(error).__name__, error.needed_millicredits, error.available_millicredits)
    except _REFUSALS as error:
        return (type(error).__name__,)
