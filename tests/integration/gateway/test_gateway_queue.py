"""Batches and a user's own line over HTTP."""

from typing import Any

import httpx

from easel.scheduler.v1 import jobs_pb2
from easel_kit import ids
from tests.fakes.gateway import Gateway


async def post(gateway: Gateway, path: str, body: object, user: str = "alice") -> httpx.Response:
    return await gateway.http.post(path, json=body, headers=gateway.auth(user))


async def get(gateway: Gateway, path: str, user: str = "alice") -> Any:  # noqa: ANN401 (JSON)
    answer = await gateway.http.get(path, headers=gateway.auth(user))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def submit(gateway: Gateway, **body: object) -> dict[str, Any]:
    answer = await post(gateway, "/v1/batches", {"prompts": ["a", "b"]} | body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


async def test_a_batch_is_accepted_whole_in_one_call_of_each_service(gateway: Gateway) -> None:
    batch = await submit(gateway, seeds=[1, 2], runs=2, steps=5, prepend=True)
    items = batch["items"]
    assert [(item["prompt"], item["seed"]) for item in items] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ] * 2
    assert {item["batch_id"] for item in items} == {batch["id"]}
    assert {item["price_millicredits"] for item in items} == {20}
    (request,) = gateway.scheduler.submissions
    assert (request.batch_id, request.prepend, len(request.jobs)) == (batch["id"], True, 8)
    assert gateway.billing.calls.count("PlaceHolds") == 1
    status = await get(gateway, f"/v1/batches/{batch['id']}")
    assert status["counts"]["queued"] == status["counts"]["total"] == 8


async def test_a_batch_beyond_the_credits_does_nothing(gateway: Gateway) -> None:
    gateway.billing.available["alice"] = 79
    answer = await post(gateway, "/v1/batches", {"prompts": ["a", "b"]})
    assert (answer.status_code, answer.json()["needed_millicredits"]) == (402, 80)
    assert (gateway.scheduler.jobs, gateway.billing.holds) == ({}, {})


async def test_wrong_batches_name_the_field(gateway: Gateway) -> None:
    for body, field in (
        ({"prompts": []}, "prompts"),
        ({"prompts": ["a", ""]}, "prompts.1"),
        ({"prompts": ["a"], "seeds": [-1]}, "seeds.0"),
        ({"prompts": ["a"], "runs": 501}, "runs"),
        ({"prompts": ["a", "b"], "runs": 251}, "prompts"),
        ({"prompts": ["a"], "prompt": "b"}, "prompt"),
        ({"prompts": ["a"], "width": 128}, "width"),
    ):
        answer = await post(gateway, "/v1/batches", body)
        assert answer.status_code == 422, body
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert gateway.billing.holds == {}


async def test_a_batch_is_cancelled_and_someone_elses_is_not_there(gateway: Gateway) -> None:
    batch = await submit(gateway)
    running = batch["items"][0]["id"]
    await gateway.scheduler.start(running)
    path = f"/v1/batches/{batch['id']}"
    for method in ("GET", "DELETE"):
        other = await gateway.http.request(method, path, headers=gateway.auth("mallory"))
        assert other.status_code == 404
    answer = await gateway.http.delete(path, headers=gateway.auth())
    assert answer.json() == {"cancelled": [batch["items"][1]["id"]], "stopping": [running]}


async def test_jobs_are_listed_by_batch_model_and_time(gateway: Gateway) -> None:
    alone = await gateway.submit()
    batch = await submit(gateway)

    async def listed(query: str) -> list[str]:
        return [job["id"] for job in (await get(gateway, f"/v1/generations?{query}"))["items"]]

    members = [item["id"] for item in reversed(batch["items"])]
    assert await listed(f"batch_id={batch['id']}") == members
    assert await listed("model=shapes-64") == [*members, alone["id"]]
    assert await listed("model=other") == []
    at = batch["items"][0]["timeline"]["queued_at"]
    assert alone["id"] not in await listed(f"queued_from={at}")
    assert await listed(f"queued_before={at}") == [alone["id"]]
    wrong = await gateway.http.get("/v1/generations?queued_from=yesterday", headers=gateway.auth())
    assert wrong.json()["errors"][0]["field"] == "queued_from"


async def test_many_jobs_are_cancelled_by_id(gateway: Gateway) -> None:
    batch = await submit(gateway)
    first, second = (item["id"] for item in batch["items"])
    await gateway.scheduler.start(first)
    spared = await post(gateway, "/v1/queue/cancel", {"ids": [first], "waiting_only": True})
    assert spared.json() == {"cancelled": [], "stopping": []}
    answer = await post(gateway, "/v1/queue/cancel", {"ids": [second, ids.new_job_id()]})
    assert answer.json() == {"cancelled": [second], "stopping": []}
    rest = await post(gateway, "/v1/queue/cancel", {})
    assert rest.json() == {"cancelled": [], "stopping": [first]}
    wrong = await post(gateway, "/v1/queue/cancel", {"ids": ["x"]})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "ids")


async def test_waiting_jobs_move_to_the_front(gateway: Gateway) -> None:
    batch = await submit(gateway)
    first, second = (item["id"] for item in batch["items"])
    await gateway.scheduler.start(first)
    answer = await post(gateway, "/v1/queue/prepend", {"ids": [second, first]})
    assert answer.json() == {"moved": [second]}
    nothing = await post(gateway, "/v1/queue/prepend", {"ids": []})
    assert nothing.status_code == 422


async def test_ended_jobs_go_out_of_sight_and_everything_can_be_cleared(gateway: Gateway) -> None:
    batch = await submit(gateway)
    first, second = (item["id"] for item in batch["items"])
    await gateway.scheduler.end(first, jobs_pb2.JOB_STATE_FAILED)
    assert (await post(gateway, "/v1/queue/prune", {"states": ["succeeded"]})).json() == {
        "pruned": 0
    }
    assert (await post(gateway, "/v1/queue/prune", {})).json() == {"pruned": 1}
    counts = await get(gateway, "/v1/queue")
    assert (counts["queued"], counts["failed"], counts["total"]) == (1, 0, 1)
    assert (await post(gateway, "/v1/queue/clear", {})).json() == {"pruned": 1, "cancelled": 1}
    assert (await get(gateway, "/v1/queue"))["total"] == 0
    assert gateway.scheduler.jobs[second].cancel_requested


async def test_a_retry_is_a_new_job_with_a_price_of_its_own(gateway: Gateway) -> None:
    old = await gateway.submit(seed=7)
    path = f"/v1/generations/{old['id']}/retry"
    early = await gateway.http.post(path, headers=gateway.auth())
    assert (early.status_code, early.json()["type"]) == (409, "/problems/invalid-state")
    await gateway.scheduler.end(old["id"], jobs_pb2.JOB_STATE_FAILED)
    answer = await gateway.http.post(path, headers=gateway.auth())
    again = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/generations/{again['id']}"
    assert (again["retry_of"], again["seed"], again["price_millicredits"]) == (old["id"], 7, 40)
    other = await gateway.http.post(path, headers=gateway.auth("mallory"))
    assert other.status_code == 404
