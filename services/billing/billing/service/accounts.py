"""Accounts, plans, prices and holds, as callers ask for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from billing.domain import statement
from billing.domain.accounts import Account, Period, PlanSource, period_at
from billing.domain.holds import Hold, HoldOrder, Settlement
from billing.domain.ledger import Line
from billing.domain.plans import Catalogue, PackVersion, PlanVersion
from billing.domain.pricing import Work
from billing.domain.usage import Usage, UsageQuery
from billing.ports.ledger import Accounts, Holds, Ledger
from easel_kit.clock import Clock
from easel_kit.erasure import ERASED
from easel_kit.errors import (
    Conflict,
    DomainError,
    Forbidden,
    Internal,
    InvalidInput,
    InvalidState,
    NotFound,
)
from easel_kit.ids import JobId, UserId, new_hold_id

# Lines of a statement that are read, and sent, at once: some 100 KB.
_STATEMENT_LINES = 500


class Billing:
    """What callers ask of billing. All writes are idempotent."""

    def __init__(
        self,
        accounts: Accounts,
        holds: Holds,
        ledger: Ledger,
        catalogue: Catalogue,
        clock: Clock,
        *,
        hold_ttl: timedelta,
    ) -> None:
        """`hold_ttl` is how long a hold stands before its job is asked about."""
        self._accounts = accounts
        self._holds = holds
        self._ledger = ledger
        self._catalogue = catalogue
        self._clock = clock
        self._hold_ttl = hold_ttl

    def plans(self) -> Sequence[PlanVersion]:
        """The plans on offer, cheapest first."""
        return tuple(self._catalogue)

    def packs(self) -> Sequence[PackVersion]:
        """The packs on offer, cheapest first."""
        return self._catalogue.packs

    async def account(self, user_id: UserId) -> Account:
        """The user's account, opened on the default plan when the user is new, renewed when due.

        Raises:
            Forbidden: the user was erased, or is being erased.
        """
        now = self._clock.now()
        account = await self._accounts.find(user_id, now)
        if account is None:
            plan = self._catalogue.default
            await self._accounts.open(user_id, plan, period_at(now, now), now)
            account = await self._existing(user_id, now)
        if account.is_barred:
            raise Forbidden(ERASED)
        if account.is_due(now):
            await self.renew(account)
            account = await self._existing(user_id, now)
        return account

    async def quote(self, user_id: UserId, work: Work) -> int:
        """The price in millicredits; reserves nothing.

        Raises:
            Forbidden: the work is beyond the user's plan.
        """
        return (await self.account(user_id)).plan.terms.price_of(work)

    async def place_holds(
        self, user_id: UserId, works: Mapping[JobId, Work], traceparent: str
    ) -> tuple[list[Hold], Account]:
        """Reserves the prices of all jobs, or of none; the account carries the balance after it.

        The same user and work are answered with the same hold, at the price of its placing. Holds
        are in the order of `works`.

        Raises:
            Conflict: a job id has a hold of another user or for other work.
            InvalidState: a hold was released by its caller; no job may run on it.
            Forbidden: the work is beyond the user's plan, or the user was erased.
            InsufficientCredits: the prices are more than is available; nothing is written.
        """
        account = await self.account(user_id)
        known: dict[JobId, Hold] = {}
        while True:
            new = {job_id: work for job_id, work in works.items() if job_id not in known}
            refusal: DomainError = Internal("a hold has vanished")
            try:
                orders = [self._order(account, *job, traceparent) for job in new.items()]
                placed = await self._holds.place(orders)
            except Forbidden as forbidden:
                # a plan that shrank meanwhile does not take back a hold
                placed, refusal = None, forbidden
            if placed is not None:
                known |= {hold.job_id: hold for hold in placed.holds}
                if placed.balance is not None:
                    account = replace(account, balance=placed.balance)
                return [known[job_id] for job_id in works], account
            found = await self._holds.find(list(new))
            if not found:
                raise refusal
            known |= {hold.job_id: _same(hold, user_id, works[hold.job_id]) for hold in found}

    def _order(self, account: Account, job_id: JobId, work: Work, traceparent: str) -> HoldOrder:
        now = self._clock.now()
        return HoldOrder(
            id=new_hold_id(),
            job_id=job_id,
            account_id=account.id,
            user_id=account.user_id,
            work=work,
            millicredits=account.plan.terms.price_of(work),
            plan_key=account.plan.key,
            plan_version=account.plan.version,
            traceparent=traceparent,
            placed_at=now,
            expires_at=now + self._hold_ttl,
        )

    async def capture_hold(self, job_id: JobId, steps_done: int, steps_total: int) -> Hold:
        """Takes the price of the steps that ran and frees the rest; a hold that ended stays so.

        Raises:
            NotFound: the job has no hold.
        """
        settlement = Settlement(
            steps_done,
            steps_total,
            "finished"
            if steps_done >= steps_total
            else f"stopped after {steps_done} of {steps_total} steps",
        )
        settled = await self._holds.settle(job_id, settlement, self._clock.now())
        if settled is None:
            raise NotFound("hold", job_id)
        return settled.hold

    async def release_hold(self, job_id: JobId, reason: str) -> Hold:
        """Frees a hold that no job runs on; bars it where it has not been placed yet."""
        settlement = Settlement(0, 1, reason, is_barring=True)
        return (await self._holds.release(job_id, settlement, self._clock.now())).hold

    async def holds(self, user_id: UserId, job_ids: Sequence[JobId]) -> Sequence[Hold]:
        """The user's holds of these jobs, in their order; jobs without one are left out."""
        found = {hold.job_id: hold for hold in await self._holds.of_user(user_id, job_ids)}
        return [found[job_id] for job_id in dict.fromkeys(job_ids) if job_id in found]

    async def ledger(
        self, user_id: UserId, *, before: int | None, job_id: JobId | None, limit: int
    ) -> Sequence[Line]:
        """At most `limit` lines of the user's ledger, newest first, with a sequence below it."""
        account = await self.account(user_id)
        return await self._ledger.lines(account.id, before=before, job_id=job_id, limit=limit)

    async def usage(self, user_id: UserId, query: UsageQuery) -> Usage:
        """What the user's jobs cost, newest first."""
        account = await self.account(user_id)
        return await self._ledger.usage(account.id, query)

    async def statement(self, user_id: UserId, period: Period) -> AsyncIterator[bytes]:
        """The user's ledger of a calendar month as CSV, in parts that end anywhere.

        Lines never change and none is added to what the first part has bounded: reading on with
        pauses, on a connection for each part, gives one consistent document.

        Raises:
            InvalidInput: the month has not begun.
        """
        now = self._clock.now()
        if period.start > now:
            raise InvalidInput("month", "has not begun")
        account = await self.account(user_id)
        excerpt = await self._ledger.excerpt(account.id, period)
        yield statement.beginning(period, excerpt)
        after = excerpt.after
        while after < excerpt.up_to:
            lines = await self._ledger.part(
                account.id, after=after, up_to=excerpt.up_to, limit=_STATEMENT_LINES
            )
            if not lines:
                raise Internal("lines of a ledger have vanished")
            after = lines[-1].sequence
            yield statement.middle(lines)
        yield statement.end(period, excerpt, now)

    async def change_plan(self, user_id: UserId, plan_key: str) -> Account:
        """Moves the user to a plan now; does nothing for a user who is on it.

        Raises:
            NotFound: no such plan is on offer.
            InvalidState: a subscription pays for the user's plan.
        """
        plan = self._catalogue.get(plan_key)
        account = await self.account(user_id)
        if account.plan.key == plan_key:
            return account
        now = self._clock.now()
        await self._accounts.change_plan(account.id, plan, now)
        account = await self._existing(user_id, now)
        if account.plan_source is PlanSource.SUBSCRIPTION:
            raise InvalidState("a subscription pays for the plan: change or cancel it")
        return account

    async def due(self, limit: int) -> Sequence[Account]:
        """Accounts whose period is over or that hold expired credits."""
        return await self._accounts.due(self._clock.now(), limit)

    async def renew(self, account: Account) -> None:
        """Brings an account into the current period: expired credits off, the plan's grant on."""
        now = self._clock.now()
        plan, period = account.plan, account.period
        if account.is_over(now):
            plan = self._catalogue.successor(plan)
            period = period_at(account.period_anchor, now)
        await self._accounts.renew(account, plan, period, now)

    async def _existing(self, user_id: UserId, now: datetime) -> Account:
        account = await self._accounts.find(user_id, now)
        if account is None:
            raise Internal("an account has vanished")
        return account


def _same(known: Hold, user_id: UserId, work: Work) -> Hold:
    if known.is_barred and known.user_id in {None, user_id}:
        raise InvalidState("the hold of this job has been released: use a new job id")
    if known.user_id != user_id or known.work != work:
        raise Conflict("this job id has a hold for other work")
    return known
