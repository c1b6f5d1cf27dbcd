"""The outbox of entitlements: accounts whose change of plan the scheduler may not have heard of."""

from __future__ import annotations

from datetime import datetime

from billing.domain.accounts import AccountId
from easel_kit.db import Connection

_NOTE = """
INSERT INTO entitlements_outbox (account_id, version, changed_at) VALUES ($1, $2, $3)
ON CONFLICT (account_id) DO UPDATE
SET version = excluded.version, changed_at = excluded.changed_at
WHERE entitlements_outbox.version < excluded.version
"""


async def note_change(lent: Connection, account_id: AccountId, version: int, now: datetime) -> None:
    """Writes down, in the transaction of the change, that an account's entitlements are new."""
    await lent.execute(_NOTE, account_id, version, now)
