"""What in billing's schema leads to a person, and how it is removed.

docs/operations/privacy.md lists what is kept; a test searches every column of the schema for what
an erasure has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from billing.domain.accounts import AccountId
from billing.domain.payments import CustomerId
from billing.storage.booking import forfeit_lots
from easel_kit.db import Connection

_CUSTOMERS = "SELECT id FROM customers WHERE account_id = $1 ORDER BY created_at"

# `$1`: the account. In the order of what refers to what.
_REMOVE = (
    # the trace leads to the logs of whoever called
    "UPDATE holds SET traceparent = '' WHERE account_id = $1 AND traceparent <> ''",
    """
    UPDATE reconciliation_findings SET detail = '{}'
    WHERE reference = $1 OR reference IN (SELECT job_id FROM holds WHERE account_id = $1)
    """,
    # the customer at Stripe is deleted; its id still leads to a person in Stripe's own records
    """
    DELETE FROM reconciliation_findings
    WHERE reference IN (SELECT id FROM customers WHERE account_id = $1)
       OR detail->>'customer' IN (SELECT id FROM customers WHERE account_id = $1)
    """,
    """
    DELETE FROM webhook_inbox
    WHERE customer_id IN (SELECT id FROM customers WHERE account_id = $1)
    """,
    """
    DELETE FROM customer_leases
    WHERE customer_id IN (SELECT id FROM customers WHERE account_id = $1)
    """,
    "DELETE FROM subscriptions WHERE account_id = $1",
    "DELETE FROM customers WHERE account_id = $1",
    # of whom the scheduler would have to be told by name
    "DELETE FROM entitlements_outbox WHERE account_id = $1",
    "DELETE FROM account_pii WHERE account_id = $1",
)


async def customers_of(lent: Connection, account_id: AccountId) -> Sequence[CustomerId]:
    """The account's customers at Stripe that are still known here."""
    return [CustomerId(row["id"]) for row in await lent.fetch(_CUSTOMERS, account_id)]


async def remove_personal(lent: Connection, account_id: AccountId, now: datetime) -> None:
    """Removes everything that leads from an account to a person, in a transaction of the caller.

    What is left of the account's credits is booked off: nobody can spend them any more.
    """
    await forfeit_lots(lent, account_id, now)
    for statement in _REMOVE:
        await lent.execute(statement, account_id)
