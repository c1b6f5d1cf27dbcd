"""A user pays: from free to pro and back, by REST and the page where people pay."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, User, wait_for

pytestmark = [pytest.mark.timeout(240)]

CARD, DECLINED = "4242 4242 4242 4242", "4000 0000 0000 0002"
SUBSCRIPTION = "/v1/billing/subscription"
# long enough to be seen waiting
SLOW: dict[str, Any] = {"steps": 50, "n": 4}


@pytest.fixture
def carla(stack: Stack) -> User:
    return stack.client("carla", "free")


def me(user: User) -> dict[str, Any]:
    return dict(user.get("/v1/me").json())


def checkout(stack: Stack, user: User, **wanted: object) -> str:
    """The URL of a page to pay on."""
    back = {"success_url": f"{stack.url}/docs?paid", "cancel_url": f"{stack.url}/docs"}
    answer = user.post("/v1/billing/checkout", {**back, **wanted})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["url"])


def pay(url: str, card: str = CARD) -> httpx.Response:
    """What a person does on the page: read it, type a card, send the form."""
    page = httpx.get(url, timeout=10)
    assert page.status_code == 200
    assert '<form method="post"' in page.text
    return httpx.post(url, data={"card": card}, timeout=10)


def ledger(user: User, **wanted: str | int) -> list[dict[str, Any]]:
    return list(user.get("/v1/billing/ledger", params={"limit": 100, **wanted}).json()["items"])


def tier(stack: Stack, user: str) -> int:
    """The priority that the scheduler has waiting jobs of the user in."""
    ((priority,),) = stack.rows(
        "scheduler", "SELECT priority FROM open_jobs WHERE user_id = %s", user
    )
    return int(priority)


def test_from_free_to_pro_and_back(stack: Stack, carla: User) -> None:
    assert (me(carla)["plan"]["key"], me(carla)["subscription"]) == ("free", None)
    estimate = carla.post("/v1/generations/estimate", {"prompt": "a red circle", **SLOW}).json()
    assert estimate["position"] >= 1
    jobs = [carla.submit("a red circle on a white background", **SLOW) for _ in range(3)]
    assert {job["price_millicredits"] for job in jobs} == {estimate["total_millicredits"]}
    assert carla.try_submit("x").status_code == 429  # 1 runs, 2 wait: all that free allows

    url = checkout(stack, carla, plan="pro")
    refused = pay(url, DECLINED)
    assert refused.status_code == 402
    paid = pay(url)
    assert (paid.status_code, paid.headers["location"]) == (303, f"{stack.url}/docs?paid")
    account = wait_for(
        lambda: found if (found := me(carla))["plan"]["key"] == "pro" else None,
        "the plan that was paid for",
    )
    assert (account["subscription"]["status"], account["subscription"]["plan"]) == ("active", "pro")
    pro = account["plan"]["monthly_millicredits"]
    grants = [line for line in ledger(carla) if line["millicredits"] == pro]
    assert len(grants) == 1, ledger(carla)
    # jobs that wait have moved with their user, and more may be open
    wait_for(lambda: tier(stack, account["user_id"]) == account["plan"]["priority"], "the new tier")
    jobs.append(carla.submit("a blue square on a yellow background", steps=4))
    ended = [carla.wait(job["id"]) for job in jobs]
    assert {job["state"] for job in ended} == {"succeeded"}
    assert carla.post("/v1/billing/checkout", body_of(stack, plan="pro")).status_code == 409

    before = carla.settled_credits()
    assert pay(checkout(stack, carla, pack="small")).status_code == 303
    wait_for(lambda: carla.credits()["available_millicredits"] == before + 100_000, "the pack")
    explained(carla, [job["id"] for job in ended])

    stopped = carla.delete(SUBSCRIPTION).json()
    assert stopped["subscription"]["cancel_at_period_end"] is True
    assert stopped["plan"]["key"] == "pro"
    resumed = carla.post(f"{SUBSCRIPTION}/resume", None).json()
    assert resumed["subscription"]["cancel_at_period_end"] is False
    portal = carla.post("/v1/billing/portal", {"return_url": f"{stack.url}/docs"})
    page = httpx.get(portal.json()["url"], timeout=10)
    assert page.status_code == 200

    checked = stack.ledger_check()
    assert checked.returncode == 0, checked.stdout + checked.stderr


def body_of(stack: Stack, **wanted: object) -> dict[str, object]:
    return {"success_url": f"{stack.url}/docs", "cancel_url": f"{stack.url}/docs", **wanted}


def ledger_by_pages(user: User) -> list[dict[str, Any]]:
    """All lines, a few at a time."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        params: dict[str, str | int] = {"limit": 3, "cursor": cursor}
        page = user.get("/v1/billing/ledger", params=params).json()
        found += page["items"]
        cursor = page["next_cursor"]
    return found


def explained(user: User, job_ids: list[str]) -> None:
    """Ledger, usage and statement tell the same of the jobs, and add up to the balance."""
    lines = ledger(user)
    assert ledger_by_pages(user) == lines
    assert sum(line["millicredits"] for line in lines) == lines[0]["available_after_millicredits"]
    usage = user.get("/v1/billing/usage", params={"limit": 100}).json()
    charged = {item["job_id"]: item["charged_millicredits"] for item in usage["items"]}
    assert set(charged) == set(job_ids)  # a submit that the queue refused is none of them
    assert usage["totals"]["charged_millicredits"] == sum(charged.values())
    for job_id in job_ids:
        told = sum(line["millicredits"] for line in ledger(user, job_id=job_id))
        assert charged[job_id] == -told == user.job(job_id)["charged_millicredits"]
    month = datetime.now(UTC).strftime("%Y-%m")
    statement = user.get(f"/v1/billing/statements/{month}")
    assert statement.headers["content-type"] == "text/csv; charset=utf-8"
    assert f"easel-statement-{month}.csv" in statement.headers["content-disposition"]
    rows = list(csv.reader(io.StringIO(statement.text)))
    assert len(rows) >= 1 + len(lines)


def test_a_page_never_leads_elsewhere(stack: Stack, carla: User) -> None:
    body = body_of(stack, plan="pro") | {"success_url": "https://evil.example/"}
    answer = carla.post("/v1/billing/checkout", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "success_url")


def test_a_forged_webhook_is_refused(stack: Stack) -> None:
    answer = httpx.post(
        f"{stack.url}/v1/webhooks/stripe",
        content=b'{"id": "evt_1", "type": "checkout.session.completed"}',
        headers={"Stripe-Signature": f"t={int(datetime.now(UTC).timestamp())},v1={'0' * 64}"},
        timeout=10,
    )
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad-signature")
