"""What the check finds of purchases, clawbacks and debt that constraints cannot keep."""

import asyncpg
import pytest

from billing.storage.check import find_breaches
from tests.fakes.billing_stack import BillingStack
from tests.fakes.billing_till import Till


@pytest.fixture
async def used(stack: BillingStack) -> BillingStack:
    """Purchases whole, refunded, disputed and won, one that expired in part, and a debt."""
    till = Till(stack, await stack.account_id())
    stack.scheduler.is_away = True  # what it was not told stays in the outbox
    await stack.change_plan("enterprise", "bob")
    for reference, days in (("cs_1", 365), ("cs_2", 365), ("cs_3", 365), ("cs_4", 10)):
        await till.buy(reference, 20_000, days)
    await till.spend(10_000)
    stack.clock.move(days=11)
    await till.claw("re_4", "cs_4", 20_000)
    await till.claw("dp_1", "cs_1", 20_000)
    await till.give("dp_1")
    await till.spend((await till.state())[0])
    await till.claw("re_2", "cs_2", 20_000)
    await till.buy("cs_5", 5_000)
    assert await till.state() == (0, 0, 15_000)
    return stack


def undo(table: str, constraint: str) -> str:
    return f"ALTER TABLE {table} DROP CONSTRAINT {constraint}; "


BOTH = undo("credit_accounts", "available_or_owed")
PARTS = undo("credit_lots", "parts_of_the_whole")
TWICE = undo("credit_lots", "credit_lots_source_source_ref_key")
ONE_MORE = """
INSERT INTO clawbacks SELECT account_id, 're_x', payment, 1, 0, 0, 1, clawed_at, expires_at
FROM clawbacks WHERE reference = 're_2'
"""
TAMPERINGS = [
    (
        "UPDATE credit_accounts SET debt = debt - 1 WHERE debt > 0",
        "balance that differs from its entries",
    ),
    (
        BOTH + "UPDATE credit_accounts SET available = available + 1",
        "balance that is available and owed at once",
    ),
    ("UPDATE credit_lots SET repaid = 0", "lots that differ from what paid a debt"),
    ("UPDATE credit_lots SET repaid = 0", "lot whose parts do not make the whole"),
    (
        PARTS + "UPDATE credit_lots SET clawed = clawed + 1 WHERE source_ref = 'cs_3'",
        "lots that differ from what clawbacks took",
    ),
    (
        PARTS + "UPDATE credit_lots SET clawed = clawed + 1 WHERE source_ref = 'cs_3'",
        "lot whose parts do not make the whole",
    ),
    (
        "UPDATE credit_lots SET payment = 'pi_x' WHERE source = 'monthly'",
        "lot that was not bought and names a payment",
    ),
    (
        TWICE + "UPDATE credit_lots SET source_ref = 'cs_2' WHERE source_ref = 'cs_3'",
        "purchase that was granted twice",
    ),
    (
        "UPDATE credit_lots SET source_ref = 'cs_x' WHERE source_ref = 'cs_3'",
        "purchase that differs from its ledger line",
    ),
    (
        "DELETE FROM transfers WHERE reference = 'checkout/cs_3'",
        "purchase that differs from its ledger line",
    ),
    (
        "DELETE FROM credit_lots WHERE source_ref = 'cs_3'",
        "purchase that differs from its ledger line",
    ),
    (
        "UPDATE clawbacks SET taken = taken - 1 WHERE reference = 'dp_1'",
        "clawback that differs from its ledger line",
    ),
    (
        "UPDATE clawbacks SET owed = owed - 1 WHERE reference = 're_2'",
        "clawback that differs from its ledger line",
    ),
    ("DELETE FROM clawbacks", "clawback that differs from its ledger line"),
    (
        "UPDATE clawbacks SET given_back_at = now() WHERE reference = 're_2'",
        "clawback that differs from what came back of it",
    ),
    (
        "UPDATE clawbacks SET given_back_at = NULL WHERE reference = 'dp_1'",
        "clawback that differs from what came back of it",
    ),
    (
        "DELETE FROM transfers WHERE kind = 'give_back'",
        "clawback that differs from what came back of it",
    ),
    (
        ONE_MORE,
        "payment of which more was taken back than it bought",
    ),
    (
        "UPDATE clawbacks SET lapsed = lapsed + 1, asked = asked + 1 WHERE reference = 're_4'",
        "clawback that counts as expired what did not",
    ),
    (
        "UPDATE entries SET millicredits = 1 WHERE book = 'debt' AND millicredits > 0",
        "line that pays a debt and differs from it",
    ),
    (
        "UPDATE entitlements_outbox SET version = version + 1",
        "change of entitlements that no account has had",
    ),
]


async def test_the_check_finds_what_constraints_cannot_keep(used: BillingStack) -> None:
    # triggers are silent, as for a superuser or a restore
    replica = {"search_path": "billing", "session_replication_role": "replica"}
    async with (
        asyncpg.create_pool(used.url, min_size=1, max_size=1, server_settings=replica) as pool,
        pool.acquire() as lent,
    ):
        for statement, invariant in TAMPERINGS:
            tampering = lent.transaction()
            await tampering.start()
            await lent.execute(statement)
            found = await find_breaches(lent)
            await tampering.rollback()
            assert invariant in {breach.invariant for breach in found}, statement
            assert all(breach.reference for breach in found)
    assert await used.breaches() == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM clawbacks",
        "TRUNCATE clawbacks",
        "UPDATE clawbacks SET asked = asked + 1 WHERE reference = 're_2'",
        "UPDATE clawbacks SET given_back_at = NULL WHERE reference = 'dp_1'",
        "UPDATE clawbacks SET owed = asked + 1, given_back_at = now() WHERE reference = 're_2'",
        "UPDATE credit_accounts SET available = 1 WHERE debt > 0",
        "UPDATE credit_lots SET clawed = granted",
        "INSERT INTO entitlements_outbox SELECT id, 0, now() FROM accounts",
    ],
)
async def test_what_was_taken_back_is_written_once(used: BillingStack, statement: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await used.sql(statement)
    assert await used.breaches() == []
