"""Many jobs at once, and a user's own line, through the whole of Easel."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, User, wait_for

pytestmark = [pytest.mark.timeout(180)]


@pytest.fixture
def bella(stack: Stack) -> User:
    """On pro: 3 jobs run, 12 wait."""
    return stack.client("bella", "pro")


def batch(user: User, **wanted: object) -> httpx.Response:
    return user.post("/v1/batches", {"prompts": ["a red circle on a white background"]} | wanted)


def counts(user: User, batch_id: str) -> dict[str, int]:
    return dict(user.get(f"/v1/batches/{batch_id}").json()["counts"])


def accepted(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_a_batch_is_drawn_whole_and_paid_for_once_each(bella: User) -> None:
    before = bella.settled_credits()
    prompts = ["a red circle on a white background", "a blue square on a yellow background"]
    found = accepted(batch(bella, prompts=prompts, seeds=[1, 2], steps=4))
    prices = {item["price_millicredits"] for item in found["items"]}
    assert [item["seed"] for item in found["items"]] == [1, 2, 1, 2]
    jobs = [bella.wait(item["id"]) for item in found["items"]]
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert len({bella.picture(job) for job in jobs}) == 4
    assert counts(bella, found["id"])["succeeded"] == 4
    assert before - bella.settled_credits() == 4 * prices.pop()


def test_a_batch_over_the_limit_is_refused_whole(bella: User) -> None:
    before = bella.settled_credits()
    refused = batch(bella, runs=16)
    assert refused.status_code == 429
    problem = refused.json()
    assert (problem["detail"], problem["limit"]) == ("Too many concurrent requests", 15)
    assert int(refused.headers["retry-after"]) >= 1
    assert bella.settled_credits() == before
    assert bella.get("/v1/queue").json()["queued"] == 0


def test_cancel_retry_prune(bella: User) -> None:
    long = accepted(batch(bella, steps=50, n=4, runs=8))
    ids = [item["id"] for item in long["items"]]
    # the last of the line goes to its front
    assert bella.post("/v1/queue/prepend", {"ids": [ids[-1]]}).json() == {"moved": [ids[-1]]}
    positions = {job["id"]: job["position"] for job in bella.jobs() if job["state"] == "queued"}
    assert positions[ids[-1]] == min(positions.values())
    stopped = bella.delete(f"/v1/batches/{long['id']}").json()
    assert sorted(stopped["cancelled"] + stopped["stopping"]) == sorted(ids)
    for job_id in ids:
        assert bella.wait(job_id)["state"] == "cancelled"
    again = accepted(bella.post(f"/v1/generations/{ids[0]}/retry", None))
    assert again["retry_of"] == ids[0]
    assert bella.cancel(again["id"]).status_code in {200, 202}
    bella.wait(again["id"])
    assert bella.post("/v1/queue/prune", {"states": ["cancelled"]}).json()["pruned"] >= 9
    listed = bella.get("/v1/generations", params={"batch_id": long["id"]}).json()["items"]
    assert listed == []
    assert bella.get(f"/v1/generations/{ids[0]}").status_code == 404
    assert bella.post("/v1/queue/clear", None).json()["cancelled"] == 0
    assert bella.get("/v1/queue").json()["total"] == 0
    # out of sight is not undone: nothing stays reserved
    wait_for(lambda: bella.credits()["held_millicredits"] == 0, "every hold settled")
