"""How the Stripe stand-in answers: keys, errors, idempotency, pages, shapes, faults."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import stripe
from stripe import StripeClient

from easel_local.stripe.api import ENDPOINTS
from tests.fakes.stripe_shapes import problems
from tests.fakes.stripe_shop import Shop
from tests.fakes.stripe_stand_in import FAILS_LATER, IS_DISPUTED, KEY

IDEMPOTENT = "Idempotency-Key"


@pytest.fixture
async def http(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        base_url=shop.stand_in.url, headers=headers, trust_env=False
    ) as client:
        yield client


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer sk_live_x", "Bearer rk_test_x", "Token x"])
async def test_without_a_test_key_nothing_is_answered(shop: Shop, key: str) -> None:
    async with httpx.AsyncClient(base_url=shop.stand_in.url, trust_env=False) as client:
        headers = {"Authorization": key} if key else {}
        answer = await client.get("/v1/customers", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert (await client.get("/v1/customers", auth=("sk_test_x", ""))).status_code == 200


async def test_errors_look_like_stripe_s(shop: Shop, http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/customers", data={"metadata[a]": "1", "bogus[x]": "2"})
    assert answer.status_code == 400
    assert answer.headers["request-id"].startswith("req_")
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        *("invalid_request_error", "parameter_unknown"),
        "bogus",
    )
    assert (await http.get("/v1/nonsense")).status_code == 404
    assert (await http.get("/v1/customers/cus_none")).json()["error"]["code"] == "resource_missing"
    long = await http.post("/v1/customers", content=b"name=" + b"x" * 300_000)
    assert long.status_code == 413
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.stripe.v1.subscriptions.retrieve_async("sub_none")
    assert refused.value.http_status == 404


async def test_a_key_is_carried_out_once(http: httpx.AsyncClient) -> None:
    once = {IDEMPOTENT: "k1"}
    first = await http.post("/v1/customers", data={"name": "a"}, headers=once)
    again = await http.post("/v1/customers", data={"name": "a"}, headers=once)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["original-request"] == first.headers["request-id"]
    other = await http.post("/v1/customers", data={"name": "b"}, headers=once)
    assert other.status_code == 400
    assert other.json()["error"]["type"] == "idempotency_error"
    elsewhere = await http.post("/v1/products", data={"name": "a"}, headers=once)
    assert elsewhere.json()["error"]["type"] == "idempotency_error"
    assert len((await http.get("/v1/customers")).json()["data"]) == 1


async def test_a_refusal_is_kept_too_but_not_one_of_the_form(
    shop: Shop, http: httpx.AsyncClient
) -> None:
    once, data = {IDEMPOTENT: "k2"}, {"customer": "cus_none", "return_url": "http://x"}
    first = await http.post("/v1/billing_portal/sessions", data=data, headers=once)
    again = await http.post("/v1/billing_portal/sessions", data=data, headers=once)
    assert (first.status_code, again.status_code) == (400, 400)
    assert again.headers["idempotent-replayed"] == "true"
    wrong = await http.post("/v1/customers", data={"bogus": "1"}, headers={IDEMPOTENT: "k3"})
    assert wrong.status_code == 400
    right = await http.post("/v1/customers", data={"name": "a"}, headers={IDEMPOTENT: "k3"})
    assert right.status_code == 200
    shop.stand_in.advance(timedelta(hours=25))
    fresh = await http.post("/v1/customers", data={"name": "c"}, headers={IDEMPOTENT: "k3"})
    assert fresh.json()["id"] != right.json()["id"]


async def test_two_at_once_with_one_key(shop: Shop, http: httpx.AsyncClient) -> None:
    shop.stand_in.faults(api=[{"kind": "delay", "delay_s": 0.2, "times": 1}])
    sent = [
        http.post("/v1/customers", data={"name": "a"}, headers={IDEMPOTENT: "k4"}) for _ in "ab"
    ]
    answers = await asyncio.gather(*sent)
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    customers = (await shop.stripe.v1.customers.list_async()).data
    assert len(customers) == 1


async def test_pages_lead_to_everything_once(shop: Shop) -> None:
    made = [await shop.customer(name=str(number)) for number in range(7)]
    listed = shop.stripe.v1.customers.list_async
    seen = [one.id async for one in (await listed({"limit": 2})).auto_paging_iter()]
    assert seen == made[::-1]
    page = await listed({"limit": 3, "starting_after": made[5]})
    assert [one.id for one in page.data] == made[4:1:-1]
    assert page.has_more
    back = await listed({"limit": 2, "ending_before": made[2]})
    assert [one.id for one in back.data] == [made[4], made[3]]
    assert back.has_more
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await listed({"starting_after": "cus_none"})
    assert refused.value.param == "starting_after"
    for limit in (0, 101):
        with pytest.raises(stripe.InvalidRequestError):
            await listed({"limit": limit})


async def test_events_are_found_by_type_and_time_as_things_were(shop: Shop) -> None:
    customer = await shop.customer(name="before")
    then = int(shop.stand_in.advance(timedelta(hours=1)).timestamp())
    await shop.stripe.v1.customers.update_async(customer, {"name": "after", "metadata": {"a": "b"}})
    listed = shop.stripe.v1.events.list_async
    since = await listed({"created": {"gte": then}, "types": ["customer.updated"]})
    assert [event.type for event in since.data] == ["customer.updated"]
    event = await shop.stripe.v1.events.retrieve_async(since.data[0].id)
    assert event.data.object["name"] == "after"
    assert event.to_dict()["data"]["previous_attributes"] == {"name": "before", "metadata": {}}
    created = (await listed({"type": "customer.created"})).data[0]
    assert created.data.object["name"] == "before"
    assert {one.type for one in (await listed({"type": "customer.*"})).data} == {
        "customer.created",
        "customer.updated",
    }


async def test_metadata_is_the_caller_s_own(shop: Shop) -> None:
    strange = {"_private": "1", "object": "2", "metadata": "3", "é": "4"}
    customer = await shop.customer(metadata=strange)
    retrieve = shop.stripe.v1.customers.retrieve_async
    assert (await retrieve(customer)).to_dict()["metadata"] == strange
    update = shop.stripe.v1.customers.update_async
    await update(customer, {"metadata": {"object": "", "new": "5"}})
    kept = {"_private": "1", "metadata": "3", "é": "4", "new": "5"}
    assert (await retrieve(customer)).to_dict()["metadata"] == kept
    await update(customer, {"metadata": ""})
    assert (await retrieve(customer)).to_dict()["metadata"] == {}


async def test_what_is_expanded(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro)
    found = await shop.stripe.v1.subscriptions.retrieve_async(
        subscription.id,
        {"expand": ["latest_invoice.payments.data.payment.payment_intent", "customer"]},
    )
    assert found.customer.id == customer  # type: ignore[union-attr]
    payments = found.latest_invoice.payments  # type: ignore[union-attr]
    assert payments.data[0].payment.payment_intent.status == "succeeded"  # type: ignore[union-attr]
    for wrong in ("bogus", "customer.bogus", "status.x", "a.b.c.d.e"):
        with pytest.raises(stripe.InvalidRequestError):
            await shop.stripe.v1.subscriptions.retrieve_async(subscription.id, {"expand": [wrong]})


async def _a_rich_life(shop: Shop) -> list[dict[str, Any]]:
    """Answers of many calls, after a life in which most things happened."""
    client = shop.stripe.v1
    customer = await shop.customer(email="a@example.com", metadata={"account": "x"})
    subscription = await shop.subscribe(customer, shop.pro, FAILS_LATER)
    pack = await shop.buy_pack(customer, IS_DISPUTED)
    dispute = (await client.disputes.list_async()).data[0]
    shop.stand_in.decide(dispute.id, "won")
    refund = await client.refunds.create_async(
        {"payment_intent": pack["payment_intent"], "amount": 10}
    )
    answers: list[Any] = [
        await shop.checkout(customer, shop.pro, expand=["line_items"]),
        await client.billing_portal.sessions.create_async(
            {"customer": customer, "return_url": "http://x", "expand": ["configuration"]}
        ),
        refund,
    ]
    shop.stand_in.advance(timedelta(days=32))
    shop.stand_in.replace_card(customer)
    shop.stand_in.advance(timedelta(days=4))
    changed = await shop.change(subscription, shop.enterprise, proration_behavior="always_invoice")
    preview = await client.invoices.create_preview_async({"subscription": subscription.id})
    invoices = await client.invoices.list_async(
        {"expand": ["data.payments.data.payment.payment_intent"], "limit": 3}
    )
    clock = await client.test_helpers.test_clocks.create_async({"frozen_time": 1_700_000_000})
    answers += [changed, preview, clock, *invoices.data, *(await client.charges.list_async()).data]
    answers += (await client.payment_methods.list_async({"customer": customer})).data
    answers.append(await client.subscriptions.cancel_async(subscription.id))
    return [answer.to_dict() for answer in answers]


async def test_every_answer_and_event_has_the_sdk_s_shape(shop: Shop) -> None:
    wrong = {problem for answer in await _a_rich_life(shop) for problem in problems(answer)}
    kinds = set()
    events = await shop.stripe.v1.events.list_async({"limit": 100})
    async for event in events.auto_paging_iter():
        body = event.to_dict()
        wrong.update(problems(body["data"].pop("object")))
        wrong.update(problems(body | {"data": {"object": {}}}))
        kinds.add(event.type)
    assert not wrong
    assert len(kinds) > 25


async def test_what_went_wrong_before_was_not_done(shop: Shop) -> None:
    for status in (429, 500, 503):
        shop.stand_in.faults(api=[{"status": status, "path": "/v1/customers", "times": 1}])
        with pytest.raises(stripe.StripeError) as failed:
            await shop.customer()
        assert failed.value.http_status == status
    shop.stand_in.faults(api=[{"kind": "reset", "times": 1}])
    with pytest.raises(stripe.APIConnectionError):
        await shop.customer()
    assert not (await shop.stripe.v1.customers.list_async()).data
    shop.stand_in.faults()
    await shop.customer()


@pytest.mark.parametrize("kind", ["fail", "reset"])
@pytest.mark.parametrize("answer", ["kept", "lost"])
async def test_what_went_wrong_after_was_done(shop: Shop, kind: str, answer: str) -> None:
    keep = answer == "kept"
    fault = {"kind": kind, "status": 500, "when": "after", "keep": keep, "times": 1}
    shop.stand_in.faults(api=[fault])
    options: Any = {IDEMPOTENT.lower().replace("-", "_"): "k"}
    with pytest.raises(stripe.StripeError):
        await shop.stripe.v1.customers.create_async({"name": "a"}, options)
    made = (await shop.stripe.v1.customers.list_async()).data
    assert [one.name for one in made] == ["a"]
    if keep:
        with pytest.raises(stripe.APIError):
            await shop.stripe.v1.customers.create_async({"name": "a"}, options)
    else:
        again = await shop.stripe.v1.customers.create_async({"name": "a"}, options)
        assert again.id == made[0].id


async def test_the_sdk_s_own_retries_do_a_thing_once(shop: Shop) -> None:
    shop.stand_in.faults(api=[{"kind": "reset", "when": "after", "times": 1}])
    http = stripe.HTTPXClient()
    patient = StripeClient(
        KEY,
        base_addresses={"api": shop.stand_in.url},
        http_client=http,
        max_network_retries=1,
    )
    made = await patient.v1.customers.create_async({"name": "a"})
    assert [one.id for one in (await patient.v1.customers.list_async()).data] == [made.id]
    await http.close_async()  # type: ignore[no-untyped-call]


def _noise(dice: random.Random, ids: list[str]) -> dict[str, str]:
    """Parameters, some of which mean something."""
    names = sorted({name for endpoint in ENDPOINTS for name in endpoint.schema.fields})
    values = ["", "1", "-1", "true", "usd", "month", "99999999999", "9" * 40, "\x00", "é", *ids]
    tails = ["", "[0]", "[id]", "[0][price]", "[price_data][unit_amount]", "[gte]", "[a]", "[]"]
    return {
        dice.choice(names) + dice.choice(tails): dice.choice(values)
        for _ in range(dice.randint(0, 6))
    }


async def test_whatever_is_sent_nothing_breaks(shop: Shop, http: httpx.AsyncClient) -> None:
    dice = random.Random(11)
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro)
    pack = await shop.buy_pack(customer)
    ids = [customer, subscription.id, subscription["items"].data[0].id, shop.enterprise]
    ids += [pack["id"], pack["payment_intent"], str(subscription.latest_invoice), "pm_card_visa"]
    statuses = set()
    for _ in range(400):
        endpoint = dice.choice(ENDPOINTS)
        path = endpoint.path.replace("{id}", dice.choice(ids))
        noise = _noise(dice, ids)
        query = {} if endpoint.method == "POST" else {"params": noise}
        body = urlencode(noise).encode() if endpoint.method == "POST" else b""
        answer = await http.request(endpoint.method, path, content=body, **query)  # type: ignore[arg-type]
        assert answer.status_code < 500, (endpoint.method, path, noise, answer.text)
        statuses.add(answer.status_code)
    assert {200, 400, 404} <= statuses
