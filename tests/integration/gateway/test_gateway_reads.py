"""Looking: jobs, pictures, models, account; and that nobody sees another's."""

import hashlib

from easel.scheduler.v1 import jobs_pb2
from easel_kit import errors, ids
from tests.fakes.gateway import Gateway, Start


async def test_a_finished_job_tells_all(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    await gateway.scheduler.start(job)
    image = await gateway.scheduler.succeed(job)
    gateway.billing.settle(job, captured=True)
    body = (await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth())).json()
    assert body["state"] == "succeeded"
    assert body["progress"] == {"step": 10, "steps": 10, "percent": 100}
    assert body["images"] == [
        {
            "id": image.id,
            "url": f"/v1/images/{image.id}/content",
            "thumbnail_url": f"/v1/images/{image.id}/thumbnail",
            "width": 64,
            "height": 64,
            "media_type": "image/png",
            "seed": image.seed,
        }
    ]
    assert (body["price_millicredits"], body["charged_millicredits"]) == (40, 40)
    assert body["timeline"]["queued_at"] <= body["timeline"]["finished_at"]
    assert (body["position"], body["eta_seconds"], body["attempts"]) == (None, None, 1)


async def test_a_failed_job_says_why_and_costs_nothing(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    gateway.scheduler.jobs[job].error.code = "worker_lost"
    gateway.scheduler.jobs[job].error.message = "the worker was lost"
    await gateway.scheduler.end(job, jobs_pb2.JOB_STATE_FAILED)
    gateway.billing.settle(job, captured=False)
    body = (await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth())).json()
    assert body["error"] == {"code": "worker_lost", "message": "the worker was lost"}
    assert body["charged_millicredits"] == 0


async def test_without_billing_jobs_are_still_shown(start: Start) -> None:
    async def broken() -> None:
        raise errors.Internal("a fault of billing's")

    async def away() -> None:
        raise errors.DependencyDown("away")

    async with start(rpc_timeout_s=4) as gateway:
        job = (await gateway.submit())["id"]
        gateway.billing.fault = broken
        answer = await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth())
        assert (answer.status_code, answer.json()["price_credits"]) == (200, None)
        gateway.billing.fault = away
        me = await gateway.http.get("/v1/me", headers=gateway.auth())
        assert (me.status_code, me.headers["retry-after"]) == (503, "1")


async def test_jobs_are_listed_by_page_and_state(gateway: Gateway) -> None:
    jobs = [(await gateway.submit())["id"] for _ in range(3)]
    await gateway.scheduler.start(jobs[0])
    path, headers = "/v1/generations", gateway.auth()
    first = (await gateway.http.get(path, params={"limit": 2}, headers=headers)).json()
    assert [item["id"] for item in first["items"]] == [jobs[2], jobs[1]]
    assert first["items"][0]["price_millicredits"] == 40
    rest = await gateway.http.get(
        path, params={"limit": 2, "cursor": first["next_cursor"]}, headers=headers
    )
    assert [item["id"] for item in rest.json()["items"]] == [jobs[0]]
    assert rest.json()["next_cursor"] is None
    running = await gateway.http.get(path, params={"state": "running"}, headers=headers)
    assert [item["id"] for item in running.json()["items"]] == [jobs[0]]
    wrong = await gateway.http.get(path, params={"cursor": "x"}, headers=headers)
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "cursor")


async def test_nobody_sees_anothers(gateway: Gateway) -> None:
    job = (await gateway.submit("alice"))["id"]
    image = await gateway.scheduler.succeed(job)
    own, other = gateway.auth("alice"), gateway.auth("mallory")
    paths = [
        f"/v1/generations/{job}",
        f"/v1/generations/{job}/events",
        f"/v1/images/{image.id}",
        f"/v1/images/{image.id}/content",
        f"/v1/images/{image.id}/thumbnail",
    ]
    assert (await gateway.http.get(paths[0], headers=own)).status_code == 200
    for path in paths:
        answer = await gateway.http.get(path, headers=other)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found"), path
    assert (await gateway.http.delete(paths[0], headers=other)).status_code == 404
    assert (await gateway.http.get("/v1/generations", headers=other)).json()["items"] == []
    assert not gateway.scheduler.jobs[job].cancel_requested


async def test_what_is_not_there_is_404(gateway: Gateway) -> None:
    for wrong in ("x", "job_123", ids.new_job_id(), ids.new_image_id(), "%00"):
        for path in (
            f"/v1/generations/{wrong}",
            f"/v1/images/{wrong}",
            f"/v1/images/{wrong}/content",
            f"/v1/images/{wrong}/thumbnail",
        ):
            answer = await gateway.http.get(path, headers=gateway.auth())
            assert (answer.status_code, answer.json()["status"]) == (404, 404), path


