"""The webhook inbox: events once, and one lease a customer.

Order of locks: the customer's lease, then its events. No transaction outlives a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from billing.domain.audit import Action, Actor
from billing.domain.inbox import (
    CustomerLease,
    EventState,
    InboxFigures,
    KeptEvent,
    error_text,
    first_state,
)
from billing.domain.payments import CustomerId, Notice
from billing.storage.audit import record_of
from billing.storage.bell import Bell
from easel_kit.audit import Detail
from easel_kit.db import Connection, Pool, connection, transaction

_COLUMNS = """
event_id, type, customer_id, created_at, received_at, state, attempts, next_try_at, error
"""

_KEEP = """
WITH customer AS (
    INSERT INTO customer_leases (customer_id) SELECT $3::text WHERE $3::text IS NOT NULL
    ON CONFLICT (customer_id) DO NOTHING
)
INSERT INTO webhook_inbox (event_id, type, customer_id, created_at, received_at, state,
                           next_try_at, ended_at)
VALUES ($1, $2, $3, $4, $5, $6,
        CASE $6::text WHEN 'pending' THEN $5::timestamptz END,
        CASE $6::text WHEN 'ignored' THEN $5::timestamptz END)
ON CONFLICT (event_id) DO NOTHING
RETURNING true
"""

_IS_DUE = """
state IN ('pending', 'retry', 'leased') AND coalesce(i.lease_until, i.next_try_at) <= $1
"""

# The one lock: whoever else looks for work passes over a customer that is being leased.
_CHOOSE = f"""
SELECT c.customer_id FROM webhook_inbox i JOIN customer_leases c ON c.customer_id = i.customer_id
WHERE {_IS_DUE} AND (c.lease_until IS NULL OR c.lease_until <= $1)
ORDER BY coalesce(i.lease_until, i.next_try_at), i.event_id
LIMIT 1
FOR UPDATE OF c SKIP LOCKED
"""  # noqa: S608 (only our own text is put in)

_BURY = """
UPDATE webhook_inbox
SET state = 'dead', error = 'each worker that tried was lost', ended_at = $1,
    lease_owner = NULL, lease_until = NULL, lease_version = NULL
WHERE customer_id = $2 AND state = 'leased' AND lease_until <= $1 AND attempts >= $3
"""

_TAKE = f"""
WITH customer AS (
    UPDATE customer_leases SET lease_owner = $3, lease_until = $4, version = version + 1
    WHERE customer_id = $2
      AND EXISTS (SELECT FROM webhook_inbox i WHERE i.customer_id = $2 AND {_IS_DUE})
    RETURNING version
)
UPDATE webhook_inbox i
SET state = 'leased', attempts = i.attempts + 1, next_try_at = NULL,
    lease_owner = $3, lease_until = $4, lease_version = customer.version
FROM customer WHERE i.customer_id = $2 AND {_IS_DUE}
RETURNING i.event_id, i.attempts, i.lease_version
"""  # noqa: S608 (only our own text is put in)

_RELEASE = """
UPDATE customer_leases SET lease_owner = NULL, lease_until = NULL
WHERE customer_id = $1 AND version = $2 AND lease_owner = $3
RETURNING true
"""

# An event that waits for another try was kept before this lease began, too: no other has run since.
_END = """
UPDATE webhook_inbox
SET state = $3, error = $4, ended_at = $5, next_try_at = NULL,
    lease_owner = NULL, lease_until = NULL, lease_version = NULL
WHERE customer_id = $1 AND ((state = 'leased' AND lease_version = $2) OR state = 'retry')
"""

_FAIL = """
UPDATE webhook_inbox i
SET state = CASE WHEN t.retry_at IS NULL THEN 'dead' ELSE 'retry' END,
    error = $3, next_try_at = t.retry_at,
    ended_at = CASE WHEN t.retry_at IS NULL THEN $4::timestamptz END,
    lease_owner = NULL, lease_until = NULL, lease_version = NULL
