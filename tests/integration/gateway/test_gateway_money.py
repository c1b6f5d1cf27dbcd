"""Money over REST: estimates, plans, usage, statements, payments, webhooks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from easel.billing.v1 import billing_pb2 as bill
from easel.scheduler.v1 import jobs_pb2
from easel_kit.errors import DependencyDown, Internal, InvalidInput
from easel_kit.ids import new_job_id
from tests.fakes.gateway import Gateway, Start
from tests.fakes.gateway_payments import SIGNATURE

HERE = "https://app.example"
BACK = {"success_url": f"{HERE}/thanks", "cancel_url": f"{HERE}/plans"}
ESTIMATE, CHECKOUT = "/v1/generations/estimate", "/v1/billing/checkout"
SUBSCRIPTION, STRIPE = "/v1/billing/subscription", "/v1/webhooks/stripe"


@pytest.fixture
def paid(start: Start) -> Start:
    """Gateways that pages to pay on may lead back to."""

    def starting(**changed: object) -> Any:  # noqa: ANN401 (as Start)
        return start(**{"return_origins": (HERE,), "public_url": "", **changed})

    return starting


async def estimate(gateway: Gateway, path: str = ESTIMATE, **body: object) -> httpx.Response:
    return await gateway.http.post(path, json=body, headers=gateway.auth())


async def test_an_estimate_is_what_a_submit_then_says(gateway: Gateway) -> None:
    wish: dict[str, Any] = {"prompt": "x", "steps": 20, "n": 2, "hires": {"scale": 1.5}}
    found = (await estimate(gateway, **wish)).json()
    assert "PlaceHolds" not in gateway.billing.calls
    assert gateway.scheduler.submissions == []
    assert found["total_millicredits"] == found["price_millicredits"]
    assert (found["available_credits"], found["sufficient"]) == ("1.000", True)
    assert found["eta_seconds"] > 0
    job = await gateway.submit(**wish)
    assert job["price_millicredits"] == found["price_millicredits"]
    assert job["price_credits"] == found["price_credits"]
    assert job["position"] == found["position"] == 1


async def test_an_estimate_refuses_as_a_submit_does(gateway: Gateway) -> None:
    large = {"prompt": "x", "hires": {"scale": 4, "steps": 1}, "width": 64, "height": 64}
    gateway.scheduler.models[0].ClearField("sizes")
    for wish, status in (
        (large | {"width": 1024, "height": 1024}, 403),
        ({"prompt": "x", "model": "nope"}, 422),
        ({"prompt": ""}, 422),
        ({"prompt": "x", "init_image": {"image": "img_" + "0" * 32, "strength": 0.5}}, 422),
    ):
        asked, submitted = [
            await gateway.http.post(path, json=wish, headers=gateway.auth())
            for path in (ESTIMATE, "/v1/generations")
        ]
        problems = [answer.json() | {"request_id": ""} for answer in (asked, submitted)]
        assert asked.status_code == submitted.status_code == status
        assert problems[0] == problems[1]
    assert (await gateway.http.post(ESTIMATE, json={"prompt": "x"})).status_code == 401


async def test_an_estimate_tells_too_few_credits_and_too_many_jobs(gateway: Gateway) -> None:
    gateway.billing.available["alice"] = 39
    poor = (await estimate(gateway, prompt="x")).json()
    assert (poor["sufficient"], poor["price_millicredits"], poor["warnings"]) == (False, 40, [])
    refused = await gateway.http.post(
        "/v1/generations", json={"prompt": "x"}, headers=gateway.auth()
    )
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (402, "/problems/insufficient-credits")
    assert problem["needed_millicredits"] == poor["price_millicredits"]
    assert problem["available_millicredits"] == 39
    assert (problem["offers_url"], problem["checkout_url"]) == ("/v1/plans", CHECKOUT)
    assert "0.040 credits, 0.039 are available; /v1/plans" in problem["detail"]
    gateway.billing.available["alice"] = 1_000
    for _ in range(3):
        await gateway.submit()
    full = (await estimate(gateway, prompt="x")).json()
    assert (full["position"], full["eta_seconds"]) == (None, None)
    assert "3 of your jobs run or wait" in full["warnings"][0]


async def test_a_batch_is_estimated_as_a_whole(gateway: Gateway) -> None:
    path = "/v1/batches/estimate"
    found = (await estimate(gateway, path, prompts=["a", "b"], seeds=[1, 2, 3], runs=4)).json()
    assert (found["jobs"], found["price_credits"], found["total_credits"]) == (24, "0.040", "0.960")
    too_many = await estimate(gateway, path, prompts=["a", "b"], runs=300)
    assert (too_many.status_code, too_many.json()["errors"][0]["field"]) == (422, "prompts")


async def test_a_queue_that_is_away_costs_the_outlook_alone(gateway: Gateway) -> None:
    async def broken() -> None:
        raise Internal("a fault of the scheduler's")

    gateway.scheduler.fault = broken
    found = (await estimate(gateway, prompt="x")).json()
    assert (found["price_millicredits"], found["position"]) == (40, None)
    assert found["warnings"] == ["the queue does not answer: position and eta are unknown"]


async def test_plans_say_everything_and_packs_are_beside_them(gateway: Gateway) -> None:
    found = (await gateway.http.get("/v1/plans")).json()
    pro = found["items"][1]
    assert (pro["key"], pro["weight"], pro["storage_bytes"]) == ("pro", 4, 10**11)
    assert pro["monthly_credits"] == "1000.000"
    assert found["packs"] == [
        {
            "key": "small",
            "name": "Small",
            "price_cents": 500,
            "currency": "usd",
            "millicredits": 200_000,
            "credits": "200.000",
            "valid_days": 365,
        }
    ]


def used(job_id: str, ended_at: datetime, charged: int) -> bill.UsageLine:
    stamp = Timestamp()
    stamp.FromDatetime(ended_at)
    work = bill.Work(model_key="shapes-64", width_px=64, height_px=64, steps=10, image_count=1)
    return bill.UsageLine(
        job_id=job_id,
        ended_at=stamp,
        work=work,
        held_millicredits=40,
        charged_millicredits=charged,
        reason="finished",
    )


async def test_usage_by_page_and_time_with_totals(gateway: Gateway) -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    jobs = [new_job_id() for _ in range(3)]
    gateway.billing.usage["alice"] = [
        used(job, noon - timedelta(hours=n), 40 - n) for n, job in enumerate(jobs)
    ]
    path, headers = "/v1/billing/usage", gateway.auth()
    first = (await gateway.http.get(path, params={"limit": 2}, headers=headers)).json()
    assert first["items"][0] == {
        "job_id": jobs[0],
        "ended_at": "2026-11-23T12:00:00Z",
        "model": "shapes-64",
        "width": 64,
        "height": 64,
        "steps": 10,
        "n": 1,
        "held_millicredits": 40,
        "charged_millicredits": 40,
        "charged_credits": "0.040",
        "reason": "finished",
    }
    totals = {"jobs": 3, "charged_millicredits": 117, "charged_credits": "0.117"}
    assert first["totals"] == totals
    rest = await gateway.http.get(path, params={"cursor": first["next_cursor"]}, headers=headers)
    assert [item["job_id"] for item in rest.json()["items"]] == [jobs[2]]
    assert (rest.json()["totals"], rest.json()["next_cursor"]) == (totals, None)
    within = {"since": "2026-11-23T11:00:00Z", "until": "2026-11-23T12:00:00Z"}
    found = (await gateway.http.get(path, params=within, headers=headers)).json()
    assert [item["job_id"] for item in found["items"]] == [jobs[1]]
    for wrong, field in (({"cursor": "x"}, "cursor"), ({"since": "2026-11-23"}, "since")):
        answer = await gateway.http.get(path, params=wrong, headers=headers)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    other = await gateway.http.get(path, headers=gateway.auth("mallory"))
    assert other.json()["items"] == []


async def test_a_statement_is_streamed_as_a_file(gateway: Gateway) -> None:
    gateway.billing.statement = [b"time,kind\n2026-11-01,", b"x" * 100_000]
    path = "/v1/billing/statements/2026-11"
    answer = await gateway.http.get(path, headers=gateway.auth())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    disposition = 'attachment; filename="easel-statement-2026-11.csv"'
    assert answer.headers["content-disposition"] == disposition
    assert answer.content == b"".join(gateway.billing.statement)
    (asked,) = gateway.billing.statements
    assert (asked.user_id, asked.year, asked.month) == ("alice", 2026, 11)
    for wrong in ("2026-13", "2026-1", "26-01", "2026-11x", "latest"):
        refused = await gateway.http.get(f"/v1/billing/statements/{wrong}", headers=gateway.auth())
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "month")


async def test_what_goes_wrong_before_a_statement_begins_has_its_own_status(
    gateway: Gateway,
) -> None:
    async def too_old() -> None:
        raise InvalidInput("year", "is before Easel")

    gateway.billing.statement_fault = too_old
    path = "/v1/billing/statements/2001-01"
    answer = await gateway.http.get(path, headers=gateway.auth())
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "month")


async def test_a_statement_that_breaks_off_is_no_whole_file(gateway: Gateway) -> None:
    async def broken() -> None:
        raise Internal("a fault of billing's")

    gateway.billing.statement, gateway.billing.statement_fault = [b"time,kind\n"], broken
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.http.get("/v1/billing/statements/2026-11", headers=gateway.auth())


async def test_a_checkout_leads_to_a_page_and_is_the_same_for_the_same_key(paid: Start) -> None:
    async with paid() as gateway:
        headers = gateway.auth()
        key = headers | {"Idempotency-Key": "upgrade 1"}
        first, again = [
            await gateway.http.post(CHECKOUT, json={"plan": "pro", **BACK}, headers=key)
            for _ in range(2)
        ]
        assert first.json()["url"] == "https://pay.example/alice/upgrade 1"
        assert first.json()["url"] == again.json()["url"]
        asked = gateway.payments.checkouts["alice", "upgrade 1"]
        assert (asked.plan_key, asked.pack_key) == ("pro", "")
        assert (asked.success_url, asked.cancel_url) == tuple(BACK.values())
        other = await gateway.http.post(CHECKOUT, json={"pack": "small", **BACK}, headers=key)
        assert (other.status_code, other.json()["type"]) == (409, "/problems/conflict")
        fresh = {
            (
                await gateway.http.post(CHECKOUT, json={"pack": "small", **BACK}, headers=headers)
            ).json()["url"]
            for _ in range(2)
        }
        assert len(fresh) == 2


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({**BACK}, 422, "plan"),
        ({"plan": "pro", "pack": "small", **BACK}, 422, "plan"),
        ({"plan": "free", **BACK}, 422, "plan"),
        ({"plan": "gold", **BACK}, 404, "gold"),
        ({"pack": "huge", **BACK}, 404, "huge"),
        ({"plan": "pro", **BACK, "success_url": "https://evil.example/"}, 422, "success_url"),
        ({"plan": "pro", **BACK, "cancel_url": "/plans"}, 422, "cancel_url"),
        ({"plan": "pro", **BACK, "surprise": 1}, 422, "surprise"),
        ({"plan": "pro"}, 422, "success_url"),
    ],
)
async def test_a_wrong_checkout_names_what_is_wrong(
    paid: Start, body: dict[str, object], status: int, named: str
) -> None:
    async with paid() as gateway:
        answer = await gateway.http.post(CHECKOUT, json=body, headers=gateway.auth())
        assert answer.status_code == status
        assert named in answer.json()["detail"]
        assert gateway.payments.checkouts == {}


async def test_the_gateways_own_address_may_be_led_back_to(start: Start) -> None:
    async with start(public_url="https://easel.example/api") as gateway:
        opened, refused = [
            await gateway.http.post(
                "/v1/billing/portal", json={"return_url": url}, headers=gateway.auth()
            )
            for url in ("https://easel.example/x", f"{HERE}/x")
        ]
        assert opened.json() == {"url": "https://pay.example/portal/alice"}
        assert refused.json()["errors"][0]["field"] == "return_url"
        (asked,) = gateway.payments.portals
        assert asked.return_url == "https://easel.example/x"


async def test_a_subscription_from_change_to_resume(paid: Start) -> None:
    async with paid(trust_plan_claim=True) as gateway:
        headers = gateway.auth(**{"easel:plan": "free"})
        for method, path, body in (
            ("PATCH", SUBSCRIPTION, {"plan": "pro"}),
            ("DELETE", SUBSCRIPTION, None),
            ("POST", f"{SUBSCRIPTION}/resume", None),
        ):
            none = await gateway.http.request(method, path, json=body, headers=headers)
            assert (none.status_code, none.json()["type"]) == (409, "/problems/invalid-state")
            assert none.json()["detail"] == "there is no subscription"
        gateway.payments.subscribe("alice")
        me = (await gateway.http.get("/v1/me", headers=headers)).json()
        assert (me["plan"]["key"], me["subscription"]["plan"]) == ("pro", "pro")
        assert me["subscription"]["status"] == "active"
        assert me["subscription"]["period_end"] is not None
        changed = await gateway.http.patch(SUBSCRIPTION, json={"plan": "free"}, headers=headers)
        assert (changed.status_code, changed.json()["plan"]["key"]) == (200, "free")
        stopped = await gateway.http.delete(SUBSCRIPTION, headers=headers)
        assert stopped.json()["subscription"]["cancel_at_period_end"] is True
        resumed = await gateway.http.post(f"{SUBSCRIPTION}/resume", headers=headers)
        assert resumed.json()["subscription"]["cancel_at_period_end"] is False
        gateway.payments.declines = True
        declined = await gateway.http.patch(SUBSCRIPTION, json={"plan": "pro"}, headers=headers)
        assert (declined.status_code, declined.json()["detail"]) == (409, "the card was declined")
        twice = await gateway.http.post(CHECKOUT, json={"plan": "pro", **BACK}, headers=headers)
        assert twice.status_code == 409
        assert "change it instead" in twice.json()["detail"]


async def test_where_no_payments_are_set_up_it_says_so(paid: Start) -> None:
    async with paid() as gateway:
        gateway.payments.are_set_up = False
        answer = await gateway.http.post(
            CHECKOUT, json={"plan": "pro", **BACK}, headers=gateway.auth()
        )
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/invalid-state")
        assert answer.json()["detail"] == "no payments are set up here"
        assert (await gateway.http.get("/v1/me", headers=gateway.auth())).status_code == 200


async def test_debt_is_shown(gateway: Gateway) -> None:
    gateway.billing.available["alice"], gateway.billing.debts["alice"] = 0, 1_500
    credit = (await gateway.http.get("/v1/me", headers=gateway.auth())).json()["credits"]
    assert (credit["debt_millicredits"], credit["debt_credits"]) == (1_500, "1.500")


async def notify(gateway: Gateway, body: bytes, signature: str = SIGNATURE) -> httpx.Response:
    return await gateway.http.post(
        STRIPE, content=body, headers={"Stripe-Signature": signature} if signature else {}
    )


async def test_a_webhook_is_passed_on_byte_for_byte(gateway: Gateway) -> None:
    body = b'{ "id":"evt_1",\r\n "x": "\xc3\xa4\x00" }\n'
    answer = await notify(gateway, body)
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    largest = b"x" * 512 * 1024
    assert (await notify(gateway, largest)).status_code == 200
    assert gateway.payments.events == [body, largest]
    assert (await notify(gateway, largest + b"x")).status_code == 413


async def test_a_webhook_of_somebody_else_is_400(gateway: Gateway) -> None:
    for signature in ("t=1,v1=wrong", "", "x" * 4000):
        answer = await notify(gateway, b"{}", signature)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad-signature")
    assert gateway.payments.events == []


async def test_a_webhook_that_is_not_kept_is_not_200(start: Start) -> None:
    async def away() -> None:
        raise DependencyDown("away")

    async with start(rpc_timeout_s=4) as gateway:
        gateway.payments.fault = away
        answer = await notify(gateway, b"{}")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        gateway.payments.fault = None
        gateway.payments.are_set_up = False
        assert (await notify(gateway, b"{}")).status_code == 409
        assert gateway.payments.events == []


async def test_stripe_is_not_throttled_by_its_address_but_bounded(
    start: Start, redis_url: str
) -> None:
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    changed = {"redis_url": redis_url, "address_requests_per_minute": 1, "max_webhooks": 2}
    async with start(**changed) as gateway:
        for _ in range(5):
            assert (await notify(gateway, b"{}")).status_code == 200
        gateway.payments.fault = wait
        both = [asyncio.ensure_future(notify(gateway, b"{}")) for _ in range(4)]
        done, waiting = await asyncio.wait(both, timeout=0.5)
        assert [one.result().status_code for one in done] == [503, 503]
        go_on.set()
        assert {(await one).status_code for one in waiting} == {200}


async def test_open_jobs_of_before_do_not_stand_in_the_way(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    await gateway.scheduler.end(job, jobs_pb2.JOB_STATE_CANCELLED)
    assert (await estimate(gateway, prompt="x")).json()["position"] == 1
