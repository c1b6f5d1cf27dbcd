"""The commands about webhooks and reconciliation, as an operator types them."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime

import pytest

from billing.domain.payments import CustomerId, Notice
from billing.storage.inbox import PostgresInbox
from easel_kit.db import open_pool
from tests.fakes.billing_stack import BillingStack

# each command is a process that imports billing, whatever else the machine does
pytestmark = pytest.mark.timeout(180)


async def command(url: str, *words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "billing",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "BILLING_DATABASE_URL": url},  # noqa: TID251 (for the child)
    )
    output, errors = await process.communicate()
    return process.returncode, (output or errors).decode()


async def test_an_operator_lists_and_replays_the_dead(billing_url: str) -> None:
    now = datetime.now(UTC)
    async with open_pool(billing_url, schema="billing", name="test") as pool:
        inbox = PostgresInbox(pool)
        for number in range(3):
            customer = CustomerId(f"cus_{number}")
            await inbox.keep(Notice(f"evt_{number}", "invoice.paid", customer, now), now)
        await pool.execute(
            "UPDATE webhook_inbox SET state = 'dead', attempts = 20, error = 'Conflict: x', "
            "next_try_at = NULL, ended_at = received_at WHERE event_id <> 'evt_2'"
        )
    status, printed = await command(billing_url, "inbox", "--state", "dead")
    assert status == 0
    first, second, figures = printed.splitlines()
    assert [line.split()[3] for line in (first, second)] == ["evt_1", "evt_0"]
    assert first.split()[:2] == ["dead", "20"]
    assert first.endswith("invoice.paid cus_1 Conflict: x")
    assert figures == "inbox: 1 pending, 0 leased, 0 applied, 0 ignored, 0 retry, 2 dead"

    status, printed = await command(billing_url, "replay", "evt_0", "evt_2")
    assert status == 1
    assert printed.splitlines() == [
        "evt_0: due again",
        "evt_2: unknown, without a customer, or open already",
        "replay: 1 events",
    ]
    assert await command(billing_url, "replay", "--all-dead") == (
        0,
        "evt_1: due again\nreplay: 1 events\n",
    )
    async with open_pool(billing_url, schema="billing", name="test") as pool:
        audited = await pool.fetch("SELECT actor, action, detail FROM audit ORDER BY sequence")
    assert [tuple(row) for row in audited] == [
        ("operator", "events.replayed", '{"events":1}'),
        ("operator", "events.replayed", '{"events":1}'),
    ]
    assert (await command(billing_url, "replay"))[0] == 2
    assert (await command(billing_url, "replay", "evt_1", "--all-dead"))[0] == 2


async def test_an_operator_reconciles_at_once(idle_stack: BillingStack) -> None:
    async with idle_stack.running() as stack:
        await stack.place()
    url = idle_stack.url
    status, printed = await command(url, "reconcile", "--nightly")
    assert (status, printed.splitlines()[-1]) == (0, "reconcile nightly: 0 findings")
    async with open_pool(url, schema="billing", name="test", max_size=1) as pool:
        account = await pool.fetchval(
            "UPDATE credit_accounts SET held = held + 1 RETURNING account_id"
        )
    status, printed = await command(url, "reconcile", "--nightly")
    assert status == 1
    assert f"ledger_breach balance that differs from its entries: {account}" in printed
    status, printed = await command(url, "reconcile", "--nightly")
    assert status == 1
    assert printed.splitlines()[0].endswith("(known)")
