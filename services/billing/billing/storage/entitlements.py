"""The outbox of entitlements: accounts whose change of plan the scheduler may not have heard of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from billing.domain.accounts import AccountId, EntitlementsChange
from billing.storage.plans import PostgresPlans
from easel_kit.db import Connection, Pool, connection
from easel_kit.ids import UserId

_NOTE = """
INSERT INTO entitlements_outbox (account_id, version, changed_at) VALUES ($1, $2, $3)
ON CONFLICT (account_id) DO UPDATE
SET version = excluded.version, changed_at = excluded.changed_at
WHERE entitlements_outbox.version < excluded.version
"""

_DROP_ERASED = """
DELETE FROM entitlements_outbox o
WHERE NOT EXISTS (SELECT FROM account_pii p WHERE p.account_id = o.account_id)
"""

_PENDING = """
SELECT o.account_id, p.user_id, a.entitlements_version, a.plan_key, a.plan_version
FROM entitlements_outbox o
JOIN accounts a ON a.id = o.account_id
JOIN account_pii p ON p.account_id = o.account_id
WHERE o.account_id > $1
ORDER BY o.account_id LIMIT $2
"""

_REMOVE = "DELETE FROM entitlements_outbox WHERE account_id = $1 AND version = $2"


async def note_change(lent: Connection, account_id: AccountId, version: int, now: datetime) -> None:
    """Writes down, in the transaction of the change, that an account's entitlements are new."""
    await lent.execute(_NOTE, account_id, version, now)


class PostgresEntitlements:
    """The port `EntitlementsOutbox`."""

    def __init__(self, pool: Pool, plans: PostgresPlans) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool
        self._plans = plans

    async def pending(self, after: AccountId | None, limit: int) -> Sequence[EntitlementsChange]:
        """By account id, those after one; as they hold now. Changes of erased users are dropped."""
        async with connection(self._pool) as lent:
            if after is None:
                await lent.execute(_DROP_ERASED)
            rows = await lent.fetch(_PENDING, after or "", limit)
        return [
            EntitlementsChange(
                AccountId(row["account_id"]),
                UserId(row["user_id"]),
                row["entitlements_version"],
                await self._plans.get(row["plan_key"], row["plan_version"]),
            )
            for row in rows
        ]

    async def remove(self, change: EntitlementsChange) -> None:
        """Forgets a change that was heard, unless there is a newer one by now."""
        async with connection(self._pool) as lent:
            await lent.execute(_REMOVE, change.account_id, change.version)
