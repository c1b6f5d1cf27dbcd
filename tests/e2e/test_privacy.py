"""A person leaves: everything of theirs in one file, then nothing of theirs anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, running_stack, wait_for
from tests.e2e.test_money import checkout, pay

pytestmark = [pytest.mark.timeout(240)]

SCHEMAS = ("gateway", "scheduler", "billing")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of this module's own: an erasure need not wait for late uploads there."""
    folder: Path = tmp_path_factory.mktemp("privacy") / "state"
    with running_stack(folder, GATEWAY_UPLOAD_DEADLINE_S="1") as running:
        yield running


def naming(stack: Stack, text: str) -> list[str]:
    """Rows of any table of any service that have the text in any column."""
    found = []
    for schema in SCHEMAS:
        tables = stack.rows(
            schema,
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
            schema,
        )
        for (table,) in tables:
            query = f"SELECT t::text FROM {schema}.{table} t WHERE t::text LIKE %s"
            found += [f"{table}: {row}" for (row,) in stack.rows(schema, query, f"%{text}%")]
    return found


def files(stack: Stack, user_id: str) -> list[Path]:
    return [path for path in stack.folder.rglob(f"*/users/{user_id}/**/*") if path.is_file()]


def test_a_person_takes_everything_along_and_is_gone(stack: Stack) -> None:
    user, other = stack.client("leaves", "free"), stack.client("stays", "free")
    prompt = "a red circle on a white background"
    kept = other.wait(other.submit(prompt, steps=4)["id"])
    assert pay(checkout(stack, user, plan="pro")).status_code == 303
    wait_for(lambda: user.get("/v1/me").json()["plan"]["key"] == "pro", "the plan")
    done = user.wait(user.submit(prompt, steps=4)["id"])
    running = [user.submit(prompt, steps=100, n=4) for _ in range(2)]

    answer = user.get("/v1/me/data")
    data = answer.json()
    assert 'filename="my_data.json"' in answer.headers["content-disposition"]
    assert [job["id"] for job in data["jobs"]] == [done["id"], *(job["id"] for job in running)]
    assert data["account"]["subscriptions"][0]["plan_key"] == "pro"
    assert [image["id"] for image in data["images"]] == [done["images"][0]["id"]]
    assert httpx.get(data["images"][0]["link"], timeout=10).content == user.picture(done)

    user_id = data["user_id"]
    other_id = other.get("/v1/me").json()["user_id"]
    assert files(stack, user_id)
    for one in (user_id, other_id):
        tables = {row.split(":")[0] for row in naming(stack, one)}
        assert tables >= {"images", "jobs", "events", "open_jobs", "account_pii"}
    assert user.delete("/v1/me").status_code == 422
    begun = user.delete(f"/v1/me?confirm={user_id}")
    assert (begun.status_code, begun.json()["state"]) == (202, "requested")
    stack.kill("gateway")  # the erasure goes on where it was
    assert user.get(f"/v1/generations/{running[0]['id']}").status_code == 401

    def gone() -> dict[str, Any] | None:
        told = user.delete(f"/v1/me?confirm={user_id}")
        return told.json() if told.status_code == 200 else None

    assert wait_for(gone, "the end of the erasure", within_s=90)["state"] == "done"
    assert files(stack, user_id) == []
    assert naming(stack, user_id) == []
    assert user.get("/v1/me").status_code == 401
    assert stack.ledger_check().returncode == 0
    assert other.picture(kept)
    assert naming(stack, other_id)
