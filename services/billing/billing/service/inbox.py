"""Answering webhooks: each event makes its customer be looked at again, and no more than that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from billing.domain.inbox import CustomerLease, RetryPolicy
from billing.domain.payments import CustomerId
from billing.ports.inbox import CustomerSync, Inbox
from easel_kit.clock import Clock
from easel_kit.errors import DomainError, NotFound

# Of a lease; the rest is for writing down how the look ended.
_LOOK_SHARE = 0.8


class Answer(StrEnum):
    """What became of a customer's events."""

    APPLIED = "applied"
    IGNORED = "ignored"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a customer. `events` is how many were answered by it, `dead` how many gave up."""

    customer_id: CustomerId
    answer: Answer
    events: int
    dead: int = 0
    error: Exception | None = None


class InboxWorker:
    """Takes one customer after the other; any number of them work side by side.

    While Stripe is asked no transaction is open. One look answers all events of the customer that
    were kept before it began: each only says that there is something newer to see, and the look
    sees all of it. What comes during the look has the next one.
    """

    def __init__(
        self,
        inbox: Inbox,
        customers: CustomerSync,
        clock: Clock,
        policy: RetryPolicy,
        *,
        lease: timedelta,
        chance: Callable[[], float],
    ) -> None:
        """`lease` is how long one look may take; `chance` draws from [0, 1)."""
        self._inbox = inbox
        self._customers = customers
        self._clock = clock
        self._policy = policy
        self._lease = lease
        self._chance = chance

    async def take(self, owner: str) -> CustomerLease | None:
        """Leases the customer who waits longest; None when nothing is due.

        Raises:
            DependencyDown: the database does not answer; a lease that was taken ends by its time.
        """
        now = self._clock.now()
        return await self._inbox.lease(owner, now, now + self._lease, self._policy.max_attempts)

    async def answer(self, lease: CustomerLease) -> Look:
        """Looks at the customer once and ends the lease.

        Raises:
            DependencyDown: the database does not answer; the lease ends by its time.
        """
        try:
            async with asyncio.timeout(self._lease.total_seconds() * _LOOK_SHARE):
                await self._customers.sync(lease.customer_id)
        except NotFound as error:
            return await self._ignored(lease, error)
        except Exception as error:  # noqa: BLE001 (whatever it is, the events are tried again)
            return await self._failed(lease, error)
        except BaseException:
            await self._inbox.hand_back(lease, self._clock.now())
            raise
        answered = await self._inbox.applied(lease, self._clock.now())
        if answered is None:
            return Look(lease.customer_id, Answer.LOST, 0)
        return Look(lease.customer_id, Answer.APPLIED, answered)

    async def kept(self, *, within_s: float) -> None:
        """Returns when there may be work, or after the time."""
        await self._inbox.kept(within_s=within_s)

    async def _ignored(self, lease: CustomerLease, error: NotFound) -> Look:
        if not await self._inbox.ignored(lease, str(error), self._clock.now()):
            return Look(lease.customer_id, Answer.LOST, 0)
        return Look(lease.customer_id, Answer.IGNORED, len(lease.events))

    async def _failed(self, lease: CustomerLease, error: Exception) -> Look:
        now, chance = self._clock.now(), self._chance()
        tries = {
            event_id: self._policy.retry_at(now, attempts, chance)
            for event_id, attempts in lease.events.items()
        }
        if not await self._inbox.failed(lease, _text(error), tries, now):
            return Look(lease.customer_id, Answer.LOST, 0, error=error)
        dead = sum(retry_at is None for retry_at in tries.values())
        return Look(lease.customer_id, Answer.FAILED, len(tries), dead, error)


def _text(error: Exception) -> str:
    """Our own errors say what happened; the text of others may carry anything."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, DomainError) else name