async def test_a_picture_is_there_as_soon_as_the_job_says_so(gateway: Gateway) -> None:
    gateway.scheduler.feeding = False
    job = (await gateway.submit())["id"]
    data = b"\x89PNG" + b"x" * 100
    image = await gateway.scheduler.succeed(job, data)
    target = gateway.objects / image.object_key
    target.parent.mkdir(parents=True)
    target.write_bytes(data)
    shown = (await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth())).json()
    content = await gateway.http.get(shown["images"][0]["url"], headers=gateway.auth())
    assert content.status_code == 307
    link = content.headers["location"]
    fetched = await gateway.http.get(link)
    assert (fetched.status_code, fetched.content) == (200, data)
    assert fetched.headers["content-type"] == "image/png"
    assert fetched.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in fetched.headers["cache-control"]
    about = (await gateway.http.get(f"/v1/images/{image.id}", headers=gateway.auth())).json()
    assert (about["job_id"], about["sha256"]) == (job, hashlib.sha256(data).hexdigest())
    await gateway.scheduler.resume_feed()


async def test_the_feed_fills_the_library_across_a_restart(start: Start) -> None:
    async with start() as gateway:
        job = (await gateway.submit())["id"]
        first = await gateway.scheduler.succeed(job)
        path = f"/v1/images/{first.id}"
        await until_found(gateway, path)
        kept = gateway.scheduler
    async with start() as again:
        again.scheduler.jobs, again.scheduler.events = kept.jobs, kept.events
        other = (await again.submit())["id"]
        second = await again.scheduler.succeed(other)
        await until_found(again, f"/v1/images/{second.id}")
        await until_found(again, path)
        assert [request.sequence for request in again.scheduler.subscriptions] == [1]


async def until_found(gateway: Gateway, path: str) -> None:
    while (await gateway.http.get(path, headers=gateway.auth())).status_code != 200:
        pass


async def test_links_are_worth_nothing_changed_or_late(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    image = await gateway.scheduler.succeed(job)
    await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth())
    content = await gateway.http.get(f"/v1/images/{image.id}/content", headers=gateway.auth())
    link = content.headers["location"]
    assert (await gateway.http.get(link)).status_code == 404  # signed, and no such file
    other = link.replace("/0.png", "/1.png")
    assert (await gateway.http.get(other)).status_code == 403
    late = link.replace("expires=", "expires=1")
    assert (await gateway.http.get(late)).status_code == 403
    for wrong in (
        "/objects/../../etc/passwd?expires=1&signature=" + "0" * 64,
        "/objects/%2e%2e/%2e%2e/etc/passwd?expires=1&signature=" + "0" * 64,
    ):
        assert (await gateway.http.get(wrong)).status_code == 404


async def test_models_may_be_kept_by_their_tag(gateway: Gateway) -> None:
    first = await gateway.http.get("/v1/models", headers=gateway.auth())
    model, *others = first.json()["items"]
    assert (model["key"], model["sizes"]) == ("shapes-64", [{"width": 64, "height": 64}])
    assert (model["features"][:2], model["size_bytes"]) == (
        ["image_to_image", "inpaint"],
        5_000_000,
    )
    assert [(other["type"], other["size_bytes"]) for other in others] == [
        ("lora", None),
        ("controlnet", None),
    ]
    assert first.headers["cache-control"] == "private, max-age=300"
    known = gateway.auth() | {"If-None-Match": f'"other", W/{first.headers["etag"]}'}
    again = await gateway.http.get("/v1/models", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    none = await gateway.http.get("/v1/models", params={"type": "vae"}, headers=gateway.auth())
    assert none.json() == {"items": []}


async def test_the_account_and_its_ledger(gateway: Gateway) -> None:
    job = (await gateway.submit())["id"]
    me = (await gateway.http.get("/v1/me", headers=gateway.auth())).json()
    assert (me["user_id"], me["plan"]["key"], me["plan"]["max_running"]) == ("alice", "free", 1)
    assert me["credits"] == {
        "available_millicredits": 960,
        "held_millicredits": 40,
        "debt_millicredits": 0,
        "available_credits": "0.960",
        "held_credits": "0.040",
        "debt_credits": "0.000",
    }
    assert me["subscription"] is None
    path = "/v1/billing/ledger"
    ledger = (await gateway.http.get(path, params={"job_id": job}, headers=gateway.auth())).json()
    assert [(line["reference"], line["millicredits"]) for line in ledger["items"]] == [(job, -40)]
    wrong = await gateway.http.get(path, params={"job_id": "x"}, headers=gateway.auth())
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "job_id")
    wrong = await gateway.http.get(path, params={"cursor": "x"}, headers=gateway.auth())
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "cursor")
    plans = await gateway.http.get("/v1/plans")
    assert [plan["key"] for plan in plans.json()["items"]] == ["free", "pro"]
