"""The commands about people's data and the audit log, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from tests.fakes.billing_stack import ALICE, BillingStack, until

pytestmark = pytest.mark.timeout(180)


async def billing(url: str, *arguments: str, objects: Path | None = None) -> tuple[int, str]:
    """Exit status of a command, and what it printed."""
    env = {"BILLING_DATABASE_URL": url, "BILLING_LOG_LEVEL": "error"}
    if objects is not None:
        env["BILLING_OBJECTS__URL"] = objects.as_uri()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "billing", *arguments),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


async def test_an_operator_verifies_exports_and_erases(
    idle_stack: BillingStack, tmp_path: Path
) -> None:
    stack, objects, out = idle_stack, tmp_path / "objects", tmp_path / "alice.json"
    stack.objects = objects
    stack.clock.set(datetime.now(UTC))  # commands go by the machine's
    async with stack.running():
        await stack.change_plan("pro")
        assert await billing(stack.url, "export", ALICE, "--out", str(out)) == (0, f"{out}\n")
        assert json.loads(out.read_text())["user_id"] == ALICE
        status, printed = await billing(stack.url, "export", ALICE, "--out", str(out))
        assert (status, "out: File exists" in printed) == (1, True)
        status, printed = await billing(stack.url, "export", "nobody", "--out", f"{out}.2")
        assert (status, printed) == (1, "billing: there is no account of this user\n")
        assert not await asyncio.to_thread(Path(f"{out}.2").exists)
        status, printed = await billing(stack.url, "erase", ALICE)
        assert (status, printed[:4]) == (0, "era_")
        await stack.until_erased()
        actors = await stack.rows("SELECT actor, action FROM audit ORDER BY sequence")
        assert [tuple(row) for row in actors][:4] == [
            ("user", "account.opened"),
            ("operator", "plan.changed"),
            ("operator", "account.exported"),
            ("operator", "erasure.requested"),
        ]
        await until(lambda: all_anchored(stack))
    assert await billing(stack.url, "audit-verify", objects=objects) == (
        0,
        "audit-verify: 0 findings in 7 rows, 0 of them not yet anchored\n",
    )
    await tamper(stack.url)
    status, printed = await billing(stack.url, "audit-verify", objects=objects)
    assert (status, printed.splitlines()) == (
        1,
        [
            "accounts: row 2 is not as it was written",
            "audit-verify: 1 findings in 7 rows, 0 of them not yet anchored",
        ],
    )


async def test_without_a_store_there_is_nothing_to_verify_against(billing_url: str) -> None:
    status, printed = await billing(billing_url, "audit-verify")
    assert (status, "BILLING_OBJECTS__URL" in printed) == (1, True)


async def all_anchored(stack: BillingStack) -> bool:
    return bool(
        await stack.sql(
            "SELECT EXISTS (SELECT FROM audit_anchors JOIN audit_heads USING (stream, sequence))"
        )
    )


async def tamper(url: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"search_path": "billing"})
    await connection.execute(
        "SET session_replication_role = replica; "
        'UPDATE audit SET detail = \'{"plan":"free"}\' WHERE sequence = 2'
    )
    await connection.close()
