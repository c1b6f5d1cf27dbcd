"""The Stripe stand-in as a process of its own: what it keeps over being killed."""

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe
from stripe import StripeClient

from easel_kit.errors import InvalidInput
from easel_local.runner.health import Health
from easel_local.runner.part import Program, Service
from tests.fakes.stripe_stand_in import KEY, stripe_stand_in

CARD = "4000000000000341"


def program(port: int, folder: Path) -> Program:
    address = f"127.0.0.1:{port}"
    service = Service(
        name="stripe",
        argv=("python", "-m", "easel_local.stripe"),
        env={
            "STRIPE_LISTEN": address,
            "STRIPE_STATE_FILE": str(folder / "stripe.json"),
            "STRIPE_WEBHOOK_URL": "http://127.0.0.1:1/none",
            "STRIPE_LOG_LEVEL": "debug",
        },
        health=Health("http", f"http://{address}/healthz"),
    )
    return Program(service, {}, folder / "log")


async def test_nothing_that_was_answered_is_forgotten(tmp_path: Path, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    http = stripe.HTTPXClient()
    client = StripeClient(KEY, base_addresses={"api": url}, http_client=http)
    first = program(free_port, tmp_path)
    await first.start()
    price = await client.v1.prices.create_async(
        {
            "currency": "usd",
            "unit_amount": 1_900,
            "recurring": {"interval": "month"},
            "product_data": {"name": "Pro"},
        }
    )
    customer = await client.v1.customers.create_async({}, {"idempotency_key": "k"})
    session = await client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "customer": customer.id,
            "line_items": [{"price": price.id, "quantity": 1}],
            "success_url": "http://127.0.0.1:1/ok",
        }
    )
    assert session.url is not None
    async with httpx.AsyncClient(trust_env=False) as browser:
        assert (await browser.post(session.url, data={"card": CARD})).status_code == 303
    before = await everything(client)
    assert first.child is not None
    os.kill(first.child.pid, signal.SIGKILL)
    await first.child.wait()

    second = program(free_port, tmp_path)
    await second.start()
    try:
        assert await everything(client) == before
        again = await client.v1.customers.create_async({}, {"idempotency_key": "k"})
        assert again.id == customer.id
        async with httpx.AsyncClient(base_url=url, trust_env=False) as control:
            await control.post("/_stand-in/clock", json={"advance_s": 32 * 86_400})
            pending = (await control.get("/_stand-in/deliveries")).json()["deliveries"]
        assert {one["state"] for one in pending} == {"pending"}
        invoices = (await client.v1.invoices.list_async({"customer": customer.id})).data
        assert [invoice.status for invoice in invoices] == ["open", "paid"]
    finally:
        await second.stop()
        await http.close_async()  # type: ignore[no-untyped-call]
    assert second.child is not None
    assert second.child.returncode == 0
    kept = (tmp_path / "stripe.json").read_text() + (tmp_path / "log").read_text()
    assert CARD not in kept
    assert KEY not in kept
    assert (tmp_path / "stripe.json").stat().st_mode & 0o077 == 0


async def everything(client: StripeClient) -> list[dict[str, Any]]:
    events = await client.v1.events.list_async({"limit": 100})
    subscriptions = await client.v1.subscriptions.list_async({"status": "all"})
    return [one.to_dict() for one in events.data] + [one.to_dict() for one in subscriptions.data]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', '{"format": 1, "world": 3}'])
async def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match="state_file"):
        async with stripe_stand_in(state_file=file):
            pass
