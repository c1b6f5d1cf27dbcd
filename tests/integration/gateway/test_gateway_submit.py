"""Submit: what is refused before money moves, and what becomes of the hold afterwards."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from easel.billing.v1 import billing_pb2
from easel.scheduler.v1 import jobs_pb2
from easel_kit import errors
from tests.fakes.gateway import Gateway, Start, until


async def post(gateway: Gateway, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await gateway.http.post(
        "/v1/generations", json={"prompt": "a red circle"} | body, headers=gateway.auth() | headers
    )


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fault() -> None:
        raise error

    return fault


async def test_a_job_is_queued_under_a_hold(gateway: Gateway) -> None:
    answer = await post(gateway, {"seed": 7})
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/generations/{body['id']}"
    assert (body["state"], body["position"], body["eta_seconds"]) == ("queued", 1, 2.5)
    assert (body["price_millicredits"], body["price_credits"]) == (40, "0.040")
    assert body["charged_millicredits"] is None
    assert (body["model"], body["width"], body["steps"], body["seed"]) == ("shapes-64", 64, 10, 7)
    submission = gateway.scheduler.submissions[0]
    assert submission.jobs[0].cost_ms == 8
    assert (submission.entitlements.priority, submission.entitlements.max_waiting) == (1, 2)
    got = await gateway.http.get(answer.headers["location"], headers=gateway.auth())
    assert got.json() == body


async def test_a_seed_is_drawn_and_told(gateway: Gateway) -> None:
    seeds = {(await gateway.submit())["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert {job.jobs[0].generation.seed for job in gateway.scheduler.submissions} == seeds


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": ""}, "prompt", "1"),
    ({"prompt": "x" * 2001}, "prompt", "2000"),
    ({"prompt": "nul\x00"}, "prompt", ""),
    ({"prompt": 5}, "prompt", "string"),
    ({"model": "sdxl"}, "model", "shapes-64"),
    ({"width": 128}, "width", "64x64"),
    ({"height": 72}, "height", "64x64"),
    ({"width": 4}, "width", "8"),
    ({"steps": 51}, "steps", "50"),
    ({"steps": 0}, "steps", "1"),
    ({"sampler": "magic"}, "sampler", "ddim, euler"),
    ({"n": 17}, "n", "16"),
    ({"guidance": 0.5}, "guidance", "1"),
    ({"seed": 2**32}, "seed", "4294967295"),
    ({"priority": 9}, "priority", "not permitted"),
]


async def test_a_wrong_field_is_named_with_what_is_allowed(gateway: Gateway) -> None:
    for body, field, allowed in WRONG:
        answer = await post(gateway, body)
        problem = answer.json()
        assert answer.status_code == 422, body
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["type"] == "/problems/invalid-input"
        assert [error["field"] for error in problem["errors"]] == [field]
        assert allowed in problem["errors"][0]["reason"], body
    assert gateway.billing.holds == {}


async def test_a_lone_surrogate_is_no_text(gateway: Gateway) -> None:
    answer = await gateway.http.post(
        "/v1/generations",
        content=b'{"prompt": "\\ud800"}',
        headers=gateway.auth() | {"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "prompt")


async def test_too_few_credits_is_402_and_nothing_happens(gateway: Gateway) -> None:
    gateway.billing.available["alice"] = 39
    answer = await post(gateway, {})
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (402, "/problems/insufficient-credits")
    assert (problem["needed_millicredits"], problem["available_millicredits"]) == (40, 39)
    assert "job_id" not in problem
    assert (gateway.scheduler.submissions, gateway.billing.holds) == ([], {})


async def test_work_beyond_the_plan_is_403(gateway: Gateway) -> None:
    gateway.billing.fault = raising(errors.Forbidden("your plan allows 2 pictures"))
    answer = await post(gateway, {"n": 3})
    assert (answer.status_code, answer.json()["detail"]) == (403, "your plan allows 2 pictures")
    assert gateway.scheduler.submissions == []


async def test_over_the_limit_is_429_with_nothing_held(gateway: Gateway) -> None:
    gateway.scheduler.before_submit = raising(
        errors.RateLimited("3 of 3", retry_after_s=2.2, limit=3, current=3)
    )
    answer = await post(gateway, {})
    problem = answer.json()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert problem["detail"] == "Too many concurrent requests"
    assert (problem["limit"], problem["current"]) == (3, 3)
    assert [hold.state for hold in gateway.billing.holds.values()] == [
        billing_pb2.HOLD_STATE_RELEASED
    ]
    assert gateway.billing.available["alice"] == 1_000


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (errors.InvalidInput("steps", "too many"), 422),
        (errors.InvalidState("this job id was buried"), 409),
    ],
)
async def test_every_definite_refusal_releases_the_hold(
    gateway: Gateway, refusal: errors.DomainError, status: int
) -> None:
    gateway.scheduler.before_submit = raising(refusal)
    assert (await post(gateway, {})).status_code == status
    assert gateway.billing.available["alice"] == 1_000


async def test_a_lost_answer_leaves_the_hold_and_names_the_job(gateway: Gateway) -> None:
    never = asyncio.Event()

    async def lose() -> None:
        await never.wait()

    gateway.scheduler.after_submit = lose
    answer = await post(gateway, {})
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (504, "/problems/deadline-exceeded")
    assert [hold.state for hold in gateway.billing.holds.values()] == [billing_pb2.HOLD_STATE_OPEN]
    found = await gateway.http.get(f"/v1/generations/{problem['job_id']}", headers=gateway.auth())
    assert (found.status_code, found.json()["state"]) == (200, "queued")


@pytest.mark.parametrize(
    ("fault", "status"),
    [(errors.DependencyDown("away"), 503), (RuntimeError("a bug of the scheduler's"), 500)],
)
async def test_an_unclear_end_leaves_the_hold(start: Start, fault: Exception, status: int) -> None:
    async with start(rpc_timeout_s=4) as gateway:
        gateway.scheduler.before_submit = raising(fault)
        answer = await post(gateway, {})
    assert answer.status_code == status
    assert "bug" not in answer.text
    (job_id, hold), *_ = gateway.billing.holds.items()
    assert (answer.json()["job_id"], hold.state) == (job_id, billing_pb2.HOLD_STATE_OPEN)


async def test_a_client_that_leaves_strands_nothing(gateway: Gateway) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await go_on.wait()

    gateway.scheduler.before_submit = wait
    async with httpx.AsyncClient(base_url=gateway.url) as leaving:
        request = asyncio.ensure_future(
            leaving.post("/v1/generations", json={"prompt": "x"}, headers=gateway.auth())
        )
        await entered.wait()
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
    go_on.set()
    await until(lambda: len(gateway.scheduler.jobs) == 1)
    assert gateway.billing.holds.keys() == gateway.scheduler.jobs.keys()


async def test_prefer_wait_answers_with_the_end(gateway: Gateway) -> None:
    waiting = asyncio.ensure_future(post(gateway, {}, Prefer="respond-async, wait=20"))
    await until(lambda: gateway.scheduler.watchers == 1)
    (job,) = gateway.scheduler.jobs
    await gateway.scheduler.start(job)
    image = await gateway.scheduler.succeed(job)
    answer = await waiting
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
    assert answer.json()["state"] == "succeeded"
    assert [found["id"] for found in answer.json()["images"]] == [image.id]


async def test_prefer_wait_ends_in_time_with_the_job_as_it_is(gateway: Gateway) -> None:
    answer = await post(gateway, {}, Prefer="wait=1")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


async def test_a_stop_ends_the_wait(start: Start) -> None:
    async with start() as gateway:
        waiting = asyncio.ensure_future(post(gateway, {}, Prefer="wait=60"))
        await until(lambda: gateway.scheduler.watchers == 1)
        gateway.stop.set()
        answer = await waiting
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


async def test_a_new_model_works_at_once_and_an_empty_catalogue_keeps_the_last(
    gateway: Gateway,
) -> None:
    await gateway.submit()
    new = type(gateway.scheduler.models[0])()
    new.CopyFrom(gateway.scheduler.models[0])
    new.key = "new"
    gateway.scheduler.models.append(new)
    await asyncio.sleep(0.5)  # a list this fresh is not asked for again
    assert (await gateway.submit(model="new"))["model"] == "new"
    gateway.scheduler.models.clear()
    assert (await gateway.submit(model="new"))["model"] == "new"


async def test_without_a_catalogue_nothing_is_promised(gateway: Gateway) -> None:
    gateway.scheduler.models.clear()
    answer = await post(gateway, {})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
    assert gateway.billing.holds == {}


async def test_the_trusted_claim_moves_the_user_once(start: Start) -> None:
    async with start(trust_plan_claim=True) as gateway:
        for _ in range(3):
            headers = gateway.auth("bob", **{"easel:plan": "pro"})
            me = await gateway.http.get("/v1/me", headers=headers)
            assert me.json()["plan"]["key"] == "pro"
        assert gateway.billing.calls.count("ChangePlan") == 1
        headers = gateway.auth("bob", **{"easel:plan": "gold"})
        assert (await gateway.http.get("/v1/me", headers=headers)).status_code == 403


async def test_the_claim_means_nothing_by_default(gateway: Gateway) -> None:
    headers = gateway.auth("bob", **{"easel:plan": "pro"})
    me = await gateway.http.get("/v1/me", headers=headers)
    assert me.json()["plan"]["key"] == "free"
    assert "ChangePlan" not in gateway.billing.calls


async def test_a_cancel_is_passed_on(gateway: Gateway) -> None:
    waiting, running = (await gateway.submit())["id"], (await gateway.submit())["id"]
    await gateway.scheduler.start(running)
    ended = await gateway.http.delete(f"/v1/generations/{waiting}", headers=gateway.auth())
    asked = await gateway.http.delete(f"/v1/generations/{running}", headers=gateway.auth())
    assert (ended.status_code, ended.json()["state"]) == (200, "cancelled")
    assert (asked.status_code, asked.json()["state"]) == (202, "running")
    assert asked.json()["cancel_requested"] is True
    assert gateway.scheduler.jobs[running].state == jobs_pb2.JOB_STATE_RUNNING
