"""What holds for every request: ids, problems, bounds, headers, limits, metrics, quiet logs."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from easel_kit.log import configure_logging
from gateway.service.catalogue import Catalogue
from tests.fakes.gateway import Gateway, Start, until, until_ready

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_refusals_of_the_framework_are_problems(gateway: Gateway) -> None:
    http, typed = gateway.http, {"Content-Type": "application/json"} | gateway.auth()
    submit = "/v1/generations"
    for answer, status, kind in (
        (await http.get("/nowhere"), 404, "not-found"),
        (await http.put("/v1/me"), 405, "method-not-allowed"),
        (await http.post(submit, content=b"\xff", headers=typed), 400, "malformed"),
        (await http.post(submit, content=b"{", headers=typed), 422, "invalid-input"),
        (await http.post(submit, content=b"[]", headers=typed), 422, "invalid-input"),
        (await http.post(submit, content=b"x", headers=gateway.auth()), 422, "invalid-input"),
        (await http.get(submit, params={"limit": 0}, headers=typed), 422, "invalid-input"),
    ):
        problem = answer.json()
        assert (answer.status_code, problem["status"]) == (status, status)
        assert problem["type"] == f"/problems/{kind}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == problem["request_id"]
    for path, allow in (("/v1/plans", "GET"), ("/v1/me", "DELETE, GET"), ("/docs", "GET")):
        assert (await gateway.http.put(path)).headers["allow"] == allow


async def test_a_request_keeps_its_id(gateway: Gateway) -> None:
    asked = await gateway.http.get("/healthz", headers={"X-Request-Id": "my-request.1"})
    assert asked.headers["x-request-id"] == "my-request.1"
    for wrong in ("x", "a b c d e f g h", "y" * 65):
        made = await gateway.http.get("/healthz", headers={"X-Request-Id": wrong})
        assert re.fullmatch(r"req_[0-9a-f]{32}", made.headers["x-request-id"])


async def test_bodies_are_bounded_declared_or_not(start: Start) -> None:
    async with start(max_body_bytes=1000) as gateway:
        headers = gateway.auth() | {"Content-Type": "application/json"}

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b" " * 100

        for content in (b" " * 1001, chunks()):
            answer = await gateway.http.post("/v1/generations", content=content, headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")


async def test_every_answer_has_safe_headers(gateway: Gateway) -> None:
    for path in ("/healthz", "/nowhere", "/openapi.json"):
        headers = (await gateway.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
    assert (await gateway.http.get("/healthz")).headers["cache-control"] == "no-store"
    docs = await gateway.http.get("/docs")
    assert docs.status_code == 200
    assert "http" not in docs.headers["content-security-policy"], "it needs no other host"
    for asset, kind in (
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui.css", "text/css"),
    ):
        assert f"docs/{asset}" in docs.text
        found = await gateway.http.get(f"/docs/{asset}")
        assert found.status_code == 200
        assert found.headers["content-type"].startswith(kind)
    assert (await gateway.http.get("/docs/other.js")).status_code == 404


async def test_a_fault_of_ours_is_told_in_fixed_words_and_logged_once(
    capsys: pytest.CaptureFixture[str],
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(_self: object) -> None:
        raise RuntimeError("secret details")

    monkeypatch.setattr(Catalogue, "all", broken)
    configure_logging("gateway")
    async with start() as gateway:
        answer = await gateway.http.get("/v1/models", headers=gateway.auth())
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal")
    assert "secret" not in answer.text
    written = capsys.readouterr()
    (told,) = [line for line in written.out.splitlines() if "secret details" in line]
    assert json.loads(told)["event"] == "request.failed"
    assert written.err == ""


async def test_logs_carry_the_trace_and_no_secret(
    capsys: pytest.CaptureFixture[str], start: Start
) -> None:
    configure_logging("gateway")
    async with start() as gateway:
        token = gateway.issuer.token()
        answer = await gateway.http.post(
            "/v1/generations",
            json={"prompt": "purple prose"},
            headers={
                "Authorization": f"Bearer {token}",
                "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
            },
        )
        job = answer.json()["id"]
        image = await gateway.scheduler.succeed(job)
        await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth())
        content = await gateway.http.get(f"/v1/images/{image.id}/content", headers=gateway.auth())
        link = content.headers["location"]
        await gateway.http.get(link)
    out = capsys.readouterr().out
    lines = [json.loads(line) for line in out.splitlines()]
    submitted = next(line for line in lines if line["event"] == "job.submitted")
    assert (submitted["trace_id"], submitted["job_id"], submitted["user_id"]) == (
        TRACE,
        job,
        "alice",
    )
    summary = next(
        line for line in lines if line["event"] == "request.finished" and line["method"] == "POST"
    )
    assert (summary["route"], summary["status"], summary["trace_id"]) == (
        "/v1/generations",
        202,
        TRACE,
    )
    assert {line["route"] for line in lines if line["event"] == "request.finished"} >= {
        "/v1/generations/{job_id}",
        "/v1/images/{image_id}/content",
        "/objects/{key:path}",
    }
    for secret in ("purple prose", token, link.rpartition("=")[2]):
        assert secret not in out


async def test_metrics_have_closed_labels(gateway: Gateway) -> None:
    await gateway.http.get("/v1/generations/job_x", headers=gateway.auth())
    await gateway.http.request("BREW", "/coffee/1")
    text = (await gateway.http.get("/metrics")).text
    counted = {line for line in text.splitlines() if line.startswith("easel_http_requests_total{")}
    routes = {
        re.findall(r'method="(.*?)",route="(.*?)",status="(.*?)"', line)[0] for line in counted
    }
    assert ("GET", "/v1/generations/{job_id}", "4xx") in routes
    assert ("other", "unmatched", "4xx") in routes
    assert not any("coffee" in route for _, route, _ in routes)


async def test_metrics_may_be_kept_from_the_door(start: Start) -> None:
    async with start(expose_metrics=False) as gateway:
        assert (await gateway.http.get("/metrics")).status_code == 404


async def test_too_much_at_once_is_refused_at_once(start: Start) -> None:
    async with start(max_requests=2) as gateway:
        job = (await gateway.submit())["id"]
        path = f"/v1/generations/{job}/events"
        async with (
            gateway.http.stream("GET", path, headers=gateway.auth()),
            gateway.http.stream("GET", path, headers=gateway.auth()),
        ):
            answer = await gateway.http.get("/v1/me", headers=gateway.auth())
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
        await until(lambda: gateway.scheduler.watchers == 0)
        await until_ready(gateway.http)


async def test_browsers_of_named_origins_may_call(start: Start) -> None:
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    async with start(cors_origins=("https://app.example",)) as gateway:
        allowed = await gateway.http.options("/v1/generations", headers=ask)
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert "PATCH" in allowed.headers["access-control-allow-methods"]
        assert "Idempotency-Key" in allowed.headers["access-control-allow-headers"]
        other = await gateway.http.options(
            "/v1/generations", headers=ask | {"Origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in other.headers
    async with start() as gateway:
        closed = await gateway.http.options("/v1/generations", headers=ask)
        assert "access-control-allow-origin" not in closed.headers


async def test_users_are_limited_by_their_plan(start: Start, redis_url: str) -> None:
    async with start(redis_url=redis_url, trust_plan_claim=True) as gateway:
        gateway.billing.requests_per_minute = 3
        me = [await gateway.http.get("/v1/me", headers=gateway.auth()) for _ in range(4)]
        assert [answer.status_code for answer in me] == [200, 200, 200, 429]
        assert me[0].headers["ratelimit-policy"] == '"user";q=3;w=60'
        assert me[0].headers["ratelimit"].startswith('"user";r=2;t=')
        refused = me[3].json()
        assert (refused["type"], refused["limit"]) == ("/problems/rate-limited", 3)
        assert 1 <= int(me[3].headers["retry-after"]) <= 60
        assert me[3].headers["ratelimit"].startswith('"user";r=0;t=')
        other = await gateway.http.get("/v1/me", headers=gateway.auth("bob"))
        assert other.status_code == 200


async def test_addresses_are_limited_before_authentication(start: Start, redis_url: str) -> None:
    changed = {"address_requests_per_minute": 3, "trusted_proxies": "127.0.0.1"}
    async with start(redis_url=redis_url, **changed) as gateway:
        answers = [await gateway.http.get("/v1/me") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
        assert (await gateway.http.get("/v1/plans")).status_code == 429
        assert (await gateway.http.get("/healthz")).status_code == 200
        elsewhere = {"X-Forwarded-For": "192.0.2.7"}
        assert (await gateway.http.get("/v1/plans", headers=elsewhere)).status_code == 200


async def test_without_redis_nobody_is_refused_and_it_is_counted(
    start: Start, free_port: int
) -> None:
    changed = {"address_requests_per_minute": 1}
    async with start(redis_url=f"redis://127.0.0.1:{free_port}", **changed) as gateway:
        answers = [await gateway.http.get("/v1/plans") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert "ratelimit" not in answers[0].headers
        metrics = (await gateway.http.get("/metrics")).text
    counted = re.search(r'easel_ratelimit_open_total\{kind="address"\} (\d+)', metrics)
    assert counted is not None
    assert int(counted.group(1)) >= 5


async def test_a_stop_lets_requests_finish(start: Start) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await go_on.wait()

    async with start(rpc_timeout_s=5) as gateway:
        gateway.scheduler.before_submit = wait
        running = asyncio.ensure_future(gateway.submit())
        await entered.wait()
        gateway.stop.set()
        assert (await gateway.http.get("/readyz")).status_code == 503
        go_on.set()
        assert (await running)["state"] == "queued"
        url = gateway.url
    async with httpx.AsyncClient() as late:
        with pytest.raises(httpx.ConnectError):
            await late.get(f"{url}/healthz")
