"""What the Stripe stand-in delivers: signed, in the background, and badly where that is asked."""

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest
import stripe
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fakes.stripe_shop import Shop, open_shop
from tests.fakes.stripe_stand_in import SECRET, served, stripe_stand_in


class Receiver:
    """Notes what arrives; answers with the statuses it is given, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.events: list[dict[str, Any]] = []
        self.signatures: list[str] = []

    async def __call__(self, payload: bytes, signature: str) -> int:
        self.events.append(json.loads(payload))
        self.signatures.append(signature)
        return self.statuses.pop(0) if self.statuses else 200

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


async def twenty_customers(shop: Shop) -> list[str]:
    for _ in range(20):
        await shop.customer()
    listed = await shop.stripe.v1.events.list_async({"type": "customer.created", "limit": 20})
    return [event.id for event in listed.data][::-1]


def listening(shop: Shop, *statuses: int) -> Receiver:
    receiver = Receiver(*statuses)
    shop.stand_in.deliver_to(receiver)
    return receiver


async def test_a_delivery_over_http_verifies_with_the_sdk() -> None:
    got: list[tuple[bytes, str, str]] = []

    async def receive(request: Request) -> Response:
        headers = request.headers
        got.append((await request.body(), headers["stripe-signature"], headers["content-type"]))
        return Response()

    async with stripe_stand_in(previous_webhook_secret="whsec_old") as stand_in:
        shop = await open_shop(stand_in)
        app = Starlette(routes=[Route("/hook", receive, methods=["POST"])])
        async with served(app) as url:
            stand_in.deliver_to(f"{url}/hook")
            await shop.customer(metadata={"account": "a"})
            await stand_in.delivered()
    [(payload, signature, kind)] = got
    for secret in (SECRET, "whsec_old"):
        event = stripe.Webhook.construct_event(payload, signature, secret)
        assert event.type == "customer.created"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload, signature, "whsec_other")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload + b" ", signature, SECRET)
    assert kind.startswith("application/json")


async def test_what_is_not_answered_well_is_delivered_again(shop: Shop) -> None:
    receiver = listening(shop, 500, 404, 302)
    await shop.customer()
    await shop.stand_in.delivered()
    assert len(receiver.ids) == 4
    assert len(set(receiver.ids)) == 1
    [delivery] = shop.stand_in.deliveries
    assert (delivery.state, delivery.statuses) == ("delivered", [500, 404, 302, 200])


async def test_one_that_nobody_takes_is_given_up() -> None:
    async with stripe_stand_in(delivery_attempts=3, first_retry_s=0.001) as stand_in:
        shop = await open_shop(stand_in)
        stand_in.deliver_to("http://127.0.0.1:1/closed")
        await shop.customer()
        await stand_in.delivered()
        assert stand_in.deliveries[0].state == "given_up"
        assert stand_in.deliveries[0].statuses == [0, 0, 0]


async def test_in_order_and_once_when_nothing_goes_wrong(shop: Shop) -> None:
    receiver = listening(shop)
    expected = await twenty_customers(shop)
    await shop.stand_in.delivered()
    assert receiver.ids == expected


async def test_twice(shop: Shop) -> None:
    shop.stand_in.faults(seed=1, deliveries={"duplicate": 0.5})
    receiver = listening(shop)
    expected = await twenty_customers(shop)
    await shop.stand_in.delivered()
    counts = Counter(receiver.ids)
    assert set(counts) == set(expected)
    assert set(counts.values()) == {1, 2}


async def test_out_of_order(shop: Shop) -> None:
    shop.stand_in.faults(seed=2, deliveries={"reorder": 0.5, "reorder_s": 0.2})
    receiver = listening(shop)
    expected = await twenty_customers(shop)
    await shop.stand_in.delivered()
    assert sorted(receiver.ids) == sorted(expected)
    assert receiver.ids != expected


async def test_never(shop: Shop) -> None:
    shop.stand_in.faults(seed=3, deliveries={"drop": 0.5})
    receiver = listening(shop)
    expected = await twenty_customers(shop)
    await shop.stand_in.delivered()
    assert 0 < len(receiver.ids) < 20
    dropped = [one for one in shop.stand_in.deliveries if one.state == "dropped"]
    assert {one.event for one in dropped} == set(expected) - set(receiver.ids)
    async with httpx.AsyncClient(base_url=shop.stand_in.url, trust_env=False) as client:
        path = f"/_stand-in/deliveries/{dropped[0].id}/redeliver"
        assert (await client.post(path, json={})).status_code == 200
    await shop.stand_in.delivered()
    assert dropped[0].event in receiver.ids


async def test_failed_attempts_and_lost_answers_come_again(shop: Shop) -> None:
    shop.stand_in.faults(seed=4, deliveries={"fail": 0.3, "lose_answer": 0.3})
    receiver = listening(shop)
    expected = await twenty_customers(shop)
    await shop.stand_in.delivered()
    assert set(receiver.ids) == set(expected)
    assert len(receiver.ids) > 20
    assert any(one.statuses[0] == 0 for one in shop.stand_in.deliveries)


async def test_late(shop: Shop) -> None:
    shop.stand_in.faults(deliveries={"delay_s": 0.3})
    receiver = listening(shop)
    await shop.customer()
    assert not receiver.ids
    await shop.stand_in.delivered()
    assert len(receiver.ids) == 1


async def test_the_same_seed_makes_the_same_faults() -> None:
    outcomes = []
    for _ in range(2):
        async with stripe_stand_in() as stand_in:
            shop = await open_shop(stand_in)
            stand_in.faults(seed=9, deliveries={"drop": 0.5, "duplicate": 0.5})
            listening(shop)
            await twenty_customers(shop)
            await stand_in.delivered()
            outcomes.append([delivery.state for delivery in stand_in.deliveries])
    assert outcomes[0] == outcomes[1]


async def test_signatures_carry_the_stand_in_s_time_when_told(shop: Shop) -> None:
    shop.stand_in.advance(timedelta(days=40))
    receiver = listening(shop)
    await shop.customer()
    await shop.stand_in.delivered()
    assert receiver.signatures[0].startswith(f"t={int(shop.stand_in.now().timestamp())},")


async def test_by_http_as_by_hand(shop: Shop) -> None:
    """The private calls of a process, which tests in its own process do without."""
    intent = (await shop.buy_pack(await shop.customer()))["payment_intent"]
    session = await shop.checkout(await shop.customer(), shop.pro)
    before = int(shop.stand_in.now().timestamp())
    async with httpx.AsyncClient(
        base_url=f"{shop.stand_in.url}/_stand-in", trust_env=False
    ) as client:
        paid = await client.post(f"/checkout/{session.id}/pay", json={})
        assert paid.json()["status"] == "complete"
        moved = await client.post("/clock", json={"advance_s": 86_400, "stopped": True})
        assert moved.json() == {"now": before + 86_400, "stopped": True}
        opened = (await client.post("/disputes", json={"payment_intent": intent})).json()
        closed = await client.post(f"/disputes/{opened['id']}/close", json={"outcome": "won"})
        assert closed.json()["status"] == "won"
        plan = {"seed": 1, "deliveries": {"drop": 1}}
        assert (await client.put("/faults", json=plan)).json()["deliveries"]["drop"] == 1
        assert (await client.get("/faults")).json()["seed"] == 1
        await client.put("/webhook", json={"url": "http://127.0.0.1:1/"})
        await shop.customer()
        deliveries = (await client.get("/deliveries")).json()["deliveries"]
        assert [one["state"] for one in deliveries] == ["dropped"]
        for path, wrong in (
            ("/clock", {"advance_s": -1}),
            ("/clock", {"bogus": 1}),
            ("/disputes", {}),
            ("/disputes", {"payment_intent": "pi_none"}),
            (f"/checkout/{session.id}/pay", {"card": "5105105105105100"}),
        ):
            answer = await client.post(path, json=wrong)
            assert 400 <= answer.status_code < 500, answer.text
        assert (await client.post("/clock", data={"advance_s": "1"})).status_code == 415
