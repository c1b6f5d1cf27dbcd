"""The ledger's invariants, asked of the whole database in one consistent snapshot.

Constraints keep most of them; this finds what got past them: a restored table, a hand in the
database, a fault of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from easel_kit.db import Connection, Pool, connection

# name -> statement that answers the references of everything that breaks the invariant
_INVARIANTS: dict[str, str] = {
    "transfer without entries that sum to zero": """
        SELECT t.id FROM transfers t LEFT JOIN entries e ON e.transfer_id = t.id
        GROUP BY t.id HAVING sum(e.millicredits) IS DISTINCT FROM 0
    """,
    "entry of another account than its transfer": """
        SELECT e.transfer_id FROM entries e JOIN transfers t ON t.id = e.transfer_id
        WHERE e.account_id <> t.account_id
    """,
    "transfer whose line differs from its entries": """
        SELECT t.id FROM transfers t
        LEFT JOIN entries e ON e.transfer_id = t.id AND e.book = 'available'
        WHERE t.available_change <> coalesce(e.millicredits, 0)
    """,
    "ledger lines with a gap, or that do not lead to one another": """
        SELECT id FROM (
            SELECT id, sequence, available_change, available_after,
                   lag(sequence, 1, 0::bigint) OVER w AS sequence_before,
                   lag(available_after, 1, 0::bigint) OVER w AS available_before
            FROM transfers WINDOW w AS (PARTITION BY account_id ORDER BY sequence)
        ) AS line
        WHERE sequence <> sequence_before + 1
           OR available_after <> available_before + available_change
    """,
    "ledger cut off at its end": """
        SELECT c.account_id FROM credit_accounts c
        LEFT JOIN transfers t ON t.account_id = c.account_id
        GROUP BY c.account_id, c.sequence HAVING coalesce(max(t.sequence), 0) <> c.sequence
    """,
    "balance that is negative": """
        SELECT account_id FROM credit_accounts WHERE least(available, held, debt) < 0
    """,
    "balance that differs from its entries": """
        SELECT c.account_id FROM credit_accounts c
        LEFT JOIN entries e ON e.account_id = c.account_id
        GROUP BY c.account_id, c.available, c.held, c.debt
        HAVING coalesce(sum(e.millicredits) FILTER (WHERE e.book = 'available'), 0) <> c.available
            OR coalesce(sum(e.millicredits) FILTER (WHERE e.book = 'held'), 0) <> c.held
            OR coalesce(sum(e.millicredits) FILTER (WHERE e.book = 'debt'), 0) <> -c.debt
    """,
    "balance that is available and owed at once": """
        SELECT account_id FROM credit_accounts WHERE available > 0 AND debt > 0
    """,
    "reserved balance that differs from the open holds": """
        SELECT c.account_id FROM credit_accounts c
        LEFT JOIN holds h ON h.account_id = c.account_id AND h.state = 'open'
        GROUP BY c.account_id, c.held HAVING coalesce(sum(h.millicredits), 0) <> c.held
    """,
    "lots less open holds that differ from the balance": """
        SELECT c.account_id FROM credit_accounts c
        LEFT JOIN credit_lots l ON l.account_id = c.account_id
        GROUP BY c.account_id, c.available
        HAVING coalesce(sum(l.remaining - l.held), 0) <> c.available
    """,
    "lot whose parts do not make the whole": """
        SELECT l.id FROM credit_lots l
        LEFT JOIN hold_allocations a ON a.lot_id = l.id
        LEFT JOIN holds h ON h.job_id = a.job_id
        GROUP BY l.id
        HAVING l.granted <> l.remaining + l.expired + l.clawed + l.repaid
                            + coalesce(sum(a.captured_millicredits), 0)
            OR l.held <> coalesce(sum(a.millicredits) FILTER (WHERE h.state = 'open'), 0)
    """,
    "lots that differ from the grants": """
        SELECT c.account_id FROM credit_accounts c
        WHERE (SELECT coalesce(sum(granted), 0) FROM credit_lots l
               WHERE l.account_id = c.account_id AND l.source <> 'give_back')
           <> (SELECT coalesce(-sum(millicredits), 0) FROM entries e
               WHERE e.account_id = c.account_id AND e.book = 'granted')
    """,
    "lot that was not bought and names a payment": """
        SELECT id FROM credit_lots
        WHERE payment <> '' AND source NOT IN ('invoice_line', 'checkout', 'give_back')
    """,
    "purchase that was granted twice": """
        SELECT source || '/' || source_ref FROM credit_lots
        GROUP BY source, source_ref HAVING count(*) > 1
    """,
    "purchase that differs from its ledger line": """
        SELECT coalesce(l.id, t.id)
        FROM (SELECT * FROM credit_lots WHERE source IN ('invoice_line', 'checkout')) l
        FULL JOIN (SELECT * FROM transfers WHERE kind = 'purchase') t
        ON t.account_id = l.account_id AND t.reference = l.source || '/' || l.source_ref
        WHERE t.available_change IS DISTINCT FROM l.granted
    """,
    "clawback that differs from its ledger line": """
        SELECT coalesce(c.reference, t.id)
        FROM (SELECT * FROM clawbacks WHERE taken + owed > 0) c
        FULL JOIN (
            SELECT t.id, t.account_id, t.reference, t.available_change, e.millicredits AS clawed
            FROM transfers t JOIN entries e ON e.transfer_id = t.id AND e.book = 'clawed'
            WHERE t.kind = 'clawback'
        ) t ON t.account_id = c.account_id AND t.reference = c.reference
        WHERE t.available_change IS DISTINCT FROM -c.taken
           OR t.clawed IS DISTINCT FROM c.taken + c.owed
    """,
    "lots that differ from what clawbacks took": """
        SELECT a.account_id FROM credit_accounts a
        WHERE (SELECT coalesce(sum(clawed), 0) FROM credit_lots l
               WHERE l.account_id = a.account_id)
           <> (SELECT coalesce(sum(taken), 0) FROM clawbacks c
               WHERE c.account_id = a.account_id)
    """,
    "payment of which more was taken back than it bought": """
        SELECT c.payment FROM clawbacks c WHERE c.given_back_at IS NULL
        GROUP BY c.account_id, c.payment
        HAVING sum(c.lapsed + c.taken + c.owed) > (
            SELECT coalesce(sum(l.granted), 0) FROM credit_lots l
            WHERE l.account_id = c.account_id AND l.payment = c.payment
              AND l.source <> 'give_back')
    """,
    "clawback that differs from what came back of it": """
        SELECT coalesce(c.reference, l.id)
        FROM (SELECT * FROM clawbacks WHERE given_back_at IS NOT NULL AND taken + owed > 0) c
        FULL JOIN (SELECT * FROM credit_lots WHERE source = 'give_back') l
        ON l.account_id = c.account_id AND l.source_ref = c.account_id || '/' || c.reference
        LEFT JOIN transfers t ON t.account_id = c.account_id AND t.kind = 'give_back'
            AND t.reference = c.reference
        WHERE l.granted IS DISTINCT FROM c.taken + c.owed
           OR t.available_change IS DISTINCT FROM c.taken + c.owed
    """,
    "clawback that counts as expired what did not": """
        SELECT c.payment FROM clawbacks c WHERE c.given_back_at IS NULL
        GROUP BY c.account_id, c.payment
        HAVING sum(c.lapsed) > (
            SELECT coalesce(sum(l.expired), 0) FROM credit_lots l
            WHERE l.account_id = c.account_id AND l.payment = c.payment)
    """,
    "line that pays a debt and differs from it": """
        SELECT t.id FROM transfers t
        LEFT JOIN entries e ON e.transfer_id = t.id AND e.book = 'debt'
        WHERE t.kind = 'repay' AND (e.millicredits IS DISTINCT FROM -t.available_change
                                    OR e.millicredits <= 0)
    """,
    "lots that differ from what paid a debt": """
        SELECT a.account_id FROM credit_accounts a
        WHERE (SELECT coalesce(sum(repaid), 0) FROM credit_lots l
               WHERE l.account_id = a.account_id)
           <> (SELECT coalesce(-sum(available_change), 0) FROM transfers t
               WHERE t.account_id = a.account_id AND t.kind = 'repay')
    """,
    "hold that differs from what it reserved in lots": """
        SELECT h.job_id FROM holds h LEFT JOIN hold_allocations a ON a.job_id = h.job_id
        GROUP BY h.job_id
        HAVING coalesce(sum(a.millicredits), 0) <> h.millicredits
            OR coalesce(sum(a.captured_millicredits), 0) <> h.captured_millicredits
    """,
    "hold that differs from its ledger lines": """
        SELECT h.job_id FROM holds h
        LEFT JOIN transfers t ON t.job_id = h.job_id AND t.account_id = h.account_id
        LEFT JOIN entries e ON e.transfer_id = t.id
        WHERE h.account_id IS NOT NULL
        GROUP BY h.job_id
        HAVING coalesce(sum(e.millicredits) FILTER (
                   WHERE t.kind = 'hold' AND e.book = 'held'), 0) <> h.millicredits
            OR coalesce(sum(e.millicredits) FILTER (WHERE e.book = 'spent'), 0)
               <> h.captured_millicredits
            OR count(DISTINCT t.id) FILTER (WHERE t.kind IN ('capture', 'release'))
               <> (h.state <> 'open')::integer
            OR count(DISTINCT t.id) FILTER (WHERE t.kind = 'capture')
               <> (h.state = 'captured')::integer
    """,
    "change of entitlements that no account has had": """
        SELECT o.account_id FROM entitlements_outbox o JOIN accounts a ON a.id = o.account_id
        WHERE o.version > a.entitlements_version
    """,
    "ledger line of a job without a hold": """
        SELECT t.id FROM transfers t
        LEFT JOIN holds h ON h.job_id = t.job_id AND h.account_id = t.account_id
        WHERE t.kind IN ('hold', 'capture', 'release') AND h.job_id IS NULL
    """,
}


@dataclass(frozen=True, slots=True)
class Breach:
    """Something that breaks an invariant."""

    invariant: str
    reference: str


class LedgerCheck:
    """Checks every invariant over all accounts."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool

    async def run(self) -> Sequence[Breach]:
        """All breaches, in one snapshot; changes nothing and blocks nobody."""
        async with (
            connection(self._pool) as lent,
            lent.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await find_breaches(lent)


async def find_breaches(lent: Connection) -> list[Breach]:
    """All breaches that a transaction of the caller sees."""
    return [
        Breach(invariant, row[0])
        for invariant, statement in _INVARIANTS.items()
        for row in await lent.fetch(statement)
    ]
