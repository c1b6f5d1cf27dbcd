"""The folder and S3 keep the same promises; S3 is a real HTTP server with S3's API on loopback."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from easel_kit.errors import DependencyDown, Forbidden, InvalidInput, NotFound
from easel_kit.objects import FolderStore, ObjectSettings, ObjectStore, open_object_store

KEY = "users/alice/jobs/job_1/att_1/0.png"


class MovedClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture(params=["folder", "s3"])
async def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[ObjectStore]:
    if request.param == "folder":
        key = tmp_path / "key"
        key.write_bytes(b"k" * 32)
        settings = ObjectSettings(
            url=f"file://{tmp_path}/objects", signing_key_file=key, public_url="http://127.0.0.1:1"
        )
    else:
        endpoint = request.getfixturevalue("s3_endpoint")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        make_bucket(endpoint)
        settings = ObjectSettings(
            url="s3://pictures/easel", region="us-east-1", endpoint_url=endpoint
        )
    async with open_object_store(settings, clock) as opened:
        yield opened


def make_bucket(endpoint: str) -> None:
    # us-east-1 answers a second creation with success
    boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint).create_bucket(
        Bucket="pictures"
    )


async def test_what_was_put_is_got_replaced_and_deleted(store: ObjectStore) -> None:
    await store.put(KEY, b"one", "image/png")
    await store.put(KEY, b"two", "image/png")
    assert await store.get(KEY) == b"two"
    await store.delete(KEY)
    await store.delete(KEY)
    with pytest.raises(NotFound):
        await store.get(KEY)


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/./b", "a b", "a\0b", "x" * 513, "a/"]
)
async def test_a_key_that_could_leave_the_store_is_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidInput):
        await store.put(key, b"", "image/png")
    with pytest.raises(InvalidInput):
        await store.get(key)


async def test_a_folder_is_listed_whole_in_order_and_without_its_neighbours(
    store: ObjectStore,
) -> None:
    assert await store.list("audit/new") == []
    keys = [f"audit/new/b/{number:020}.json" for number in (10, 9, 100)]
    for key in [*keys, "audit/new/a.json", "audit/newer/a.json", "audit/new.json"]:
        await store.put(key, b"{}", "application/json")
    assert await store.list("audit/new") == ["audit/new/a.json", *sorted(keys)]
    await store.delete(keys[0])
    assert await store.list("audit/new/b") == [keys[1], keys[2]]
    with pytest.raises(InvalidInput):
        await store.list("audit/../new")


async def test_a_long_list_comes_whole(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # S3 itself answers 1,000 at a time
    keys = [f"long/{number:04}" for number in range(25)]
    await asyncio.gather(*(store.put(key, b"", "text/plain") for key in keys))
    assert await store.list("long") == keys


async def test_what_is_being_written_is_not_listed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, MovedClock())
    await store.put("audit/1.json", b"{}", "application/json")
    (tmp_path / "audit" / ".part-x1").write_bytes(b"{")
    assert await store.list("audit") == ["audit/1.json"]


async def test_a_folder_is_emptied_at_any_depth_without_its_neighbours(store: ObjectStore) -> None:
    neighbours = ["users/ann.json", "users/anna/0.png", "users/bob/ann/0.png"]
    for key in [*neighbours, "users/ann/0.png", "users/ann/jobs/1/0.png", "users/ann/jobs/2/0.png"]:
        await store.put(key, b"picture", "image/png")
    assert await store.delete_all("users/ann") == 3
    assert await store.list("users") == neighbours
    assert await store.delete_all("users/ann") == 0
    assert await store.delete_all("users/ann.json") == 0
    assert await store.delete_all("never/there") == 0
    assert await store.list("users") == neighbours
    await store.put("users/ann/0.png", b"again", "image/png")
    assert await store.delete_all("users/ann") == 1
    for wrong in ("", "users/", "users/../ann"):
        with pytest.raises(InvalidInput):
            await store.delete_all(wrong)


async def test_a_folder_of_many_pages_is_emptied(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    keys = [f"many/{number:04}" for number in range(25)]
    await asyncio.gather(*(store.put(key, b"", "text/plain") for key in keys))
    assert await store.delete_all("many") == len(keys)
    assert await store.list("many") == []


async def test_s3_hands_out_urls_that_work(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    make_bucket(s3_endpoint)
    settings = ObjectSettings(url="s3://pictures", region="us-east-1", endpoint_url=s3_endpoint)
    async with open_object_store(settings, MovedClock()) as store, httpx.AsyncClient() as client:
        await store.put(KEY, b"picture", "image/png")
        answer = await client.get(await store.signed_url(KEY, expires_s=60))
        assert (answer.content, answer.headers["content-type"]) == (b"picture", "image/png")


async def test_a_store_that_is_away_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    settings = ObjectSettings(
        url="s3://pictures", region="us-east-1", endpoint_url="http://127.0.0.1:9"
    )
    async with open_object_store(settings, MovedClock()) as store:
        with pytest.raises(DependencyDown):
            await store.get(KEY)


async def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "my pictures 100%"
    settings = ObjectSettings(url=folder.as_uri())
    async with open_object_store(settings, MovedClock()) as store:
        await store.put(KEY, b"picture", "image/png")
    assert (folder / KEY).read_bytes() == b"picture"


async def test_a_folder_link_holds_for_its_key_and_time_only(
    tmp_path: Path, clock: MovedClock
) -> None:
    store = FolderStore(tmp_path, clock, signing_key=b"k" * 32, public_url="http://host/")
    url = urlsplit(await store.signed_url(KEY, expires_s=60))
    query = parse_qs(url.query)
    expires, signature = int(query["expires"][0]), query["signature"][0]
    assert url.path == f"/objects/{KEY}"
    store.verify(KEY, expires, signature)
    for wrong in (
        (KEY.replace("alice", "bob"), expires, signature),
        (KEY, expires + 1, signature),
        (KEY, expires, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
    ):
        with pytest.raises(Forbidden):
            store.verify(*wrong)
    clock.time += timedelta(seconds=61)
    with pytest.raises(Forbidden, match="expired"):
        store.verify(KEY, expires, signature)


async def test_settings_that_name_no_store_are_refused(tmp_path: Path, clock: MovedClock) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"k")
    for settings in (
        ObjectSettings(url="ftp://x/y"),
        ObjectSettings(url="s3://"),
        ObjectSettings(url=f"file://{tmp_path}", signing_key_file=short),
    ):
        with pytest.raises(InvalidInput):
            async with open_object_store(settings, clock):
                pass
    with pytest.raises(DependencyDown, match="sign"):
        await FolderStore(tmp_path, clock).signed_url(KEY, expires_s=1)