FROM unnest($5::text[], $6::timestamptz[]) AS t (event_id, retry_at)
WHERE i.event_id = t.event_id AND i.customer_id = $1
  AND i.state = 'leased' AND i.lease_version = $2
"""

_HAND_BACK = """
UPDATE webhook_inbox
SET state = CASE WHEN attempts > 1 THEN 'retry' ELSE 'pending' END,
    error = CASE WHEN attempts > 1 THEN 'handed back' ELSE '' END,
    attempts = attempts - 1, next_try_at = $3,
    lease_owner = NULL, lease_until = NULL, lease_version = NULL
WHERE customer_id = $1 AND state = 'leased' AND lease_version = $2
"""

_LIST = f"""
SELECT {_COLUMNS} FROM webhook_inbox WHERE $1::text IS NULL OR state = $1
ORDER BY received_at DESC, event_id DESC LIMIT $2
"""  # noqa: S608 (as above)

_REPLAY = """
UPDATE webhook_inbox
SET state = 'pending', attempts = 0, error = '', next_try_at = $2, ended_at = NULL
WHERE customer_id IS NOT NULL AND CASE
    WHEN $1::text[] IS NULL THEN state = 'dead'
    ELSE event_id = ANY ($1) AND state IN ('applied', 'ignored', 'dead')
END
RETURNING event_id
"""

_COUNT = "SELECT state, count(*) FROM webhook_inbox GROUP BY state"

_OLDEST = """
SELECT min(received_at) FROM webhook_inbox WHERE state IN ('pending', 'retry', 'leased')
"""

_STUCK = f"""
SELECT {_COLUMNS} FROM webhook_inbox
WHERE state = 'dead' OR (state IN ('pending', 'retry', 'leased') AND received_at < $1)
ORDER BY received_at, event_id LIMIT $2
"""  # noqa: S608 (as above)

_HAS_HEARD = """
SELECT EXISTS (
    SELECT FROM webhook_inbox
    WHERE customer_id = $1 AND (received_at >= $2 OR state IN ('pending', 'retry', 'leased'))
)
"""

_PRUNE = "DELETE FROM webhook_inbox WHERE state IN ('applied', 'ignored') AND ended_at < $1"

_PRUNE_LEASES = """
DELETE FROM customer_leases c
WHERE lease_owner IS NULL
  AND NOT EXISTS (SELECT FROM webhook_inbox i WHERE i.customer_id = c.customer_id)
