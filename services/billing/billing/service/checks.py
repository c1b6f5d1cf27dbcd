"""What reconciliation compares.

Holds with jobs, the inbox with the clock, customers with Stripe, entries with balances.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime, timedelta

from billing.domain.feed import Finding, Outcome
from billing.domain.holds import Hold
from billing.domain.inbox import EventState, KeptEvent
from billing.domain.payments import CustomerId
from billing.domain.reconciliation import Span, found
from billing.ports.inbox import CustomerSync, Inbox
from billing.ports.payments import Payments
from billing.ports.reconciliation import Invariants, OpenHolds
from billing.service.follower import JobFollower
from easel_kit.errors import DeadlineExceeded, DependencyDown, NotFound
from easel_kit.ids import JobId

_BATCH = 100
# A submit that is on its way to the scheduler is long over by then.
_LONG_OPEN = timedelta(hours=1)
_STUCK = timedelta(hours=1)
# Looks so much further back than the last run: Stripe lists its events a little later.
_OVERLAP = timedelta(hours=1)
_AWAY = (DependencyDown, DeadlineExceeded)


class HoldsCheck:
    """Holds that are open for long, against their jobs."""

    name = "holds"

    def __init__(self, holds: OpenHolds, follower: JobFollower) -> None:
        """`follower` settles them as it settles expired ones."""
        self._holds = holds
        self._follower = follower

    async def run(self, span: Span) -> AsyncIterator[Finding]:
        """Holds whose job had ended unnoticed, and those that cannot be settled."""
        after: JobId | None = None
        before = span.now - _LONG_OPEN
        while holds := await self._holds.open_holds(before, after, _BATCH):
            for hold in holds:
                finding = await self._ask(hold)
                if finding is not None:
                    yield finding
            after = holds[-1].job_id

    async def _ask(self, hold: Hold) -> Finding | None:
        try:
            outcome = (await self._follower.resolve(hold)).outcome
        except _AWAY:
            raise
        except Exception as error:  # noqa: BLE001 (it stays as it is, and a person should see it)
            return found("hold_stuck", hold.job_id, type(error).__name__, "left as it is")
        if outcome in {Outcome.CAPTURED, Outcome.RELEASED}:
            return found("hold_overlooked", hold.job_id, "open after its job's end", outcome.value)
        return None


class InboxCheck:
    """Webhooks that nobody answers."""

    name = "inbox"

    def __init__(self, inbox: Inbox, customers: CustomerSync, *, keep: timedelta) -> None:
        """`customers` brings a customer up to date; answered events are forgotten after `keep`."""
        self._inbox = inbox
        self._customers = customers
        self._keep = keep

    async def run(self, span: Span) -> AsyncIterator[Finding]:
        """Dead events, which wait for a person, and open ones that are old."""
        looked: dict[CustomerId | None, str] = {}
        for event in await self._inbox.stuck(span.now - _STUCK, _BATCH):
            if event.state is EventState.DEAD:
                yield found("webhook_dead", event.event_id, event.error, "waits for a replay")
                continue
            if event.customer_id not in looked:
                looked[event.customer_id] = await self._look(event)
            done = looked[event.customer_id]
            yield found("webhook_stuck", event.event_id, f"{event.state.value} for long", done)
        await self._inbox.prune(span.now - self._keep)

    async def _look(self, event: KeptEvent) -> str:
        if event.customer_id is None:
            return "nothing"
        try:
            await self._customers.sync(event.customer_id)
        except _AWAY:
            raise
        except Exception as error:  # noqa: BLE001 (a person should see it)
            return f"looked at the customer: {type(error).__name__}"
        return "looked at the customer"


class CustomersCheck:
    """Customers as they are at Stripe, against what is here."""

    def __init__(
        self,
        payments: Payments,
        customers: CustomerSync,
        inbox: Inbox,
        *,
        everyone: bool,
        settle_s: float,
    ) -> None:
        """Looks at `everyone`, or at those with an event since the last run.

        A change that is seen here first has `settle_s` seconds for its webhook to come after all.
        """
        self._payments = payments
        self._customers = customers
        self._inbox = inbox
        self._everyone = everyone
        self._settle_s = settle_s

    @property
    def name(self) -> str:
        """For logs."""
        return "customers" if self._everyone else "changed_customers"

    async def run(self, span: Span) -> AsyncIterator[Finding]:
        """Customers whose change no webhook has told of, and those that nobody here knows."""
        repaired: list[CustomerId] = []
        since = None if self._everyone else span.since - _OVERLAP
        async for customer_id in self._payments.customers(changed_since=since):
            try:
                if await self._customers.sync(customer_id):
                    repaired.append(customer_id)
            except NotFound:
                yield found("customer_unknown", customer_id, "has an account id of none here", "")
            except _AWAY:
                raise
            except Exception as error:  # noqa: BLE001 (the others have their turn)
                yield found("customer_failed", customer_id, type(error).__name__, "left as it is")
        async for finding in self._unheard(repaired, span.now):
            yield finding

    async def _unheard(
        self, repaired: list[CustomerId], since: datetime
    ) -> AsyncGenerator[Finding, None]:
        if repaired:
            await asyncio.sleep(self._settle_s)
        kind = "drift_repaired" if self._everyone else "webhook_missed"
        for customer_id in repaired:
            if not await self._inbox.has_heard(customer_id, since):
                reference = f"{customer_id}/{since.isoformat(timespec='seconds')}"
                yield found(kind, reference, "differed from Stripe", "brought up to date")


class BooksCheck:
    """Entries against balances, lots and holds."""

    name = "books"

    def __init__(self, invariants: Invariants) -> None:
        """`invariants` are the ledger's."""
        self._invariants = invariants

    async def run(self, span: Span) -> AsyncIterator[Finding]:
        """Each breach; nothing here repairs a ledger."""
        del span
        for breach in await self._invariants.run():
            reference = f"{breach.invariant}: {breach.reference}"
            yield found("ledger_breach", reference, breach.invariant, "left as it is")
