"""The schema: migrations both ways, states that cannot be written, the check that finds more."""

import asyncio
import subprocess
import sys

import asyncpg
import pytest

from billing.main import _MIGRATIONS, _SCHEMA
from billing.storage.check import find_breaches
from easel_kit import migrations
from easel_kit.db import open_pool
from tests.fakes.billing_stack import FREE_GRANT, PRICE, BillingStack

AS_CAPTURED = "state = 'captured', captured_millicredits = 1"
DROP_DEBT = """
ALTER TABLE credit_accounts
DROP CONSTRAINT credit_accounts_debt_check, DROP CONSTRAINT available_or_owed
"""


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'billing'"
    )
    functions = await connection.fetch(
        "SELECT routine_name FROM information_schema.routines WHERE routine_schema = 'billing'"
    )
    await connection.close()
    return {row[0] for row in (*rows, *functions)}


async def test_migrations_lead_up_down_and_up_again(postgres_url: str) -> None:
    migrations.upgrade(_MIGRATIONS, postgres_url, _SCHEMA)
    first = await tables(postgres_url)
    assert {"accounts", "holds", "entries", "refuse_change"} < first
    migrations.upgrade(_MIGRATIONS, postgres_url, _SCHEMA)
    migrations.downgrade(_MIGRATIONS, postgres_url, _SCHEMA)
    assert await tables(postgres_url) <= {"alembic_version"}
    migrations.upgrade(_MIGRATIONS, postgres_url, _SCHEMA)
    assert await tables(postgres_url) == first


@pytest.fixture
async def used(stack: BillingStack) -> BillingStack:
    """An account with one open, one captured and one released hold."""
    captured, released = [(await stack.place()).hold.job_id for _ in range(2)]
    await stack.place()
    await stack.capture(captured, 1, 2)
    await stack.release(released)
    assert await stack.breaches() == []
    return stack


WRONG = [
    "UPDATE entries SET millicredits = millicredits + 1",
    "DELETE FROM entries",
    "TRUNCATE entries",
    "UPDATE transfers SET description = ''",
    "DELETE FROM transfers",
    "TRUNCATE transfers CASCADE",
    "UPDATE plan_versions SET weight = 99",
    "DELETE FROM plan_versions",
    "DELETE FROM holds",
    "UPDATE holds SET expires_at = now() WHERE state = 'captured'",
    "UPDATE holds SET state = 'open', ended_at = NULL WHERE state = 'released'",
    "UPDATE holds SET state = 'captured', ended_at = now() WHERE state = 'open'",
    "UPDATE credit_accounts SET available = -1",
    "UPDATE credit_accounts SET held = -1",
    "UPDATE credit_accounts SET debt = 1",
    "UPDATE credit_lots SET held = remaining + 1",
    "UPDATE credit_lots SET remaining = granted + 1",
    "UPDATE hold_allocations SET captured_millicredits = millicredits + 1",
    "INSERT INTO entries SELECT id, account_id, 'expired', 1 FROM transfers",
    "INSERT INTO entries SELECT id, account_id, 'granted', 0 FROM transfers LIMIT 1",
    ("INSERT INTO transfers SELECT 'x', id, 99, 'grant', 'x', NULL, '', 1, 1, now() FROM accounts"),
    "INSERT INTO accounts SELECT 'x', now(), 'gold', 1, 1, now(), now() + '1 day'",
    "UPDATE accounts SET plan_source = 'luck'",
    "UPDATE pack_versions SET price_cents = 1",
    "DELETE FROM pack_versions",
    "UPDATE credit_lots SET clawed = granted",
    "UPDATE credit_lots SET repaid = -1",
]


async def test_wrong_states_cannot_be_written(used: BillingStack) -> None:
    for statement in WRONG:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await used.sql(statement)
            pytest.fail(statement)
    assert await used.breaches() == []


TAMPERINGS = [
    (
        "UPDATE entries SET millicredits = millicredits + 1 WHERE book = 'spent'",
        "transfer without entries that sum to zero",
    ),
    (
        "UPDATE entries SET account_id = 'acc_x' WHERE book = 'spent'",
        "entry of another account than its transfer",
    ),
    (
        "UPDATE transfers SET available_change = available_change + 1 WHERE kind = 'release'",
        "transfer whose line differs from its entries",
    ),
    (
        "UPDATE transfers SET available_after = available_after + 1 WHERE kind = 'hold'",
        "ledger lines with a gap, or that do not lead to one another",
    ),
    (
        "DELETE FROM transfers WHERE sequence = (SELECT max(sequence) FROM transfers)",
        "ledger cut off at its end",
    ),
    (
        "DELETE FROM transfers WHERE kind = 'hold'",
        "ledger lines with a gap, or that do not lead to one another",
    ),
    (
        "UPDATE credit_accounts SET available = available + 1",
        "balance that differs from its entries",
    ),
    (f"{DROP_DEBT}; UPDATE credit_accounts SET debt = -1", "balance that is negative"),
    (
        "UPDATE holds SET millicredits = millicredits + 1 WHERE state = 'open'",
        "reserved balance that differs from the open holds",
    ),
    (
        "UPDATE credit_lots SET remaining = remaining - 1",
        "lots less open holds that differ from the balance",
    ),
    ("UPDATE credit_lots SET expired = 1", "lot whose parts do not make the whole"),
    ("UPDATE credit_lots SET granted = granted + 1", "lots that differ from the grants"),
    ("DELETE FROM hold_allocations", "hold that differs from what it reserved in lots"),
    (
        "UPDATE holds SET captured_millicredits = 206 WHERE state = 'captured'",
        "hold that differs from its ledger lines",
    ),
    (
        f"UPDATE holds SET {AS_CAPTURED} WHERE state = 'released'",
        "hold that differs from its ledger lines",
    ),
    ("DELETE FROM holds WHERE state = 'released'", "ledger line of a job without a hold"),
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


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "billing", *arguments],
        env={"BILLING_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


async def test_the_commands_migrate_and_check(postgres_url: str) -> None:
    migrated = await asyncio.to_thread(command, postgres_url, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    clean = await asyncio.to_thread(command, postgres_url, "ledger-check")
    assert (clean.returncode, clean.stdout) == (0, "ledger-check: 0 findings\n")
    stack = BillingStack(postgres_url)
    async with stack.running():
        await stack.place()
        await stack.sql("UPDATE credit_accounts SET available = $1", FREE_GRANT + PRICE)
    broken = await asyncio.to_thread(command, postgres_url, "ledger-check")
    assert broken.returncode == 1
    assert "balance that differs from its entries: acc_" in broken.stdout
    assert broken.stdout.endswith("ledger-check: 2 findings\n")


async def test_the_check_blocks_nobody(used: BillingStack) -> None:
    async with (
        open_pool(used.url, schema="billing", name="test", max_size=1) as pool,
        pool.acquire() as lent,
        lent.transaction(),
    ):
        await lent.execute("SELECT FROM credit_accounts FOR UPDATE")
        assert await used.breaches() == []
