"""A storm of webhooks: shuffled, repeated, answered by many workers whose looks fail at times."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.domain.accounts import AccountId, period_at
from billing.domain.holds import HoldOrder, Settlement
from billing.domain.inbox import RetryPolicy
from billing.domain.payments import CustomerId, Notice
from billing.domain.pricing import Work
from billing.ports.inbox import CustomerSync as Sync
from billing.service.inbox import InboxWorker
from billing.service.notices import Notices
from billing.service.sync import CustomerSync
from billing.storage.accounts import PostgresAccounts
from billing.storage.holds import PostgresHolds
from billing.storage.inbox import PostgresInbox
from billing.storage.payments import PostgresCustomers
from billing.storage.plans import PostgresPlans, read_plan_book
from easel_kit.db import Pool
from easel_kit.errors import DependencyDown
from easel_kit.ids import HoldId, JobId, ModelKey, UserId, new_id
from tests.fakes.billing import MovableClock
from tests.fakes.billing_world import BEGIN, World

WORKERS = 16
_TWICE = 0.2
_FAILING = 0.05
_WAITING, _AT_ONCE = 60, 20
"""Events on their way, out of which the next deliveries are drawn, and how many come at once."""

# What must be the same whatever came in which order. Left out: random ids, times of day of our own,
# and counts of how often somebody looked.
_STATE = {
    "accounts": """
        SELECT c.id, a.plan_key, a.plan_version, a.plan_source, a.period_start, a.period_end,
               b.available, b.held, b.debt
        FROM customers c JOIN accounts a ON a.id = c.account_id
        JOIN credit_accounts b ON b.account_id = a.id
    """,
    "subscriptions": """
        SELECT id, customer_id, status, is_deciding, plan_key, plan_version, period_start,
               period_end, cancel_at_period_end
        FROM subscriptions
    """,
    "lots": """
        SELECT c.id, l.source, replace(l.source_ref, l.account_id, ''), l.payment, l.granted,
               l.remaining, l.held, l.expired, l.clawed, l.repaid, l.expires_at
        FROM credit_lots l JOIN customers c ON c.account_id = l.account_id
    """,
    "clawbacks": """
        SELECT c.id, w.reference, w.payment, w.asked, w.lapsed, w.taken, w.owed
        FROM clawbacks w JOIN customers c ON c.account_id = w.account_id
    """,
    "ledger": """
        SELECT c.id, t.sequence, t.kind, t.reference, t.description, t.available_change,
               t.available_after
        FROM transfers t JOIN customers c ON c.account_id = t.account_id
    """,
    "entries": """
        SELECT c.id, t.sequence, e.book, e.millicredits
        FROM entries e JOIN transfers t ON t.id = e.transfer_id
        JOIN customers c ON c.account_id = t.account_id
    """,
}

_GRANTS = """
SELECT c.id, l.source, replace(l.source_ref, l.account_id, ''), l.granted
FROM credit_lots l JOIN customers c ON c.account_id = l.account_id
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a storm left behind, and how it went."""

    state: dict[str, str]
    """A hash of each table."""
    grants: frozenset[tuple[str, str, str, int]]
    webhooks: int
    deliveries: int
    looks: int
    failures: int

    @property
    def figures(self) -> str:
        """On one line."""
        whole = hashlib.sha256("".join(self.state.values()).encode()).hexdigest()
        return (
            f"{self.webhooks} webhooks in {self.deliveries} deliveries, {self.looks} looks, "
            f"{self.failures} of them failed: {len(self.grants)} grants, state {whole[:16]}"
        )


class Shaky:
    """A look that fails before it began, or after it was applied."""

    def __init__(self, sync: Sync, chance: random.Random) -> None:
        self._sync = sync
        self._chance = chance
        self.failures = 0

    async def sync(self, customer_id: CustomerId) -> bool:
        fate = self._chance.random()
        if fate < _FAILING / 2:
            self.failures += 1
            raise DependencyDown("before the look")
        changed = await self._sync.sync(customer_id)
        if fate < _FAILING:
            self.failures += 1
            raise ConnectionResetError("after the look")
        return changed


@dataclass(frozen=True, slots=True)
class _Believing:
    """The port `WebhookVerifier`: signatures have tests of their own."""

    notice: Notice

    def verify(self, payload: bytes, signature: str, now: datetime) -> Notice:
        del payload, signature, now
        return self.notice


class Storm:
    """One world, one database, one order of deliveries."""

    def __init__(self, pool: Pool, world_seed: int, seed: int, customers: int) -> None:
        self.pool = pool
        self.clock = MovableClock(BEGIN)
        self.world = World(world_seed, customers)
        self.inbox = PostgresInbox(pool)
        self.customers = PostgresCustomers(pool)
        self._chance = random.Random(f"{seed}/storm")
        delays = random.Random(f"{seed}/delays")
        self.world.delay = lambda: delays.random() * 0.003
        self._plans = PostgresPlans(pool)
        self._deliveries = 0

    async def prepare(self) -> Sync:
        """Accounts with customers; answers the real handler over the world."""
        catalogue = await self._plans.publish(read_plan_book(None), BEGIN)
        accounts = PostgresAccounts(self.pool, self._plans)
        for customer_id in self.world.customer_ids:
            user_id = UserId(f"user-{customer_id}")
            await accounts.open(user_id, catalogue.default, period_at(BEGIN, BEGIN), BEGIN)
            account = await accounts.find(user_id, BEGIN)
            assert account is not None
            await self.customers.add(account.id, customer_id, BEGIN)
        return CustomerSync(
            self.world,  # type: ignore[arg-type] # of the whole port a look needs the snapshot
            self.customers,
            self._plans,
            catalogue,
            self.clock,
            credit_grace=timedelta(days=1),
        )

    async def rage(self, webhooks: int, sync: Sync) -> Outcome:
        """Lives on for so many webhooks and answers them; half-way everyone spends."""
        shaky = Shaky(sync, self._chance)
        seen = 0
        for part in (webhooks // 2, webhooks):
            seen = await self._part(seen, part, shaky)
            if part != webhooks:
                await self._spend()
        return Outcome(
            {name: await self._hash(statement) for name, statement in _STATE.items()},
            frozenset(tuple(row) for row in await self.pool.fetch(_GRANTS)),
            seen,
            self._deliveries,
            self.world.looks,
            shaky.failures,
        )

    async def _part(self, seen: int, until: int, sync: Sync) -> int:
        """Deliveries and workers side by side, until all is answered."""
        delivered = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                tasks.create_task(self._work(f"worker-{number}", sync, delivered))
            waiting: list[Notice] = []
            while seen < until or waiting:
                if seen < until:
                    fresh = self.world.live_on()
                    seen += len(fresh)
                    waiting += fresh
                    waiting += [one for one in fresh if self._chance.random() < _TWICE]
                while len(waiting) > (_WAITING if seen < until else 0):
                    self._chance.shuffle(waiting)
                    now, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
                    await asyncio.gather(*map(self.deliver, now))
            delivered.set()
        return seen

    async def deliver(self, notice: Notice) -> None:
        """A webhook comes in."""
        self._deliveries += 1
        door = Notices(
            _Believing(notice),
            self.inbox,
            self.customers,
            self.world,  # type: ignore[arg-type] # as above
            self.clock,
        )
        await door.ingest(b"", "")

    async def _work(self, owner: str, sync: Sync, delivered: asyncio.Event) -> None:
        worker = InboxWorker(
            self.inbox,
            sync,
            self.clock,
            RetryPolicy(100, timedelta(0), timedelta(0)),
            lease=timedelta(minutes=1),
            chance=self._chance.random,
        )
        while True:
            lease = await worker.take(owner)
            if lease is not None:
                await worker.answer(lease)
            elif delivered.is_set() and not await self._is_open():
                return
            else:
                await worker.kept(within_s=0.2)

    async def _is_open(self) -> bool:
        return (await self.inbox.figures()).oldest_open_at is not None

    async def _spend(self) -> None:
        """Nine tenths of everyone's credits, so that what comes back later becomes debt."""
        holds = PostgresHolds(self.pool)
        rows = await self.pool.fetch("""
            SELECT c.id, a.id AS account_id, a.plan_key, a.plan_version, b.available
            FROM customers c JOIN accounts a ON a.id = c.account_id
            JOIN credit_accounts b ON b.account_id = a.id WHERE b.available >= 10 ORDER BY c.id
        """)
        for row in rows:
            job_id = JobId(f"job-of-{row['id']}")
            order = HoldOrder(
                id=HoldId(new_id("hold")),
                job_id=job_id,
                account_id=AccountId(row["account_id"]),
                user_id=UserId(f"user-{row['id']}"),
                work=Work(ModelKey("shapes-64"), 64, 64, 10, 1, 0),
                millicredits=row["available"] * 9 // 10,
                plan_key=row["plan_key"],
                plan_version=row["plan_version"],
                traceparent="",
                placed_at=BEGIN,
                expires_at=BEGIN + timedelta(days=1),
            )
            await holds.place([order])
            await holds.settle(job_id, Settlement(1, 1, "finished"), BEGIN)

    async def _hash(self, statement: str) -> str:
        rows = sorted(
            json.dumps([str(value) for value in row]) for row in await self._rows(statement)
        )
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    async def _rows(self, statement: str) -> Sequence[Sequence[object]]:
        return [list(row) for row in await self.pool.fetch(statement)]
