"""What is left of an emptied folder, looked at behind the store's back: nothing, or an error."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from moto.server import ThreadedMotoServer

from easel_kit.clock import SystemClock
from easel_kit.errors import DependencyDown
from easel_kit.objects import FolderStore, ObjectSettings, ObjectStore, open_object_store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FOLDER = "users/ann"
BUCKET = "versioned"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> "Iterator[S3Client]":
    """An operator's view of a fresh bucket that keeps old versions."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield client
    client.delete_bucket_policy(Bucket=BUCKET)
    for key, version in versions(client):
        client.delete_object(Bucket=BUCKET, Key=key, VersionId=version)


@pytest.fixture
async def store(client: "S3Client") -> AsyncIterator[ObjectStore]:
    endpoint = client.meta.endpoint_url
    settings = ObjectSettings(url=f"s3://{BUCKET}/easel", region="us-east-1", endpoint_url=endpoint)
    async with open_object_store(settings, SystemClock()) as opened:
        yield opened


def versions(client: "S3Client") -> list[tuple[str, str]]:
    pages = client.get_paginator("list_object_versions").paginate(Bucket=BUCKET)
    return [
        (one["Key"], one["VersionId"])
        for page in pages
        for one in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    ]


async def test_old_versions_and_marks_of_the_deleted_go_too(
    store: ObjectStore, client: "S3Client", monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (f"{FOLDER}/0.png", f"{FOLDER}/jobs/1/0.png", "users/anna/0.png"):
        for data in (b"first", b"second", b"third"):
            await store.put(key, data, "image/png")
    await store.delete(f"{FOLDER}/0.png")
    await store.put(f"{FOLDER}/1.png", b"only", "image/png")
    neighbour = [one for one in versions(client) if "/anna/" in one[0]]
    assert (len(neighbour), len(versions(client))) == (3, 11)

    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")  # one object's versions on several pages
    assert await store.delete_all(FOLDER) == 3
    assert versions(client) == neighbour
    assert await store.delete_all(FOLDER) == 0


async def test_what_the_store_keeps_is_told_and_goes_the_next_time(
    store: ObjectStore, client: "S3Client"
) -> None:
    await store.put(f"{FOLDER}/0.png", b"picture", "image/png")
    await store.put(f"{FOLDER}/1.png", b"picture", "image/png")
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:DeleteObject",
        "Resource": f"arn:aws:s3:::{BUCKET}/easel/{FOLDER}/1.png",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    client.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    with pytest.raises(DependencyDown, match=r"kept 1 .*AccessDenied"):
        await store.delete_all(FOLDER)
    assert [key for key, _ in versions(client)] == [f"easel/{FOLDER}/1.png"]
    client.delete_bucket_policy(Bucket=BUCKET)
    assert await store.delete_all(FOLDER) == 1
    assert versions(client) == []


_REFUSED = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
_UNAWARE = "<ListBucketResult><Contents><Key>easel/users/ann/0</Key></Contents></ListBucketResult>"
_NAMELESS = (
    "<ListVersionsResult><Version><Key>easel/users/ann/0</Key></Version></ListVersionsResult>"
)


_STUBBORN = (
    "<ListVersionsResult><Version><Key>easel/users/ann/0</Key><VersionId>1</VersionId></Version>"
    "</ListVersionsResult>"
)


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        ("403 Forbidden", _REFUSED, "refused ListObjectVersions .AccessDenied"),
        ("501 Not Implemented", "", "refused ListObjectVersions"),
        ("200 OK", _UNAWARE, "versions it does not list"),
        ("200 OK", _NAMELESS, "versions it does not list"),
        ("200 OK", _STUBBORN, "kept what it said it deleted"),
    ],
    ids=["not allowed", "not implemented", "parameter ignored", "no version named", "stubborn"],
)
async def test_a_store_that_may_keep_old_versions_is_an_error(
    status: str, body: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if (length := re.search(rb"(?i)\r\ncontent-length: *(\d+)", asked)) is not None:
            await reader.readexactly(int(length[1]))
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(f"{head}{body}".encode())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = ObjectSettings(
            url="s3://old/easel", region="us-east-1", endpoint_url=f"http://127.0.0.1:{port}"
        )
        async with open_object_store(settings, SystemClock()) as store:
            with pytest.raises(DependencyDown, match=fault):
                await store.delete_all(FOLDER)


async def test_leftovers_and_empty_folders_go_and_links_are_not_followed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "objects", tmp_path / "elsewhere"
    store = FolderStore(root, SystemClock())
    await store.put(f"{FOLDER}/jobs/1/0.png", b"picture", "image/png")
    await store.put("users/anna/0.png", b"picture", "image/png")
    (root / FOLDER / "jobs" / "1" / ".part-x1").write_bytes(b"pic")
    (root / FOLDER / "empty" / "below").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "kept").write_bytes(b"")
    (root / FOLDER / "link").symlink_to(elsewhere)
    assert await store.delete_all(FOLDER) == 2  # the picture and the link
    assert [path.name for path in (root / "users").iterdir()] == ["anna"]
    assert (elsewhere / "kept").exists()


async def test_a_folder_that_cannot_be_emptied_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path, SystemClock())
    await store.put(f"{FOLDER}/0.png", b"picture", "image/png")

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DependencyDown, match="emptied"):
        await store.delete_all(FOLDER)
    assert await store.list(FOLDER) == [f"{FOLDER}/0.png"]
