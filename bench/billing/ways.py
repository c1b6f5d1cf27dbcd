"""Ways to reserve credits on one account: ours, and the same behind SELECT FOR UPDATE.

`hold` is all that billing writes for a hold; `statement` is the change of the balance alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta

from billing.domain.accounts import Account, period_at
from billing.domain.holds import HoldOrder
from billing.domain.plans import Catalogue
from billing.domain.pricing import Work
from billing.storage.accounts import PostgresAccounts
from billing.storage.holds import PostgresHolds, reserve_price
from billing.storage.plans import PostgresPlans, read_plan_book
from easel_kit.clock import SystemClock
from easel_kit.db import Pool, connection, transaction
from easel_kit.errors import InsufficientCredits
from easel_kit.ids import ModelKey, UserId, new_hold_id, new_id, new_job_id

_WORK = Work(ModelKey("shapes-64"), 64, 64, 10, 1)

_TABLE = """
CREATE TABLE IF NOT EXISTS bare_balances (
    id text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0), held bigint NOT NULL
) WITH (fillfactor = 50)
"""
_OPEN = "INSERT INTO bare_balances VALUES ($1, $2, 0)"
_LOCK_BARE = "SELECT available FROM bare_balances WHERE id = $1 FOR UPDATE"
_LOCK_ACCOUNT = "SELECT available FROM credit_accounts WHERE account_id = $1 FOR UPDATE"
_TAKE = """
UPDATE bare_balances SET available = available - $2, held = held + $2
WHERE id = $1 AND available >= $2 RETURNING true
"""
_BARE = "SELECT available, held FROM bare_balances WHERE id = $1"
_BALANCE = "SELECT available, held FROM credit_accounts WHERE account_id = $1"


class Way(ABC):
    """One way; each turn has a fresh account."""

    name: str

    def __init__(self, pool: Pool) -> None:
        """`pool` sees a migrated billing schema."""
        self.pool = pool

    @abstractmethod
    async def open(self) -> int:
        """A fresh account; answers what is available on it, in millicredits."""

    @abstractmethod
    async def reserve(self, millicredits: int) -> bool:
        """Reserves an amount; False where too little is available."""

    @abstractmethod
    async def balance(self) -> tuple[int, int]:
        """Available and held."""


class Statement(Way):
    """One conditional UPDATE."""

    name = "statement"
    _account_id = ""

    async def open(self) -> int:
        """A fresh account."""
        self._account_id = new_id("acc")
        async with connection(self.pool) as lent:
            await lent.execute(_TABLE)
            await lent.execute(_OPEN, self._account_id, GRANT)
        return GRANT

    async def reserve(self, millicredits: int) -> bool:
        """One hold."""
        async with connection(self.pool) as lent:
            return bool(await lent.fetchval(_TAKE, self._account_id, millicredits))

    async def balance(self) -> tuple[int, int]:
        """Available and held."""
        async with connection(self.pool) as lent:
            row = await lent.fetchrow(_BARE, self._account_id)
        assert row is not None  # noqa: S101 (it was opened)
        return row["available"], row["held"]


class LockedStatement(Statement):
    """SELECT FOR UPDATE, a look at the balance, UPDATE, COMMIT."""

    name = "statement, FOR UPDATE"

    async def reserve(self, millicredits: int) -> bool:
        """One hold."""
        async with transaction(self.pool) as lent:
            available = await lent.fetchval(_LOCK_BARE, self._account_id)
            if available < millicredits:
                return False
            return bool(await lent.fetchval(_TAKE, self._account_id, millicredits))


class Hold(Way):
    """A hold as billing places it: its row, the balance, a ledger line, entries, lots."""

    name = "hold"
    _account: Account
    _catalogue: Catalogue | None = None

    async def open(self) -> int:
        """A fresh account."""
        clock, plans = SystemClock(), PostgresPlans(self.pool)
        now = clock.now()
        if self._catalogue is None:
            self._catalogue = await plans.publish(read_plan_book(None), now)
        accounts, user_id = PostgresAccounts(self.pool, plans), UserId(new_id("bench"))
        plan = self._catalogue.get("free")
        await accounts.open(user_id, plan, period_at(now, now), now)
        account = await accounts.find(user_id, now)
        assert account is not None  # noqa: S101 (it was opened)
        self._account = account
        return account.balance.available

    def order(self, millicredits: int) -> HoldOrder:
        """A hold for a new job."""
        now, plan = SystemClock().now(), self._account.plan
        return HoldOrder(
            id=new_hold_id(),
            job_id=new_job_id(),
            account_id=self._account.id,
            user_id=self._account.user_id,
            work=_WORK,
            millicredits=millicredits,
            plan_key=plan.key,
            plan_version=plan.version,
            traceparent="",
            placed_at=now,
            expires_at=now + timedelta(minutes=15),
        )

    async def reserve(self, millicredits: int) -> bool:
        """One hold."""
        try:
            await PostgresHolds(self.pool).place([self.order(millicredits)])
        except InsufficientCredits:
            return False
        return True

    async def balance(self) -> tuple[int, int]:
        """Available and held."""
        async with connection(self.pool) as lent:
            row = await lent.fetchrow(_BALANCE, self._account.id)
        assert row is not None  # noqa: S101 (it was opened)
        return row["available"], row["held"]


class LockedHold(Hold):
    """SELECT FOR UPDATE and a look at the balance, then the same writes."""

    name = "hold, FOR UPDATE"

    async def reserve(self, millicredits: int) -> bool:
        """One hold."""
        order = self.order(millicredits)
        async with transaction(self.pool) as lent:
            available = await lent.fetchval(_LOCK_ACCOUNT, order.account_id)
            if available < millicredits:
                return False
            await reserve_price(lent, order, [order], 0)
        return True


GRANT = read_plan_book(None).plans[0].monthly_millicredits
"""Of a fresh account."""
WAYS: tuple[type[Way], ...] = (Hold, LockedHold, Statement, LockedStatement)
