"""`python -m billing refund` and `sync`, as an operator types them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest

from tests.fakes.billing_money import MoneyStack, money_stack
from tests.fakes.billing_stack import FREE_GRANT, PRO_GRANT, BillingStack
from tests.fakes.stripe_stand_in import StripeStandIn, stripe_stand_in

# each command is a process that imports billing, whatever else the machine does
pytestmark = pytest.mark.timeout(180)

PACK_GRANT = 100_000


@pytest.fixture
async def bank() -> AsyncIterator[StripeStandIn]:
    """A stand-in of Stripe."""
    async with stripe_stand_in() as running:
        yield running


@pytest.fixture
async def money(idle_stack: BillingStack, bank: StripeStandIn) -> AsyncIterator[MoneyStack]:
    """Billing beside it."""
    async with money_stack(idle_stack, bank) as running:
        yield running


async def command(money: MoneyStack, *words: str, key: str = "") -> tuple[int, str, str]:
    """Runs a command of its own process; its exit code and what it printed."""
    stripe = money.stack.settings.stripe
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "billing",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.defpath,
            "BILLING_DATABASE_URL": money.stack.url,
            "BILLING_LOG_LEVEL": "error",
            "BILLING_STRIPE__SECRET_KEY": key or stripe.secret_key.get_secret_value(),
            "BILLING_STRIPE__API_URL": stripe.api_url,
        },
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_an_operator_refunds_and_looks_again(money: MoneyStack) -> None:
    await money.buy(pack="small")
    payment = await money.payment()
    code, output, errors = await command(money, "refund", "--payment", payment, "--cents", "100")
    assert (code, errors) == (0, "")
    assert output.startswith("refunded: re_")
    assert await money.balance() == (FREE_GRANT + PACK_GRANT * 4 // 5, 0)

    page = await money.checkout(plan="pro")
    money.bank.pay(money.session_of(page.url))
    customer = await money.customer()
    assert await command(money, "sync", customer) == (0, f"{customer}: changed\n", "")
    assert await command(money, "sync", customer) == (0, f"{customer}: as before\n", "")
    assert (await money.balance())[0] == FREE_GRANT + PACK_GRANT * 4 // 5 + PRO_GRANT


async def test_what_cannot_be_done_is_said_in_a_line(money: MoneyStack) -> None:
    code, output, errors = await command(money, "refund", "--payment", "pi_nobodys")
    assert (code, output, errors) == (1, "", "billing: there is no payment pi_nobodys\n")