"""


class PostgresInbox:
    """The port `Inbox`."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool
        self._bell = Bell()

    async def keep(self, notice: Notice, now: datetime) -> bool:
        """Keeps an event; False when it is known already. Kept when it returns."""
        async with connection(self._pool) as lent:
            is_new = await lent.fetchval(
                _KEEP,
                notice.event_id,
                notice.type,
                notice.customer_id,
                notice.created_at,
                now,
                first_state(notice),
            )
        if is_new:
            self._bell.ring()
        return bool(is_new)

    async def kept(self, *, within_s: float) -> None:
        """Returns when this process has kept an event since the last lease, or after the time."""
        await self._bell.wait(within_s=within_s)

    async def lease(
        self, owner: str, now: datetime, until: datetime, max_attempts: int
    ) -> CustomerLease | None:
        """The customer who waits longest, with all its due events; None when nothing is due."""
        self._bell.heard()  # what was kept before is seen below
        while True:
            async with transaction(self._pool) as lent:
                customer_id = await lent.fetchval(_CHOOSE, now)
                if customer_id is None:
                    return None
                await lent.execute(_BURY, now, customer_id, max_attempts)
                rows = await lent.fetch(_TAKE, now, customer_id, owner, until)
            if rows:
                return CustomerLease(
                    CustomerId(customer_id),
                    owner,
                    rows[0]["lease_version"],
                    {row["event_id"]: row["attempts"] for row in rows},
                )

    async def applied(self, lease: CustomerLease, now: datetime) -> int | None:
        """Ends the lease and its events, and those of the customer that wait for another try."""
        return await self._end(lease, EventState.APPLIED, "", now)

    async def ignored(self, lease: CustomerLease, error: str, now: datetime) -> bool:
        """As `applied`, for a customer who is none of ours; False when the lease is lost."""
        return await self._end(lease, EventState.IGNORED, error_text(error), now) is not None

    async def failed(
        self, lease: CustomerLease, error: str, tries: Mapping[str, datetime | None], now: datetime
    ) -> bool:
        """Ends the lease; each event is due again at its time, or dead where that is None."""
        async with transaction(self._pool) as lent:
            if not await _release(lent, lease):
                return False
            await lent.execute(
                _FAIL,
                lease.customer_id,
                lease.version,
                error_text(error),
                now,
                list(tries),
                list(tries.values()),
            )
        return True

    async def hand_back(self, lease: CustomerLease, now: datetime) -> None:
        """Ends the lease without a look: its events are due at once, this try is not counted."""
        async with transaction(self._pool) as lent:
            if await _release(lent, lease):
                await lent.execute(_HAND_BACK, lease.customer_id, lease.version, now)

    async def list(self, state: EventState | None, limit: int) -> Sequence[KeptEvent]:
        """Events in a state or all, the newest first."""
        async with connection(self._pool) as lent:
            return [_event(row) for row in await lent.fetch(_LIST, state, limit)]

    async def replay(self, event_ids: Sequence[str] | None, now: datetime) -> Sequence[str]:
        """Makes events due again with all their tries; None: all dead ones. Answers which."""
        wanted = None if event_ids is None else [*event_ids]
        async with transaction(self._pool) as lent:
            rows = await lent.fetch(_REPLAY, wanted, now)
            replayed: Detail = {"events": len(rows)}
            await record_of(
                lent, "inbox", Action.EVENTS_REPLAYED, Actor.OPERATOR, now, detail=replayed
            )
        self._bell.ring()
        return [row["event_id"] for row in rows]

    async def figures(self) -> InboxFigures:
        """For metrics."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_COUNT)
            oldest = await lent.fetchval(_OLDEST)
        return InboxFigures({EventState(row["state"]): row["count"] for row in rows}, oldest)

    async def stuck(self, before: datetime, limit: int) -> Sequence[KeptEvent]:
        """Dead events, and open ones that were received before then, the oldest first."""
        async with connection(self._pool) as lent:
            return [_event(row) for row in await lent.fetch(_STUCK, before, limit)]

    async def has_heard(self, customer_id: CustomerId, since: datetime) -> bool:
        """Whether an event of the customer is open or was received since then."""
        async with connection(self._pool) as lent:
            return bool(await lent.fetchval(_HAS_HEARD, customer_id, since))

    async def prune(self, before: datetime) -> int:
        """Forgets events that were applied or ignored before then; answers how many."""
        async with connection(self._pool) as lent:
            status = str(await lent.execute(_PRUNE, before))
            await lent.execute(_PRUNE_LEASES)
        return int(status.rpartition(" ")[2])

    async def _end(
        self, lease: CustomerLease, state: EventState, error: str, now: datetime
    ) -> int | None:
        async with transaction(self._pool) as lent:
            if not await _release(lent, lease):
                return None
            status = await lent.execute(_END, lease.customer_id, lease.version, state, error, now)
        return int(str(status).rpartition(" ")[2])


async def _release(lent: Connection, lease: CustomerLease) -> bool:
    """Whether the lease was still this one's."""
    return bool(await lent.fetchval(_RELEASE, lease.customer_id, lease.version, lease.owner))


def _event(row: asyncpg.Record) -> KeptEvent:
    return KeptEvent(
        event_id=row["event_id"],
        type=row["type"],
        customer_id=None if row["customer_id"] is None else CustomerId(row["customer_id"]),
        created_at=row["created_at"],
        received_at=row["received_at"],
        state=EventState(row["state"]),
        attempts=row["attempts"],
        next_try_at=row["next_try_at"],
        error=row["error"],
    )
