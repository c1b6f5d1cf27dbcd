"""A person's data: all of it in one document, and all of it gone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from PIL import Image

from easel.scheduler.v1 import jobs_pb2
from easel_kit.erasure import hash_of
from easel_kit.errors import DependencyDown
from easel_kit.ids import UserId
from tests.fakes import traces
from tests.fakes.gateway import Gateway, Start

ME, DATA = "/v1/me", "/v1/me/data"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "gateway"})
    yield connection
    await connection.close()


async def upload(gateway: Gateway, user: str = "alice") -> dict[str, Any]:
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    answer = await gateway.http.post(
        "/v1/images", content=file.getvalue(), headers=gateway.auth(user)
    )
    assert answer.status_code == 201
    return dict(answer.json())


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")
    return path


async def drawn(gateway: Gateway, user: str = "alice") -> dict[str, Any]:
    """A job that has drawn a picture, which its owner has looked at."""
    job = await gateway.submit(user)
    image = await gateway.scheduler.succeed(job["id"])
    for key in (image.object_key, image.thumbnail_object_key):
        write(gateway.objects / key)
    shown = await gateway.http.get(f"/v1/generations/{job['id']}", headers=gateway.auth(user))
    return dict(shown.json())


async def erase(gateway: Gateway, user: str = "alice", **confirm: str) -> httpx.Response:
    confirm = confirm or {"confirm": user}
    return await gateway.http.delete(ME, params=confirm, headers=gateway.auth(user))


async def until_done(gateway: Gateway, user: str = "alice") -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (answer := await erase(gateway, user)).status_code == 202:  # noqa: ASYNC110 (over HTTP)
            await asyncio.sleep(0.05)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def naming(database: asyncpg.Connection, text: str) -> list[str]:
    """Rows of any table that have the text in any column."""
    return [row for _, row in await traces.rows(database.fetch, "gateway") if text in row]


async def test_the_document_has_all_of_the_user_and_nobody_else(gateway: Gateway) -> None:
    gateway.accounts.kept["alice"] = [b'{"ledger": [{"milli', b'credits": 1000}]}']
    done, hidden, waiting = (
        await drawn(gateway),
        await drawn(gateway),
        await gateway.submit(prompt="a green star"),
    )
    gateway.scheduler.hidden.add(hidden["id"])
    own, strange = await upload(gateway), await drawn(gateway, "bob")
    answer = await gateway.http.get(DATA, headers=gateway.auth())
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == 'attachment; filename="my_data.json"'
    found = answer.json()
    assert (found["user_id"], found["account"]) == ("alice", {"ledger": [{"millicredits": 1000}]})
    assert [job["id"] for job in found["jobs"]] == [done["id"], hidden["id"], waiting["id"]]
    assert [job["prompt"] for job in found["jobs"]][1:] == ["a red circle", "a green star"]
    pictures = {image["id"]: image for image in found["images"]}
    assert pictures.keys() == {own["id"], *(job["images"][0]["id"] for job in (done, hidden))}
    assert strange["id"] not in answer.text
    link = pictures[done["images"][0]["id"]]["link"]
    assert (await gateway.http.get(link)).content == b"picture"  # without a token
    assert found["links_work_until"] > found["exported_at"] > "2026"


async def test_who_has_nothing_gets_a_document_too(gateway: Gateway) -> None:
    found = (await gateway.http.get(DATA, headers=gateway.auth("new"))).json()
    assert (found["account"], found["jobs"], found["images"]) == (None, [], [])
    assert (await gateway.http.get(DATA)).status_code == 401


async def test_a_document_that_breaks_off_is_seen_to(gateway: Gateway) -> None:
    async def down() -> None:
        raise DependencyDown("the database is away")

    gateway.accounts.kept["alice"] = [b'{"ledger": []', b"}"]
    gateway.accounts.cut = down
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.http.get(DATA, headers=gateway.auth())
    gateway.accounts.fault = down
    answer = await gateway.http.get(DATA, headers=gateway.auth())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/dependency-down")


async def test_erasing_must_be_meant(gateway: Gateway) -> None:
    for confirm in ({"confirm": "yes"}, {"other": "x"}):
        answer = await erase(gateway, **confirm)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "confirm")
    assert (await gateway.http.delete(ME, params={"confirm": "alice"})).status_code == 401
    assert (await gateway.http.get(ME, headers=gateway.auth())).status_code == 200
    assert gateway.accounts.asked == []


async def test_all_of_a_user_goes_and_nothing_of_others(
    gateway: Gateway, database: asyncpg.Connection
) -> None:
    job, own = await drawn(gateway), await upload(gateway)
    waiting = await gateway.submit()
    kept, prefix = await drawn(gateway, "bob"), await drawn(gateway, "alice2")
    gateway.accounts.settled.add("alice")
    begun = await erase(gateway)
    assert (begun.status_code, begun.json()["finished_at"]) == (202, None)
    for path in (ME, DATA, f"/v1/generations/{job['id']}", f"/v1/images/{own['id']}"):
        refused = await gateway.http.get(path, headers=gateway.auth())
        assert (refused.status_code, refused.json()["detail"]) == (401, "the account was erased")
    done = await until_done(gateway)
    assert done["state"] == "done"
    assert done["finished_at"] >= done["requested_at"] == begun.json()["requested_at"]
    assert {one.user_id for one in gateway.scheduler.jobs.values()} == {"bob", "alice2"}
    assert waiting["id"] not in gateway.scheduler.jobs
    assert gateway.accounts.asked[0] == "alice"
    users = sorted(path.name for path in (gateway.objects / "users").iterdir())
    assert users == ["alice2", "bob"]
    rows = await naming(database, "alice")
    assert len(rows) == 1
    assert "alice2" in rows[0]
    for other, user in ((kept, "bob"), (prefix, "alice2")):
        shown = await gateway.http.get(other["images"][0]["url"], headers=gateway.auth(user))
        assert shown.status_code == 307


async def test_a_late_event_brings_no_picture_back(
    gateway: Gateway, database: asyncpg.Connection
) -> None:
    job = await gateway.submit()
    gateway.accounts.settled.add("alice")
    await erase(gateway)
    await gateway.scheduler.succeed(job["id"])
    other = await drawn(gateway, "bob")
    await until_done(gateway)
    assert await database.fetchval("SELECT array_agg(id) FROM images") == [other["images"][0]["id"]]


async def test_it_waits_for_jobs_and_for_billing_over_a_restart(start: Start) -> None:
    async with start() as gateway:
        job = await drawn(gateway)
        running = await gateway.submit()
        await gateway.scheduler.start(running["id"])
        await erase(gateway)
        async with asyncio.timeout(5):
            while not gateway.scheduler.jobs[running["id"]].cancel_requested:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        before = gateway.scheduler.jobs
        assert job["id"] in before
        assert (gateway.objects / "users/alice").is_dir()
    async with start() as gateway:
        gateway.scheduler.jobs |= before
        assert (await erase(gateway)).json()["state"] == "requested"
        assert (await gateway.http.get(ME, headers=gateway.auth())).status_code == 401
        gateway.accounts.settled.add("alice")
        await gateway.scheduler.end(running["id"], jobs_pb2.JOB_STATE_CANCELLED)
        assert (await until_done(gateway))["state"] == "done"
        assert gateway.scheduler.jobs == {}
        assert not (gateway.objects / "users/alice").exists()


async def test_who_comes_back_with_a_backup_is_erased_again(
    start: Start, database: asyncpg.Connection
) -> None:
    async with start() as gateway:
        await drawn(gateway)
        backup = await database.fetch("SELECT * FROM images")
        gateway.accounts.settled.add("alice")
        await erase(gateway)
        await until_done(gateway)
        (tombstone,) = (gateway.objects / "erased/gateway").iterdir()
        assert tombstone.stem == hash_of(UserId("alice")).hex()
        assert json.loads(tombstone.read_text())["erased_at"] < datetime.now(UTC).isoformat()
    await database.execute("TRUNCATE erasures, images")
    await database.copy_records_to_table("images", records=[tuple(row) for row in backup])
    returned = write(gateway.objects / "users/alice/jobs/0.png")
    async with start() as gateway:
        gateway.accounts.settled.add("alice")
        async with asyncio.timeout(10):
            while await database.fetchval("SELECT count(*) FROM images"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not (await asyncio.to_thread(returned.exists))
        assert (await gateway.http.get(ME, headers=gateway.auth())).status_code == 401
        assert [hash_of(UserId("alice"))] in gateway.histories.asked
    assert await naming(database, "alice") == []


async def test_a_side_that_is_away_delays_and_loses_nothing(gateway: Gateway) -> None:
    await drawn(gateway)

    async def down() -> None:
        raise DependencyDown("away")

    gateway.accounts.settled.add("alice")
    gateway.accounts.fault = down
    await erase(gateway)
    await asyncio.sleep(0.3)
    assert (await erase(gateway)).json()["state"] == "requested"
    gateway.accounts.fault = None
    assert (await until_done(gateway))["state"] == "done"


async def test_another_gateway_shuts_its_door_too(start: Start) -> None:
    async with start() as gateway, start() as other:
        for one in (gateway, other):
            assert (await one.http.get(ME, headers=gateway.auth())).status_code == 200
        await erase(gateway)
        async with asyncio.timeout(10):  # it remembers for five seconds whom it let in
            while (await other.http.get(ME, headers=gateway.auth())).status_code != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_without_its_database_the_door_stands_open(
    gateway: Gateway, database_url: str
) -> None:
    name = urlsplit(database_url).path.removeprefix("/")
    admin = await asyncpg.connect(database_url, database="postgres")
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
    )
    assert (await gateway.http.get(ME, headers=gateway.auth())).status_code == 200
    assert (await gateway.http.get("/v1/images", headers=gateway.auth())).status_code == 503
    assert (await erase(gateway)).status_code == 503
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    await admin.close()
    assert (await erase(gateway)).status_code == 202


async def test_an_operator_can_begin_it(start: Start, database_url: str) -> None:
    async with start() as gateway:
        gateway.accounts.settled.add("alice")
        for said in ("requested", "done"):
            command = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", "erase", "alice"),
                env=os.environ  # noqa: TID251 (a child's)
                | {
                    "GATEWAY_DATABASE_URL": database_url,
                    "GATEWAY_BILLING_ADDRESS": "127.0.0.1:1",
                    "GATEWAY_SCHEDULER_ADDRESS": "127.0.0.1:1",
                    "GATEWAY_OBJECTS__URL": f"file://{gateway.objects}",
                    "GATEWAY_JWT__ISSUER": "https://issuer.example",
                    "GATEWAY_JWT__AUDIENCE": "easel",
                },
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await command.communicate()
            assert (command.returncode, out.decode()) == (0, f"{said}\n")
            await until_done(gateway)
