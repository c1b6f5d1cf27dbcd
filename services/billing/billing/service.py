"""Billing's use cases: accounts and holds for callers, and ending each hold as its job ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from billing.domain.accounts import Account, period_at
from billing.domain.feed import Applied, Finding, JobEvent, Outcome, applied
from billing.domain.holds import Extension, Hold, HoldOrder, Settlement, effect_of
from billing.domain.ledger import Line
from billing.domain.plans import Catalogue, PlanVersion
from billing.domain.pricing import Work
from billing.ports import Accounts, EventFeed, Feed, Holds, JobResolver, Ledger
from easel_kit.clock import Clock
from easel_kit.errors import (
    Conflict,
    DomainError,
    Forbidden,
    Internal,
    InvalidState,
    NotFound,
)
from easel_kit.ids import JobId, UserId, new_hold_id


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

    async def account(self, user_id: UserId) -> Account:
        """The user's account, opened on the default plan when the user is new, renewed when due."""
        now = self._clock.now()
        account = await self._accounts.find(user_id, now)
        if account is None:
            plan = self._catalogue.default
            await self._accounts.open(user_id, plan, period_at(now, now), now)
            account = await self._existing(user_id, now)
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
            Forbidden: the work is beyond the user's plan.
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

    async def change_plan(self, user_id: UserId, plan_key: str) -> Account:
        """Moves the user to a plan now; does nothing for a user who is on it.

        Raises:
            NotFound: no such plan is on offer.
        """
        plan = self._catalogue.get(plan_key)
        account = await self.account(user_id)
        if account.plan.key == plan_key:
            return account
        now = self._clock.now()
        await self._accounts.change_plan(account.id, plan, now)
        return await self._existing(user_id, now)

    async def due(self, limit: int) -> Sequence[Account]:
        """Accounts whose period is over or that hold expired credits."""
        return await self._accounts.due(self._clock.now(), limit)

    async def renew(self, account: Account) -> None:
        """Brings an account into the current period: expired credits off, the plan's grant on."""
        now = self._clock.now()
        plan, period = account.plan, account.period
        if now >= period.end:
            plan = self._catalogue.successor(plan)
            period = period_at(account.opened_at, now)
        await self._accounts.renew(account, plan, period, now)

    async def _existing(self, user_id: UserId, now: datetime) -> Account:
        account = await self._accounts.find(user_id, now)
        if account is None:
            raise Internal("an account has vanished")
        return account


class JobFollower:
    """Ends each hold as its job ends: by the scheduler's feed, or by asking when a hold expires."""

    def __init__(
        self,
        holds: Holds,
        feed: Feed,
        events: EventFeed,
        resolver: JobResolver,
        clock: Clock,
        *,
        hold_ttl: timedelta,
    ) -> None:
        """`hold_ttl` is how long a hold stands on after a sign of life of its job."""
        self._holds = holds
        self._feed = feed
        self._events = events
        self._resolver = resolver
        self._clock = clock
        self._hold_ttl = hold_ttl

    async def events(self) -> AsyncGenerator[JobEvent, None]:
        """Events that are not applied yet, one by one.

        Raises:
            OutOfRange: some are lost; `restart`, then read again.
            DependencyDown: the scheduler is away.
        """
        async for batch in self._events.subscribe(await self._feed.cursor()):
            for event in batch:
                yield event

    async def apply(self, event: JobEvent) -> Applied:
        """The event's effect and the cursor in one transaction; a repeated event has none.

        What cannot be applied becomes a finding and the cursor moves on.
        """
        now = self._clock.now()
        return await self._feed.apply(event, now, now + self._hold_ttl)

    async def restart(self) -> Finding:
        """Records that events after the cursor are lost, and begins with the first again.

        Events that were applied before change nothing; holds whose events are lost end by expiry.
        """
        cursor = await self._feed.cursor()
        finding = Finding(
            "feed_gap", f"{cursor.generation}/{cursor.transaction_id}/{cursor.sequence}", {}
        )
        await self._feed.restart(finding, self._clock.now())
        return finding

    async def expired(self, limit: int) -> Sequence[Hold]:
        """Open holds whose time is over."""
        return await self._holds.expired(self._clock.now(), limit)

    async def resolve(self, hold: Hold) -> Applied:
        """Asks about the job of an expired hold: alive, the hold stays; ended, it is settled.

        A job that the scheduler does not know is refused by it from now on, so the hold is freed.

        Raises:
            DependencyDown: the scheduler is away; the hold stays as it is.
            DeadlineExceeded: as DependencyDown.
        """
        effect = effect_of(await self._resolver.resolve(hold.job_id))
        now = self._clock.now()
        if isinstance(effect, Extension):
            await self._holds.extend(hold.job_id, now + self._hold_ttl)
            return Applied(Outcome.EXTENDED, hold)
        return applied(await self._holds.settle(hold.job_id, effect, now))


def _same(known: Hold, user_id: UserId, work: Work) -> Hold:
    if known.is_barred and known.user_id in {None, user_id}:
        raise InvalidState("the hold of this job has been released: use a new job id")
    if known.user_id != user_id or known.work != work:
        raise Conflict("this job id has a hold for other work")
    return known
